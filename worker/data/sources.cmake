list(APPEND WORKER_SOURCES data/batch.c data/order.c data/jsonl.c data/rows.c data/block.c data/dataset.c
  data/demo/demo.c data/demo/tasks.c data/demo/tokenizer_files.c)
