/* The options of a run: struct, reading, overrides, checks, help and fingerprint, all from the table options.def.
 * Order: built-in default < file < command line. All problems are collected before any is reported.
 * Must not know: models, data, ranks; what a value means is its consumer's business. */
#ifndef COMMON_OPTIONS_H
#define COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct string_list {
    char **items;
    size_t count;
};

struct real_list {
    double *items;
    size_t count;
};

/* Field types by kind. A string that is not given is NULL; a choice is always one of the words of its row, with static
 * lifetime, so it can be handed to whoever parses that word. */
#define OPTION_FIELD_INT(name) int64_t name;
#define OPTION_FIELD_REAL(name) double name;
#define OPTION_FIELD_BOOL(name) bool name;
#define OPTION_FIELD_STRING(name) char *name;
#define OPTION_FIELD_CHOICE(name) const char *name;
#define OPTION_FIELD_STRINGS(name) struct string_list name;
#define OPTION_FIELD_REALS(name) struct real_list name;
#define OPTION_FIELD_DATASETS(name) struct dataset_list name;
#define OPTION_FIELD_LAYERS(name) struct layer_list name;
#define OPTION_FIELD_TASKS(name) struct task_list name;
#define OPTION_FIELD_STAGES(name) struct stage_list name;

/* One entry of datasets or eval_datasets; name and task are filled in where the file leaves them out. */
struct dataset_options {
#define OPTION_DATASET(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
};

/* One entry of loar.layers, and of loar.tasks. */
struct layer_options {
#define OPTION_LAYER(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
};
struct task_options {
#define OPTION_TASK(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
};
/* One entry of stages: whatever else it gives lies in `set`. */
struct stage_options {
#define OPTION_STAGE(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
};

/* All lists of mappings are alike: struct entry_list of common/options_value.h handles any of them. */
struct dataset_list {
    struct dataset_options *items;
    size_t count;
};
struct layer_list {
    struct layer_options *items;
    size_t count;
};
struct task_list {
    struct task_options *items;
    size_t count;
};
struct stage_list {
    struct stage_options *items;
    size_t count;
};

/* One per key outside entries of lists; OPTION_ps_slots for the key ps.slots. */
enum option_id {
#define OPTION(kind, name, ...) OPTION_##name,
#define OPTION_PS(kind, name, ...) OPTION_ps_##name,
#define OPTION_LOAR(kind, name, ...) OPTION_loar_##name,
#include "common/options.def"
    OPTION_COUNT
};

enum option_origin { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_COMMAND_LINE };

struct option_source {
    enum option_origin origin;
    int line, column;  /* in the file, from 1; on the command line: number of the argument */
    const char *alias; /* the other name by which the key was given, or NULL */
};

struct options {
#define OPTION(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
    struct {
#define OPTION_PS(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
    } ps;
    struct {
#define OPTION_LOAR(kind, name, ...) OPTION_FIELD_##kind(name)
#include "common/options.def"
    } loar;

    struct option_source sources[OPTION_COUNT];
    char *file; /* name of the file, for messages */
    char *text; /* what it held, with a NUL behind */
    size_t text_size;
};

/* Built-in defaults alone. */
enum status options_defaults(struct options *out, struct error *err);
/* Reads the file, then the overrides (`key=value`, `--key=value`, `--key value`, `--key` for a bool; nested as
 * `ps.slots=16`, entries of lists as `datasets.0.path=FILE`), then the list of loar.layers_file into loar.layers, and checks
 * keys against each other. STATUS_USAGE lists the first problems and their number; `notes` (may be NULL) gets one line per
 * alias used or doubtful combination. */
enum status options_load(const char *path, int n_overrides, char *const *overrides, struct options *out,
                         struct text *notes, struct error *err);
/* The same for a text; `name` stands for the file in messages. */
enum status options_parse_text(const char *text, size_t size, const char *name, int n_overrides, char *const *overrides,
                               struct options *out, struct text *notes, struct error *err);
void options_free(struct options *options);

/* Stages of a run: the entries of `stages`, or the run as one stage where it has none. */
size_t options_stages(const struct options *options);
/* The options as they hold in a stage: those of the run with the stage's own in their place, without the list of stages. */
enum status options_of_stage(const struct options *options, size_t stage, struct options *out, struct error *err);

/* Sets one key (dotted, or an alias) from its text as on the command line. STATUS_USAGE: unknown key, bad value. */
enum status options_set(struct options *options, const char *key, const char *value, struct error *err);
/* The checks of the generation keys against each other, for options that were not loaded but set one by one. STATUS_USAGE
 * with the first problem; `notes` (may be NULL) gets one line per doubtful combination. */
enum status options_check_generation(const struct options *options, struct text *notes, struct error *err);
/* Appends the value of a key as text that options_set takes back; false if there is no such key. */
bool options_get(const struct options *options, const char *key, struct text *out);
/* Where the value of a key came from. The key must exist. */
struct option_source options_get_source(const struct options *options, const char *key);
/* "run.yaml:12", "command line", "default". */
void options_source_text(const struct options *options, enum option_id id, struct text *out);
/* Name of a key with dots, and back (also from an alias); OPTION_COUNT if there is no such key. */
const char *option_name(enum option_id id);
enum option_id options_id(const char *key);

enum options_lines {
    OPTIONS_ALL,         /* every key */
    OPTIONS_GIVEN,       /* keys that are not at their default */
    OPTIONS_FINGERPRINT, /* keys that a resumed run may not change */
};
/* Appends lines "key: value" that options_parse_text reads back to the same options (OPTIONS_ALL, OPTIONS_GIVEN). */
void options_format(const struct options *options, enum options_lines which, struct text *out);
/* Appends what may shape the rows of a data set: all keys of the file and of the set's entry but those that are known not to.
 * A new key counts until it is listed there, so that rows kept from an earlier run cannot miss it. */
void options_format_rows(const struct options *options, const struct dataset_options *set, struct text *out);
/* Compares with what options_format(OPTIONS_ALL) wrote for an earlier part of the run. STATUS_USAGE lists keys that may not
 * change with both values; changed keys that may go to `notes` (may be NULL). */
enum status options_check_resume(const struct options *options, const char *saved, size_t saved_size, struct text *notes,
                                 struct error *err);

/* The table for people: --help text at 80 columns, and a page in markdown. */
void options_help(struct text *out);
void options_reference(struct text *out);

/* Nearest of `names` by edits, or NULL when none is near: for "did you mean". */
const char *nearest_name(const char *word, const char *const *names, size_t count);

#endif
