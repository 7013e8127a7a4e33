/* Options as a run file and a command line give them. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_PARSED_OPTIONS_H
#define TESTS_SUPPORT_PARSED_OPTIONS_H

#include "common/memory.h"
#include "common/options.h"

static struct error err;
static struct options o;
static struct text notes;

static const char base[] = "model_name_or_path: m\ndatasets: [{path: a.jsonl}]\n";

/* Parses base + text with overrides (NULL-terminated). */
static inline enum status parse(const char *text, char **overrides)
{
    struct text all = {0};
    int n = 0;
    while (overrides && overrides[n])
        n++;
    text_puts(&all, base);
    text_puts(&all, text);
    text_clear(&notes);
    enum status st = options_parse_text(all.data, all.size, "run.yaml", n, overrides, &o, &notes, &err);
    text_free(&all);
    return st;
}

/* Behind the last test: nothing is left over. */
static inline int end(void **state)
{
    (void)state;
    text_free(&notes);
    return mem_live() != 0;
}

#endif
