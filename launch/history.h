/* What a run wrote into metrics.jsonl, sorted: each number as a series over the steps, and the lines that tell of the plan,
 * stages, samples, warnings, snapshots, routing and the end. The file may still grow, or end within a line.
 * Must not know: what is drawn of it. */
#ifndef LAUNCH_HISTORY_H
#define LAUNCH_HISTORY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/json.h"
#include "common/status.h"

/* All values of one key, in the order of the lines; NaN where a line has null. Keys of lines of an evaluation begin with eval_. */
struct history_series {
    char *key;
    double *steps, *values;
    int *stages; /* into the list of stages, -1: none had begun */
    int count, room;
};

/* Lines are told apart by a member of the name behind the kind. */
enum history_kind {
    HISTORY_PLAN,     /* "plan": what was to be done, once for each part of a run that was resumed */
    HISTORY_END,      /* "end" */
    HISTORY_STAGE,    /* "stage" with "begins" */
    HISTORY_EARLY,    /* "early_stop": a stage, or the run, was ended for want of gain */
    HISTORY_SAMPLE,   /* "sample": a generated answer */
    HISTORY_WARNING,  /* "warning" */
    HISTORY_ERROR,    /* "error": why the run failed */
    HISTORY_SNAPSHOT, /* "snapshot" */
    HISTORY_ROUTING_TRAIN, /* "routing": the newest of each of these two alone */
    HISTORY_ROUTING_EVAL,
    HISTORY_KINDS
};

struct history_lines {
    struct json **items;
    int count, room;
};

struct history {
    struct history_series *series;
    int n_series, series_room;
    struct history_lines lines[HISTORY_KINDS];
    const char **stages; /* names in order; borrowed from the lines */
    int n_stages, stages_room;
    double last_step; /* highest step of any line; -1: none */
    int n_lines, n_broken; /* lines that were read, and those that are no JSON object */
    bool cut;              /* the last of the broken ones is the end of the file */
};

/* STATUS_NOMEM. On failure nothing is held. */
enum status history_read(const char *text, size_t size, struct history *out, struct error *err);
void history_free(struct history *history);

/* The series of a key, NULL if no line had it. */
const struct history_series *history_find(const struct history *history, const char *key);
/* The newest value that is a number, NaN if there is none: of one stage (-1: before any) or HISTORY_ANY of them. */
enum { HISTORY_ANY = -2 };
double history_last(const struct history_series *series, int stage);
/* The newest line of a kind, NULL if there is none; its member of that name. */
const struct json *history_newest(const struct history *history, enum history_kind kind);

/* Members as plain values: NaN, "" or the given default where they are missing or of another kind. */
double history_real(const struct json *object, const char *key);
const char *history_text(const struct json *object, const char *key);

#endif
