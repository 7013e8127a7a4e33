/* What rank 0 prints for a person, and the same numbers as JSON lines in output_dir/metrics.jsonl: plan, one decoded
 * row, a line per logging_steps, evaluations, snapshots, end. The lines are also kept as text for the snapshot, so
 * that a resumed run continues the history of the part it goes on from, and shown on a board where there is one.
 * Must not know: how numbers come about. Nothing here fails a run: what cannot be written is a warning. */
#ifndef LAUNCH_REPORT_H
#define LAUNCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/options.h"
#include "common/status.h"
#include "common/text.h"
#include "proto/messages.h"
#include "ps/snapshot.h"
#include "ps/writer.h"

struct board;
struct invocation;
struct progress_facts;
struct report;
struct start;
struct server;

/* `history`: the JSON lines up to the point a run is resumed from, NULL for a new run; metrics.jsonl is made to hold
 * exactly them (atomically). The folder exists. STATUS_IO, STATUS_NOMEM. */
enum status report_create(const char *output_dir, const char *history, size_t history_size, struct report **out,
                          struct error *err);
void report_free(struct report *report);
/* Prints there instead of standard output; for tests. */
void report_print_to(struct report *report, FILE *file);
/* Takes a board over: it is shown all lines from here on, and released with the report. */
void report_show_on(struct report *report, struct board *board);
/* Prints whole lines; longer ones are broken where standard output ends at a terminal. Nothing where `text` failed. */
void report_text(struct report *report, const struct text *text);
/* Writes a JSON object whose closing brace is missing as a line of metrics. Lines that a page of the run reads have one of the
 * members plan, end, stage with begins, sample, warning, error, snapshot, routing, or plain numbers; see launch/history.h. */
void report_line(struct report *report, struct text *json);
/* All JSON lines so far. */
const struct text *report_history(const struct report *report);

/* One data set in the plan. */
struct plan_data {
    const char *name, *format, *problems; /* problems: lines, or NULL */
    bool evaluation;
    int64_t read, kept, skipped, too_long, masked, shortened, repeated, held_out, special_text;
    int64_t tokens[REPORT_SPANS]; /* of kept rows, in an epoch: prompt, thought, answer, end */
    int longest;
};

/* Estimates in bytes: three parts of a worker, the whole of the server, and what the workers of a node share. */
struct plan_memory {
    int64_t weights, gradients, activations, server, frozen;
};

/* The run as it is about to begin. Texts are borrowed. */
struct plan_facts {
    const struct options *all, *options; /* of the run; of the stage that it begins or goes on with */
    const char *stages;                  /* what they are, one a line; NULL: there are none */
    int ranks, workers, server_threads, worker_threads; /* ranks 0: one process; worker_threads: of the first worker */
    const char *hosts;                                  /* "node1 x 4, node2 x 3" */
    const char *model;                                  /* "llama, 4 layers, width 128, ..." */
    int64_t parameters, trained;
    const char *groups; /* lines: the same by groups of tensors */
    const struct plan_data *data;
    int n_data;
    int64_t steps_per_epoch, first_step, total_steps, warmup_steps;
    struct plan_memory memory;
    int64_t machine_bytes;    /* memory of this node, 0 if unknown */
    const char *resumed_from;                          /* snapshot, or NULL */
    const char *notes;                                 /* lines, or NULL */
};
/* These two are in report_plan.c. */
void report_plan_facts(struct report *report, const struct plan_facts *facts);
/* The same as a line of metrics, with the run file and the resolved options as texts; in report_record.c. */
void report_plan_record(struct report *report, const struct plan_facts *facts, const char *run_file, const char *options);

/* One run of tokens of the decoded row. */
struct row_piece {
    const char *span, *text; /* text as it decodes */
    size_t size;
    int tokens;
    double weight; /* loss weight of each of its tokens */
};
void report_row(struct report *report, const char *dataset, const struct row_piece *pieces, int count);

/* How long the run will take, from its first steps. */
void report_estimate(struct report *report, double seconds_per_step, int64_t steps_left);

/* What belongs to a step or an evaluation besides its losses. Each text may be empty. */
struct report_extra {
    struct text words;  /* behind the line that is printed */
    struct text lines;  /* below it, with their ends; of evaluations alone */
    struct text json;   /* members of the JSON line, without a comma before them */
    struct text record; /* a JSON line of its own, without its closing brace */
};
void report_extra_free(struct report_extra *extra);

struct step_facts {
    int64_t step, total; /* steps done, of */
    double epoch;
    struct slot_report sums; /* since the last line */
    double learning_rate, grad_norm; /* of the last step */
    double router_grad_norm; /* 0: no routers */
    double tokens_per_second, elapsed_s, left_s;
    int64_t tokens_seen; /* in the whole run */
    int slowest_rank; /* -1: not known */
    double slowest_lag_ms, median_lag_ms;
    struct report_extra *extra; /* NULL: none */
};
/* Between these lines one that is drawn in place on a terminal, and nowhere else, a few times a second; any other output takes it away. */
void report_allow_progress(struct report *report, bool allowed);
void report_progress(struct report *report, const struct progress_facts *facts);
void report_step(struct report *report, const struct step_facts *facts);

/* Means of what a slot or evaluation summed; NaN where there was no token. The end token counts as answer. */
struct report_means {
    double loss, thought, answer, accuracy;
};
struct report_means report_means_of(const struct slot_report *sums);

/* A stage begins, or goes on in a resumed run; lines from here on carry its name. */
void report_stage(struct report *report, const char *name, int64_t step, int64_t steps, bool begins);

/* The stage is ended before its last step, for evaluations brought no gain. */
void report_early_stop(struct report *report, const struct snapshot_meta *meta);

/* Numbers of one evaluation set; `extra` may be NULL, its record does not count. */
void report_set(struct report *report, const char *name, const struct slot_report *sums, const struct report_extra *extra);
/* Then those of all sets together: prints the block and writes the JSON line. `extra` may be NULL. */
void report_evaluation(struct report *report, int64_t step, double epoch, const struct slot_report *sums, double seconds, bool best,
                       struct report_extra *extra);

/* A snapshot was written, or could not be. */
void report_saved(struct report *report, const struct writer_result *result);
/* The run was asked to stop; `text` says by whom and where. */
void report_stopping(struct report *report, const char *text);

struct end_facts {
    bool stopped; /* on request, before the last step */
    int64_t step, total;
    double epoch;
    int64_t tokens;
    double seconds;
    const char *digest;
    const char *best_metric; /* NULL or "": none */
    double best_value;
    int64_t best_step;
    bool staged;          /* the run has stages */
    bool stands_for_best; /* commands that are given the run's folder take the best snapshot */
    const char *output_dir;
    const char *picture; /* of the losses, NULL: none */
    const struct invocation *invocation;
};
void report_end_facts(struct report *report, const struct end_facts *facts);
/* The same as a line of metrics; in report_record.c. */
void report_end_record(struct report *report, const struct end_facts *facts);

/* The same from what the server holds; in report_run.c. */
void report_plan(struct report *report, const struct start *start, const struct invocation *invocation,
                 const struct server *server);
/* The board that the options ask for, with the run file and the options as texts. */
void report_open_board(struct report *report, const struct start *start, const struct invocation *invocation,
                       const struct text *options_text);
void report_end(struct report *report, const struct start *start, const struct invocation *invocation,
                const struct snapshot_meta *meta, enum status status, double seconds);

#endif
