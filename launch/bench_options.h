/* What benches share besides measuring: options that are whole numbers, and a model with nothing but a shape.
 * Must not know: what is measured. */
#ifndef LAUNCH_BENCH_OPTIONS_H
#define LAUNCH_BENCH_OPTIONS_H

#include <stddef.h>

#include "common/status.h"
#include "worker/model/model.h"

struct bench_option {
    const char *name; /* without dashes */
    int64_t *value;
    int64_t least, most;
};
#define BENCH_COUNT(options) (sizeof(options) / sizeof *(options))

/* Reads `--name VALUE` pairs from argv[1] on. STATUS_USAGE names the bench argv[0], the option and what it may be. */
enum status bench_options_read(int argc, char **argv, const struct bench_option *options, size_t count, struct error *err);
/* One pair. value: NULL where there is none. */
enum status bench_option_set(const char *bench, const char *arg, const char *value, const struct bench_option *options,
                             size_t count, struct error *err);

/* A Llama of this shape for random weights. */
struct model_config bench_model(int64_t layers, int64_t width, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t vocab);
/* STATUS_USAGE where heads do not divide the width into even parts. */
enum status bench_check_heads(int64_t width, int64_t heads, int64_t kv_heads, struct error *err);

#endif
