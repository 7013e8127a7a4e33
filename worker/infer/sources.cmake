list(APPEND WORKER_SOURCES infer/sample.c)
