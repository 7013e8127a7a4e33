list(APPEND WORKER_SOURCES infer/answer.c infer/generate.c infer/sample.c infer/score.c infer/vote.c)
