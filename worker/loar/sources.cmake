list(APPEND WORKER_SOURCES loar/counts.c loar/decisions.c loar/features.c loar/loar.c loar/memory.c loar/products.c
  loar/router.c loar/row_lists.c loar/schedule.c)
