list(APPEND WORKER_SOURCES data/batch.c data/block.c data/bytes.c data/cache.c data/conversation.c data/dataset.c
  data/dataset_labels.c data/duplicates.c data/holdout.c data/join.c data/jsonl.c data/labels.c data/mixture.c
  data/order.c data/reading.c data/reading_columns.c data/reading_message.c data/reading_turns.c data/records.c
  data/row_names.c data/rows.c data/seen_names.c data/select.c data/stretches.c data/table.c
  data/demo/demo.c data/demo/tasks.c data/demo/tokenizer_files.c)
list(APPEND WORKER_SOURCES data/template.c data/template_file.c data/template_table.c data/tokenizer/added.c data/tokenizer/bpe.c data/tokenizer/bpe_read.c data/tokenizer/decode.c
  data/tokenizer/decode_read.c data/tokenizer/encode.c data/tokenizer/learn.c data/tokenizer/normalize.c data/tokenizer/parts.c
  data/tokenizer/pretokenize.c data/tokenizer/regex.c data/tokenizer/tables.c data/tokenizer/tokenizer.c
  data/tokenizer/train.c data/tokenizer/unicode.c data/tokenizer/words.c data/tokenizer/write.c)
