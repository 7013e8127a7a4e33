/* What is shared while a file and a command line become options: the collected problems and notes. Only for
 * common/options_*.c.
 * Must not know: which rules hold between keys. */
#ifndef COMMON_OPTIONS_READ_H
#define COMMON_OPTIONS_READ_H

#include "common/options_table.h"

struct yaml;

struct option_reader {
    struct options *options;
    const char *name;           /* of the file */
    struct text *notes;         /* may be NULL */
    struct text problems;       /* one per line */
    int n_problems;
    bool checked;               /* rules between keys are wanted */
    bool bad[OPTION_COUNT];     /* keys with a problem: rules about them would only add noise */
};

/* Adds "<where>: <key>: <what>", where the place is that of `source`. */
void option_problem(struct option_reader *reader, const struct option_source *source, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The problem "unknown key", with the nearest name there is. */
void option_unknown_key(struct option_reader *reader, const struct option_source *source, const char *key);
void option_note(struct option_reader *reader, const struct option_source *source, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* One key as found: its row and field, and by which other name it was called. */
struct option_target {
    const struct option_row *row;
    void *field;
    enum option_id id; /* for a key of an entry: of its list */
    const struct option_alias *alias;
};

/* `grow`: an index just behind the end of a list of mappings makes an entry. STATUS_USAGE without a message when there
 * is no such key. */
enum status option_find_target(struct options *options, const char *key, bool grow, struct option_target *out, struct error *err);
/* Problems are collected; other failures are returned. */
enum status option_read_file(struct option_reader *reader, const char *text, size_t size, struct error *err);
enum status option_read_overrides(struct option_reader *reader, int count, char *const *args, struct error *err);
enum status option_apply(struct option_reader *reader, const char *key, const char *value, const struct option_source *source,
                         struct error *err);
/* A text that an earlier run wrote: its rules were those of its time. */
enum status option_read_saved(const char *text, size_t size, const char *name, struct options *out, struct error *err);

/* Puts the list of loar.layers_file in the place of loar.layers and forgets the file's name; in options_layers.c. */
enum status option_read_layers_file(struct option_reader *reader, struct error *err);

/* A key of the run inside an entry of stages: checks it and its value, and adds key=value to `set`; in options_stages.c. */
enum status option_read_stage_key(struct option_reader *reader, const char *key, const struct yaml *node,
                                  const struct option_source *source, struct string_list *set, struct error *err);
/* Checks chat_template and reads its file into chat_template_text; in options_template.c. */
enum status option_read_template(struct option_reader *reader, struct error *err);

/* `stages.1.learning_rate`: a key of the run as a stage's own. *meant: it is one of these. */
enum status option_apply_in_stage(struct option_reader *reader, const char *key, const char *value, const struct option_source *source,
                                  bool *meant, struct error *err);

/* STATUS_USAGE with the collected problems as one message that fits, if there are any. */
enum status option_verdict(const struct option_reader *reader, struct error *err);

/* Fills in what follows from other keys: names of data sets and stages. */
enum status option_complete(struct options *options, struct error *err);
/* Runs all rules between keys; in options_check.c. `last`: these are the options of the run's last stage. */
void option_rules(struct option_reader *reader, bool last);
/* The same for every stage's options; in options_stages.c. */
enum status option_check_stages(struct option_reader *reader, struct error *err);

#endif
