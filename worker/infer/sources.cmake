list(APPEND WORKER_SOURCES infer/generate.c infer/sample.c)
