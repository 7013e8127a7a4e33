list(APPEND WORKER_SOURCES data/batch.c data/order.c data/jsonl.c data/rows.c)
