#include "launch/bench_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum status bench_option_set(const char *bench, const char *arg, const char *value, const struct bench_option *options,
                             size_t count, struct error *err)
{
    size_t at = 0;
    while (at < count && (strncmp(arg, "--", 2) || strcmp(options[at].name, arg + 2)))
        at++;
    if (at == count)
        FAIL(err, STATUS_USAGE, "'%s' is not an option; see loar bench %s --help", arg, bench);
    char *end = NULL;
    errno = 0;
    long long number = value ? strtoll(value, &end, 10) : 0;
    if (!value || errno || end == value || *end || number < options[at].least || number > options[at].most)
        FAIL(err, STATUS_USAGE, "%s must be a whole number from %lld to %lld, found '%s'", arg, (long long)options[at].least,
             (long long)options[at].most, value ? value : "nothing");
    *options[at].value = number;
    return STATUS_OK;
}

enum status bench_options_read(int argc, char **argv, const struct bench_option *options, size_t count, struct error *err)
{
    for (int i = 1; i < argc; i += 2)
        TRY(bench_option_set(argv[0], argv[i], argv[i + 1], options, count, err));
    return STATUS_OK;
}

struct model_config bench_model(int64_t layers, int64_t width, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t vocab)
{
    return (struct model_config){
        .type = MODEL_LLAMA, .width = width, .hidden = hidden, .layers = (int)layers, .heads = (int)heads, .kv_heads = (int)kv_heads,
        .head_dim = width / heads, .vocab = vocab, .max_positions = 1 << 20, .norm_eps = 1e-5f, .rope_theta = 10000, .rope_factor = 1,
        .init_std = 0.02f, .bos = -1,
    };
}

enum status bench_check_heads(int64_t width, int64_t heads, int64_t kv_heads, struct error *err)
{
    if (width % heads || heads % kv_heads || width / heads % 2)
        FAIL(err, STATUS_USAGE, "width %lld, %lld heads and %lld kv_heads do not fit together", (long long)width, (long long)heads,
             (long long)kv_heads);
    return STATUS_OK;
}
