/* What a slot holds: several rows laid end to end in one flat token stream with sequence bounds, no padding.
 * Glossary: N tokens in the batch, B sequences.
 * Must not know: models, ranks, files. */
#ifndef WORKER_DATA_BATCH_H
#define WORKER_DATA_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

/* Which part of a row a token belongs to. The end token closes the turn and counts as answer in reports. */
enum span { SPAN_PROMPT, SPAN_THOUGHT, SPAN_ANSWER, SPAN_END, SPAN_COUNT };
const char *span_name(enum span span);

/* What a row of a classification task is compared with: one of the `count` labels of its task, which begin at `first` of all
 * labels that the run tells apart; `label` counts from there. Count 0: the row is text. */
struct row_class {
    int32_t first, count, label;
};

/* Where the loss weights of a row are not alike: from token `first` on, up to the next stretch, they take this factor. */
struct stretch {
    int32_t first;
    float factor;
};

/* One tokenized row. */
struct row {
    int32_t *tokens; /* [n_tokens] */
    uint8_t *spans;  /* [n_tokens] enum span */
    int n_tokens;
    int task;        /* index of the data set's task, for routing and per-task metrics */
    float weight;    /* row weight times data-set loss weight */
    struct row_class class;
    bool balanced;   /* thoughts and answers share the loss as their span weights say, whatever their lengths */
    struct stretch *stretches; /* [n_stretches] in order; in front of the first one the factor is 1 */
    int n_stretches;           /* 0 for nearly all rows */
};

/* Loss weights of a row's tokens, asked for in order: row weight x span weight x the factor of the token's stretch. In a
 * balanced row a factor for each span comes in, so that with t and a, the span weights of thought and answer, of the loss
 * weight of all supervised tokens the thoughts have the share t / (t + a) and the answers, with their end tokens, the share
 * a / (t + a); together they have the weight that they would have with 1 for each token (x row weight). Tokens of prompts
 * stay as they are; of a part without tokens, or with the weight 0, the other one takes the whole. */
struct row_weights {
    const struct row *row;
    float spans[SPAN_COUNT];
    int at; /* stretches that have begun */
};
struct row_weights row_weights_begin(const struct row *row, const float span_weights[SPAN_COUNT]);
/* Of token i as a target, from 1; i must not fall. 0: no loss. */
float row_weights_next(struct row_weights *weights, int i);

struct batch {
    int n_tokens;          /* N */
    int n_sequences;       /* B */
    int32_t *tokens;       /* [N] */
    int32_t *positions;    /* [N] position inside its sequence, from 0 */
    int32_t *starts;       /* [B + 1] first token of each sequence; starts[B] = N */
    int32_t *targets;      /* [N] the token after this one in its sequence, or -1 where no loss is taken */
    uint8_t *target_spans; /* [N] span of the target */
    float *weights;        /* [N] loss weight of the target, 0 where there is none; of a row with a class: at its last token */
    int32_t *tasks;        /* [B] */
    struct row_class *classes; /* [B]; NULL: all rows are text */
    int capacity, sequence_capacity;
};

/* Frees a row that owns its arrays (template output); rows that are views of a data set are not freed. */
void row_free(struct row *row);

/* Empties the batch but keeps its memory. */
void batch_clear(struct batch *batch);
/* Appends a row: token i predicts token i + 1; span weights (index: enum span) multiply the row's weight. A span of
 * weight 0 takes no loss: that is the prompt's, unless a run wants to learn prompts too. A row with a class predicts no
 * token, but its label from the last one, which counts as an answer of weight 1. */
enum status batch_append(struct batch *batch, const struct row *row, const float span_weights[SPAN_COUNT],
                         struct error *err);
void batch_free(struct batch *batch);

/* Of sequence s. */
static inline struct row_class batch_class(const struct batch *batch, int s)
{
    return batch->classes ? batch->classes[s] : (struct row_class){0};
}
/* Places at which a loss is taken: targets, and the last tokens of rows with a class. */
int64_t batch_count_targets(const struct batch *batch);
int64_t batch_count_classes(const struct batch *batch);

#endif
