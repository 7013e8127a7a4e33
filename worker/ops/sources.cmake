list(APPEND WORKER_SOURCES ops/attention_backward.c ops/attention_forward.c ops/attention_tile.c ops/bias.c
  ops/cross_entropy.c ops/dropout.c ops/embedding.c ops/gemm.c ops/heads.c
  ops/microkernel.c ops/norm.c ops/rope.c ops/rows.c ops/swiglu.c)
