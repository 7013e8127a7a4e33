/* What the passes of a model did and how long its parts took: whole numbers in one flat array, so that sums over slots and
 * ranks are exact in any order.
 * Must not know: who adds them up, what they are reported as. */
#ifndef WORKER_MODEL_COUNTERS_H
#define WORKER_MODEL_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/loar/counts.h"

/* Parts of a pass. projections: queries, keys, values, output, with RoPE and gathering; attention: scores and what is
 * read by them; rest: norms of attention, embedding. */
#define MODEL_PARTS(X) X(ROUTER, "router") X(PROJECTIONS, "projections") X(ATTENTION, "attention") X(MLP, "mlp") \
    X(HEAD, "head") X(REST, "rest")
#define MODEL_PART_ENUM(name, text) MODEL_PART_##name,
enum model_part { MODEL_PARTS(MODEL_PART_ENUM) MODEL_N_PARTS };
#undef MODEL_PART_ENUM
extern const char *const model_part_names[MODEL_N_PARTS];

/* Places in the array. The first one is what the balance between ranks is judged by. */
enum {
    COUNTERS_FLOPS,                                    /* of attention, as its kernels were called */
    COUNTERS_DENSE_FLOPS,                              /* if every head had seen all keys before each row */
    COUNTERS_TIMES,                                    /* ns of each part */
    COUNTERS_QUARTERS = COUNTERS_TIMES + MODEL_N_PARTS, /* of their sequences: cross-entropy of targets, in units of
                                                          * 1 / COUNTERS_LOSS_UNIT, and their number, four times */
    COUNTERS_ROUTING = COUNTERS_QUARTERS + 8,          /* struct routing_count of each layer, task and head */
    /* behind them: struct class_count of each label */
};
enum { COUNTERS_LOSS_UNIT = 1 << 20 };

/* Of one label: rows that have it, rows that it was the best score of, and both. */
struct class_count {
    int64_t rows, chosen, right;
};

struct counters {
    int layers, tasks, heads; /* of the routing; no layers in a dense model */
    int labels;
    size_t count;
    int64_t *items;  /* [count] */
    int64_t last_ns; /* end of the last part */
};

enum status counters_create(int layers, int tasks, int heads, int labels, struct counters *out, struct error *err);
void counters_free(struct counters *counters);
void counters_clear(struct counters *counters);
/* Counts a target at `position` of a sequence of `length` tokens. */
void counters_add_loss(struct counters *counters, int64_t position, int64_t length, double loss);
/* Counts a row with `label` for which `best` has the highest score. */
void counters_add_class(struct counters *counters, int label, int best);
/* [labels] */
struct class_count *counters_classes(const struct counters *counters);
/* A view of the routing part. */
struct routing_counts counters_routing(const struct counters *counters);

/* Time from here on belongs to a part again. */
void counters_resume(struct counters *counters);
/* The time since the last call belongs to the part. Both do nothing with NULL. */
void counters_lap(struct counters *counters, enum model_part part);

#endif
