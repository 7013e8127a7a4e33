/* Declares every bench of bench.def. */
#ifndef LAUNCH_BENCH_H
#define LAUNCH_BENCH_H

#define BENCH(name, help) int bench_##name(int argc, char **argv);
#include "launch/bench.def"
#undef BENCH

#endif
