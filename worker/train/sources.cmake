list(APPEND WORKER_SOURCES train/accumulate.c)
