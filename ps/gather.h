/* Collects one step's gradients: takes the workers' announcements, asks for payloads within a bounded number of
 * buffers, checks them, and sums each chunk along the fixed tree.
 *
 * The lead chunk is the highest one that is not complete (backward produces the last chunk first). Its next due piece
 * always finds a buffer; everything else may use `credits` buffers more. So memory is bounded and no order of arrival
 * can block.
 * Must not know: optimizers, steps before or after. */
#ifndef PS_GATHER_H
#define PS_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/params.h"
#include "common/status.h"
#include "proto/messages.h"
#include "proto/transport.h"
#include "ps/session.h"

struct gather;

/* sessions[workers] say who owns which slots; worker w has rank sessions[w].rank. Borrowed. */
enum status gather_create(struct transport *transport, const struct chunks *chunks, int slots, struct session *sessions,
                          int workers, int credits, struct gather **out, struct error *err);
void gather_free(struct gather *gather);

void gather_begin(struct gather *gather, int64_t step);
/* A worker's announcement. STATUS_PEER when it does not fit the plan. */
enum status gather_announce(struct gather *gather, int worker, const struct message_chunk *chunk, struct error *err);
/* Starts receives, takes in what has arrived, adds. *busy: payload is on its way. */
enum status gather_progress(struct gather *gather, int64_t now_ms, bool *busy, struct error *err);
/* All chunks are summed. */
bool gather_complete(const struct gather *gather);
/* Sums of the step, [chunks], valid until the next gather_begin. */
const float *const *gather_sums(const struct gather *gather);
/* The worker whose piece the lead chunk waits for; -1 when complete. */
int gather_waits_for(const struct gather *gather);
/* Gives the step up: from now on announced payloads are received and thrown away. */
void gather_discard(struct gather *gather);
/* True when nothing that was announced is still to be received. */
bool gather_drained(const struct gather *gather);

#endif
