list(APPEND WORKER_SOURCES loar/counts.c loar/decisions.c loar/features.c loar/gate.c loar/gate_gradient.c loar/level.c loar/loar.c
  loar/memory.c loar/policy.c loar/products.c loar/rank.c loar/router.c loar/row_lists.c loar/schedule.c loar/search.c loar/tensors.c
  loar/track.c loar/policies/article.c loar/policies/quantile.c loar/policies/sigmoid.c loar/policies/softmax_rel.c
  loar/policies/topk.c loar/policies/topp.c)
