/* Which decisions a packed batch holds: every token belongs to one, and a decision's feature is read from a fixed
 * number of its document's first tokens. Bounds depend on true token indices alone, so a document that comes in pieces
 * (decoding with a cache) holds the same decisions as the whole one. The same for all layers.
 * Must not know: features' values, scores, heads. */
#ifndef WORKER_LOAR_DECISIONS_H
#define WORKER_LOAR_DECISIONS_H

#include <stdint.h>

#include "worker/loar/loar.h"

enum decision_source {
    DECISION_ROUTED, /* by the router, now */
    DECISION_FREE,   /* there is nothing to look at yet: all heads run */
    DECISION_KEPT,   /* it began in an earlier piece; the memory holds it */
};

struct decision {
    int32_t sequence;
    int32_t first, end; /* rows of the batch */
    int32_t reads;      /* the feature covers this many of the document's first tokens */
    int32_t task;
    enum decision_source source;
};

struct decisions {
    int count;             /* M */
    int n_tokens;          /* N */
    int n_sequences;       /* B */
    struct decision *items; /* [M] in order of rows */
    int32_t *of_token;     /* [N] */
    int32_t *of_sequence;  /* [B + 1] first decision of each sequence */
    int32_t *starts;       /* [B + 1] first row of each sequence */
    int32_t *earlier;      /* [B] tokens of the document that came in earlier pieces */
    int capacity, token_capacity, sequence_capacity;
};

/* starts: [B + 1] with starts[B] = N. earlier: [B], NULL when all are 0. prompts: [B] prompt tokens of each document, the
 * ones of earlier pieces included; only prompt_mean reads it. tasks: [B], each below n_tasks. Memory is reused. */
enum status decisions_make(const struct loar_config *config, int n_sequences, const int32_t *starts,
                           const int32_t *earlier, const int32_t *prompts, const int32_t *tasks, struct decisions *out,
                           struct error *err);
void decisions_free(struct decisions *decisions);

#endif
