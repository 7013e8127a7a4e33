#include "common/options_table.h"

#include <math.h>
#include <string.h>

#define ANY {.low = -INFINITY, .high = INFINITY}
#define AT_LEAST(bound) {.low = (bound), .high = INFINITY}
#define ABOVE(bound) {.low = (bound), .low_open = true, .high = INFINITY}
#define BETWEEN(from, to) {.low = (from), .high = (to)}
#define FROM_TO_BELOW(from, to) {.low = (from), .high = (to), .high_open = true}
#define ABOVE_TO(from, to) {.low = (from), .low_open = true, .high = (to)}
#define ONE_OF(...) {.words = (const char *const[]){__VA_ARGS__, NULL}}

#define FIXED true
#define FREE false

const struct option_row option_rows[OPTION_COUNT] = {
#define OPTION(kind, name, fallback, limits, unit, resume, group, help)                                       \
    [OPTION_##name] = {#name, OPTION_KIND_##kind, offsetof(struct options, name), fallback, limits, unit, resume, \
                       OPTION_GROUP_##group, help},
#define OPTION_PS(kind, name, fallback, limits, unit, resume, group, help)                                           \
    [OPTION_ps_##name] = {"ps." #name, OPTION_KIND_##kind, offsetof(struct options, ps.name), fallback, limits, unit, \
                          resume, OPTION_GROUP_##group, help},
#define OPTION_LOAR(kind, name, fallback, limits, unit, resume, group, help)                                              \
    [OPTION_loar_##name] = {"loar." #name, OPTION_KIND_##kind, offsetof(struct options, loar.name), fallback, limits, unit, \
                            resume, OPTION_GROUP_##group, help},
#include "common/options.def"
};

static const struct option_row dataset_rows[] = {
#define OPTION_DATASET(kind, name, fallback, limits, unit, resume, group, help) \
    {#name, OPTION_KIND_##kind, offsetof(struct dataset_options, name), fallback, limits, unit, resume, OPTION_GROUP_##group, help},
#include "common/options.def"
};
static const struct option_row layer_rows[] = {
#define OPTION_LAYER(kind, name, fallback, limits, unit, resume, group, help) \
    {#name, OPTION_KIND_##kind, offsetof(struct layer_options, name), fallback, limits, unit, resume, OPTION_GROUP_##group, help},
#include "common/options.def"
};
static const struct option_row task_rows[] = {
#define OPTION_TASK(kind, name, fallback, limits, unit, resume, group, help) \
    {#name, OPTION_KIND_##kind, offsetof(struct task_options, name), fallback, limits, unit, resume, OPTION_GROUP_##group, help},
#include "common/options.def"
};
static const struct option_row stage_rows[] = {
#define OPTION_STAGE(kind, name, fallback, limits, unit, resume, group, help) \
    {#name, OPTION_KIND_##kind, offsetof(struct stage_options, name), fallback, limits, unit, resume, OPTION_GROUP_##group, help},
#include "common/options.def"
};

#define ENTRIES(rows, type) rows, sizeof(rows) / sizeof *(rows), sizeof(type)
const struct option_entries option_entry_kinds[] = {
    {"data sets, each with a path", "{name: gsm, path: train.jsonl}", ENTRIES(dataset_rows, struct dataset_options), NULL, NULL},
    {"layers, or article, interleave, dense", "{range: 0-5, window: 256, budget: 0.5}", ENTRIES(layer_rows, struct layer_options), "preset", NULL},
    {"tasks", "{task: qa, budget: 0.4}", ENTRIES(task_rows, struct task_options), NULL, NULL},
    {"stages", "{name: short, max_samples: 500, num_train_epochs: 1}", ENTRIES(stage_rows, struct stage_options), NULL, "set"},
};
const size_t option_entry_kind_count = sizeof option_entry_kinds / sizeof *option_entry_kinds;

const struct option_entries *option_entries(enum option_kind kind)
{
    return kind >= OPTION_KIND_DATASETS ? &option_entry_kinds[kind - OPTION_KIND_DATASETS] : NULL;
}

const char *const option_group_titles[OPTION_GROUP_COUNT] = {
#define OPTION_GROUP(group, title) title,
#include "common/options.def"
};

#define SAME false
#define INVERSE true
const struct option_alias option_aliases[] = {
#define OPTION_ALIAS(other, name, sense) {#other, #name, sense},
#include "common/options.def"
};
const size_t option_alias_count = sizeof option_aliases / sizeof option_aliases[0];

const char *option_value_alias(const char *key, const char *word)
{
    static const struct {
        const char *key, *other, *word;
    } rows[] = {
#define OPTION_VALUE_ALIAS(option, other, canonical) {#option, #other, #canonical},
#include "common/options.def"
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strcmp(key, rows[i].key) && !strcmp(word, rows[i].other))
            return rows[i].word;
    return NULL;
}

const struct option_row *option_find(const char *name, const struct option_alias **alias)
{
    if (alias)
        *alias = NULL;
    for (size_t i = 0; i < option_alias_count; i++)
        if (!strcmp(name, option_aliases[i].other)) {
            if (alias)
                *alias = &option_aliases[i];
            name = option_aliases[i].name;
            break;
        }
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (!strcmp(name, option_rows[i].name))
            return &option_rows[i];
    return NULL;
}

static const struct {
    const char *other, *name;
} entry_aliases[] = {
#define OPTION_DATASET_ALIAS(other, name) {#other, #name},
#include "common/options.def"
};
enum { ENTRY_ALIASES = sizeof entry_aliases / sizeof entry_aliases[0] };

const struct option_row *option_entry_find(const struct option_entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->count; i++)
        if (!strcmp(name, entries->rows[i].name))
            return &entries->rows[i];
    for (size_t i = 0; i < ENTRY_ALIASES; i++)
        if (entries->rows == dataset_rows && !strcmp(name, entry_aliases[i].other))
            return option_entry_find(entries, entry_aliases[i].name);
    return NULL;
}

bool option_entry_is_section(const struct option_entries *entries, const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < ENTRY_ALIASES; i++)
        if (entries->rows == dataset_rows && !strncmp(entry_aliases[i].other, name, size) && entry_aliases[i].other[size] == '.')
            return true;
    return false;
}

bool option_is_section(const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (!strncmp(option_rows[i].name, name, size) && option_rows[i].name[size] == '.')
            return true;
    for (size_t i = 0; i < option_alias_count; i++)
        if (!strncmp(option_aliases[i].other, name, size) && option_aliases[i].other[size] == '.')
            return true;
    return false;
}

enum { NEAREST_MAX = 64 };

/* Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment distance. */
static int edits(const char *a, const char *b)
{
    int rows[3][NEAREST_MAX + 1], n = (int)strlen(a), m = (int)strlen(b);
    if (n > NEAREST_MAX || m > NEAREST_MAX)
        return NEAREST_MAX;
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = before[j - 1] + (a[i - 1] != b[j - 1]);
            best = before[j] + 1 < best ? before[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && earlier[j - 2] + 1 < best)
                best = earlier[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[n % 3][m];
}

/* Keeps the nearer of two candidates. */
static void consider(const char *word, const char *candidate, const char *shown, int *best, const char **nearest)
{
    int distance = edits(word, candidate);
    if (distance < *best) {
        *best = distance;
        *nearest = shown;
    }
}

/* Farther than this is another word, not a slip. */
static int reach(const char *word)
{
    return 2 + (int)strlen(word) / 4;
}

const char *nearest_name(const char *word, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    int best = reach(word);
    for (size_t i = 0; i < count; i++)
        consider(word, names[i], names[i], &best, &nearest);
    return nearest;
}

const char *option_nearest(const char *name)
{
    const char *nearest = NULL;
    int best = reach(name);
    for (size_t i = 0; i < OPTION_COUNT; i++)
        consider(name, option_rows[i].name, option_rows[i].name, &best, &nearest);
    for (size_t i = 0; i < option_alias_count; i++)
        consider(name, option_aliases[i].other, option_aliases[i].name, &best, &nearest);
    return nearest;
}

const char *option_entry_nearest(const struct option_entries *entries, const char *name)
{
    const char *nearest = NULL;
    int best = reach(name);
    for (size_t i = 0; i < entries->count; i++)
        consider(name, entries->rows[i].name, entries->rows[i].name, &best, &nearest);
    return nearest;
}

const char *option_name(enum option_id id)
{
    return option_rows[id].name;
}

enum option_id options_id(const char *key)
{
    const struct option_row *row = option_find(key, NULL);
    return row ? (enum option_id)(row - option_rows) : OPTION_COUNT;
}
