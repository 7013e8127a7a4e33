/* All rows of one or several data sets as tokens in memory, with the counts a user wants to see before a run, and
 * the batches made of them.
 * Must not know: models (but for the size of their vocabulary), ranks, options. */
#ifndef WORKER_DATA_DATASET_H
#define WORKER_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/threads.h"
#include "worker/data/batch.h"
#include "worker/data/columns.h"
#include "worker/data/labels.h"
#include "worker/data/order.h"
#include "worker/data/stretches.h"
#include "worker/data/table.h"

struct tokenizer;
struct chat_template;
struct dataset_cache;

/* One file of rows. */
struct dataset_spec {
    const char *name;    /* for messages and metrics; NULL or "": the file's name without folder and ending */
    const char *path;    /* .csv, .tsv; else JSON, one object a line or one array */
    struct table_rules table; /* how to read .csv and .tsv */
    const char *format;  /* a name of rows.h, or NULL, "" or "auto": recognised by the columns of the first row */
    struct row_columns columns; /* names that are not the format's own */
    const char *task;    /* rows of one task share routing and metrics; NULL or "": the data set's name */
    double loss_weight;  /* multiplies the weight of every row; > 0 */
    double weight;       /* sampling share where data sets are mixed (mixture.h) */
    int64_t max_samples; /* only the first ones of the file; < 0: all */
    bool classify;       /* rows have a class (format classification) instead of an answer to be written */
    const struct label_set *labels; /* those that rows of format classification may have; NULL: any */
    const struct dataset_cache *cache; /* where its rows may lie as tokens (cache.h); NULL: nowhere */
};

/* What to do with a row of more than max_length tokens: refuse the data set, leave the row out, or shorten its
 * thoughts from their end (the tags, the answer and the end token stay whole; where that is not enough the row is
 * left out). */
enum truncation { TRUNCATION_ERROR, TRUNCATION_DROP, TRUNCATION_THOUGHT };
/* "error", "drop", "thought" -> the value; false if unknown. */
bool truncation_parse(const char *name, enum truncation *out);

/* How rows become tokens; the same for all data sets of a run. */
struct dataset_rules {
    const struct chat_template *template;
    int max_length; /* tokens */
    enum truncation truncation;
    bool strict;          /* true: any bad row refuses the data set; false: bad rows are skipped and counted */
    int64_t max_bad_rows; /* with strict = false: more than this refuse the data set; < 0: any number */
    bool keep_calculator_marks; /* gsm8k: keep the <<48/2=24>> marks of the thoughts */
    const char *cot_prompt;     /* on a line of its own after the last question; NULL or "" for none */
    const char *answer_prefix;  /* put before every supervised answer; NULL or "" for none */
    float span_weights[SPAN_COUNT]; /* loss weights; 0 for the prompt unless it is to be learnt too */
    bool balanced;        /* loss_weight_mode: balanced (batch.h) */
    bool last_turn_only;  /* of a conversation only the last turn takes loss */
    bool empty_thoughts;  /* rows may have a thought that says nothing; its tags take no loss */
    int64_t vocab; /* of the model: a token id at or above it refuses the data set; 0: not checked */
};

struct dataset_stats {
    int64_t read;       /* rows found in the file (at most max_samples) */
    int64_t kept;       /* rows that are used */
    int64_t skipped;    /* bad rows left out (strict = false) */
    int64_t too_long;   /* left out for their length */
    int64_t masked;     /* left out, for none of their tokens takes loss */
    int64_t shortened;  /* thoughts cut to fit; part of kept */
    int64_t repeated;   /* left out because an earlier row is the same (select.h) */
    int64_t held_out;   /* moved to the evaluation rows (select.h) */
    int64_t thoughts;   /* kept rows that hold a thought */
    int64_t special_text; /* kept rows whose text spells a special token; it is encoded as plain text */
    int64_t tokens[SPAN_COUNT]; /* of kept rows */
    int longest;        /* tokens of the longest kept row */
    int64_t longest_row; /* its number in struct dataset */
};

/* One data set inside struct dataset. */
struct dataset_part {
    char *name, *path;
    const char *format; /* the one that was used */
    char *problems;     /* first messages about skipped or left-out rows, one a line; NULL if none */
    char *note;         /* what a person should know about its cache; NULL if nothing */
    int task;           /* index in tasks */
    double share;       /* weight of its spec */
    int64_t first_row;  /* its rows are [first_row, first_row + stats.kept) */
    bool classify;
    char **label_names; /* [n_label_names] that its rows with a class have, in order of their first appearance */
    int n_label_names;
    int classes_first, classes_count; /* labels of its task; count 0 before dataset_use_labels */
    struct dataset_stats stats;
};

struct dataset {
    int64_t rows;
    int64_t *starts;  /* [rows + 1] first token of each row */
    int32_t *tokens;  /* [starts[rows]] */
    uint8_t *spans;   /* [starts[rows]] enum span */
    float *weights;   /* [rows] row weight times loss weight of its data set */
    int64_t *lines;   /* [rows] where they begin in their file, from 1 */
    int32_t *labels;  /* [rows] of rows with a class: place in label_names of the part, after dataset_use_labels in its task's */
    struct stretch_table stretches; /* of rows whose turns or tags differ in weight */
    bool balanced;    /* rows are (batch.h): as the rules of the last file that was read */
    struct dataset_part *parts;
    int n_parts;
    char **tasks; /* names; batch.tasks and row.task are indices */
    int n_tasks;
    int64_t row_capacity, token_capacity;
};

/* The arrays of struct dataset that hold something for each row or token, besides starts. They grow, move and are kept in
 * files by this list alone: whoever adds one to the struct adds it to the list. */
struct dataset_array {
    size_t offset, size; /* of the pointer in struct dataset; bytes of an element */
    bool per_token;      /* else per row */
};
enum { DATASET_ARRAYS = 5 };
extern const struct dataset_array dataset_arrays[DATASET_ARRAYS];
/* The array's place of a row, or of its first token. */
void *dataset_place(const struct dataset *dataset, int array, int64_t row);

/* Makes the names in tasks[0..count) the first ones of an empty data set, so that two data sets (training,
 * evaluation) number their tasks alike. */
enum status dataset_name_tasks(struct dataset *dataset, char *const *tasks, int count, struct error *err);

/* Reads one more file behind the rows that are there, tokenizing on all threads of the pool; the result does not
 * depend on their number. On failure the data set is as before. STATUS_DATA lists the first problems and how many
 * there were, each as "file:line[:column]: what, what to do". */
enum status dataset_load(struct dataset *dataset, const struct dataset_spec *spec, const struct dataset_rules *rules,
                         const struct tokenizer *tokenizer, struct threads *pool, struct error *err);
void dataset_free(struct dataset *dataset);

/* Makes room for so many rows and tokens in all. */
enum status dataset_reserve(struct dataset *dataset, int64_t rows, int64_t tokens, struct error *err);
/* The part that a row belongs to. */
int dataset_part_of(const struct dataset *dataset, int64_t row);
/* Adds to `labels` a set for each task with rows of a class, in order of the files: the given one, else the names that its rows
 * have, sorted. */
enum status dataset_collect_labels(const struct dataset *dataset, const struct labels *given, struct labels *labels,
                                   struct error *err);
/* Gives every row with a class its place among the labels of its task (or of the only one there is). Once, when all files are
 * loaded; before that such rows take no loss. STATUS_DATA where a label is not known. */
enum status dataset_use_labels(struct dataset *dataset, const struct labels *labels, struct error *err);

/* A view of one row; valid until the next load, not to be freed. */
struct row dataset_row(const struct dataset *dataset, int64_t index);

/* What slot `slot` of step `step` holds (order.h); the batch is emptied first and may stay empty at the end of an
 * epoch. */
enum status dataset_slot_batch(const struct dataset *dataset, struct order *order, int64_t step, int slot,
                               const float span_weights[SPAN_COUNT], struct batch *batch, struct error *err);

/* Evaluation: batches of `batch_rows` rows of one part in file order; the last may be shorter. */
int64_t dataset_eval_batches(const struct dataset_part *part, int batch_rows);
enum status dataset_eval_batch(const struct dataset *dataset, const struct dataset_part *part, int batch_rows,
                               int64_t index, const float span_weights[SPAN_COUNT], struct batch *batch,
                               struct error *err);

#endif
