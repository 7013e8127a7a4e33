list(APPEND WORKER_SOURCES data/batch.c)
