/* What one layer remembers of one document between its pieces, so that the next piece is decided as if the document had
 * come whole: the running sum that features are read from, and the decision in force.
 * Must not know: keys and values, how features or decisions are computed. */
#ifndef WORKER_LOAR_MEMORY_H
#define WORKER_LOAR_MEMORY_H

#include <stdint.h>

#include "common/status.h"

struct loar_memory {
    int64_t width;
    int heads;
    double *sum;  /* [D] of all tokens so far */
    uint8_t *on;  /* [H] of the last token's decision */
    float *gate;  /* [H] same */
};

enum status loar_memory_create(int64_t width, int heads, struct loar_memory *out, struct error *err);
/* A new document begins. */
void loar_memory_reset(struct loar_memory *memory);
void loar_memory_free(struct loar_memory *memory);

#endif
