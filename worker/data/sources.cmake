list(APPEND WORKER_SOURCES data/batch.c data/order.c)
