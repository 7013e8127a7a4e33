#include "launch/invocation.h"

#include <ctype.h>
#include <string.h>

void invocation_put_word(const char *word, struct text *out)
{
    const char *c = word;
    while (isalnum((unsigned char)*c) || (*c && strchr("%+,-./:=@_", *c)))
        c++;
    if (c > word && !*c) {
        text_puts(out, word);
        return;
    }
    text_puts(out, "'");
    for (c = word; *c; c++)
        if (*c == '\'')
            text_puts(out, "'\\''");
        else
            text_append(out, c, 1);
    text_puts(out, "'");
}

void invocation_put_sibling(const struct invocation *v, const char *name, struct text *out)
{
    const char *slash = strrchr(v->program, '/');
    struct text path = {0};
    text_printf(&path, "%.*s%s", slash ? (int)(slash + 1 - v->program) : 0, v->program, name);
    invocation_put_word(path.failed ? name : path.data, out);
    text_free(&path);
}

/* How many of the arguments at `args` set this key: `key=value`, `--key=value`, `--key value`, and `--key` alone. */
static int arguments_of(const char *key, int count, char *const *args)
{
    const char *word = args[0] + (strncmp(args[0], "--", 2) ? 0 : 2);
    for (; *key && (*word == *key || (*word == '-' && *key == '_')); word++)
        key++;
    if (*key || (*word && *word != '='))
        return 0;
    return *word || count < 2 || !strncmp(args[1], "--", 2) || strchr(args[1], '=') ? 1 : 2;
}

void invocation_put_resume(const struct invocation *v, struct text *out)
{
    if (v->ranks)
        text_printf(out, "mpirun -n %d ", v->ranks);
    invocation_put_word(v->program, out);
    text_puts(out, " ");
    invocation_put_word(v->run_file, out);
    for (int i = 0, used; i < v->n_overrides; i += used ? used : 1) {
        used = arguments_of("resume_from_checkpoint", v->n_overrides - i, v->overrides + i);
        if (!used)
            used = arguments_of("overwrite_output_dir", v->n_overrides - i, v->overrides + i);
        if (used)
            continue;
        text_puts(out, " ");
        invocation_put_word(v->overrides[i], out);
    }
    text_puts(out, " --resume_from_checkpoint true");
}
