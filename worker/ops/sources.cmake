list(APPEND WORKER_SOURCES ops/attention_backward.c ops/attention_forward.c ops/bias.c ops/cross_entropy.c ops/embedding.c
  ops/gemm.c ops/norm.c ops/rope.c ops/rows.c ops/swiglu.c)
