/* The rows of options.def as data, and finding one by name. Only for common/options_*.c.
 * Must not know: files, command lines. */
#ifndef COMMON_OPTIONS_TABLE_H
#define COMMON_OPTIONS_TABLE_H

#include "common/options.h"

enum option_kind {
    OPTION_KIND_INT,
    OPTION_KIND_REAL,
    OPTION_KIND_BOOL,
    OPTION_KIND_STRING,
    OPTION_KIND_CHOICE,
    OPTION_KIND_STRINGS,
    OPTION_KIND_REALS,
    OPTION_KIND_DATASETS,
    OPTION_KIND_LAYERS,
    OPTION_KIND_TASKS,
    OPTION_KIND_STAGES,
};

enum option_group {
#define OPTION_GROUP(group, title) OPTION_GROUP_##group,
#include "common/options.def"
    OPTION_GROUP_COUNT
};

/* Numbers: low .. high, an end that is open does not belong. Choices: NULL-terminated words. */
struct option_limits {
    double low, high;
    bool low_open, high_open;
    const char *const *words;
};

struct option_row {
    const char *name; /* with dots */
    enum option_kind kind;
    size_t offset; /* in struct options, or in an entry's struct */
    const char *fallback;
    struct option_limits limits;
    const char *unit;
    bool fixed; /* a resumed run must have the same value */
    enum option_group group;
    const char *help;
};

extern const struct option_row option_rows[OPTION_COUNT];

/* What the entries of a list of mappings are. */
struct option_entries {
    const char *noun, *example;
    const struct option_row *rows;
    size_t count, size;    /* rows; bytes of an entry */
    const char *shorthand; /* key of a list's only entry that a single word stands for, or NULL */
    const char *others;    /* key of the list that keys of the run inside an entry go to, as key=value; NULL: there may be none */
};
extern const struct option_entries option_entry_kinds[];
extern const size_t option_entry_kind_count;
/* NULL for kinds that are no lists of mappings. */
const struct option_entries *option_entries(enum option_kind kind);
extern const char *const option_group_titles[OPTION_GROUP_COUNT];

struct option_alias {
    const char *other, *name;
    bool inverse; /* true means false */
};
extern const struct option_alias option_aliases[];
extern const size_t option_alias_count;

/* Canonical word for another word of a choice, or NULL. */
const char *option_value_alias(const char *key, const char *word);

/* Row of a canonical name or alias; NULL if unknown. `alias` (may be NULL) gets the alias's row or NULL. */
const struct option_row *option_find(const char *name, const struct option_alias **alias);
const struct option_row *option_entry_find(const struct option_entries *entries, const char *name);
/* True for words that open a mapping inside an entry: "columns". */
bool option_entry_is_section(const struct option_entries *entries, const char *name);
/* Nearest canonical name for an unknown one, or NULL. */
const char *option_nearest(const char *name);
const char *option_entry_nearest(const struct option_entries *entries, const char *name);
/* True for words that open a mapping of further keys: "ps", "lr_scheduler_kwargs". */
bool option_is_section(const char *name);

#endif
