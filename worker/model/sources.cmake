list(APPEND WORKER_SOURCES model/config.c model/export.c model/import.c model/safetensors.c model/safetensors_write.c)
