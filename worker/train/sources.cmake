list(APPEND WORKER_SOURCES train/accumulate.c train/join.c train/loop.c)
