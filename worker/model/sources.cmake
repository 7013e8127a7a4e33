list(APPEND WORKER_SOURCES model/adapter.c model/config.c model/config_labels.c model/export.c model/import.c model/safetensors.c model/safetensors_write.c)
list(APPEND WORKER_SOURCES model/attention_block.c model/counters.c model/decode.c model/forward.c model/head.c model/keys.c model/llama.c model/lora.c
  model/mlp_block.c model/model.c model/numeric.c model/plan.c model/qwen2.c
  model/routed.c model/training.c model/workspace.c)
