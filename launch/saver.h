/* Snapshots of a run: when one is asked for, the state of that step boundary is copied behind the run's back and
 * written by the writer thread. Remembers the best evaluation.
 * Must not know: messages, why a snapshot is wanted. */
#ifndef LAUNCH_SAVER_H
#define LAUNCH_SAVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "launch/run.h"
#include "ps/server.h"
#include "ps/snapshot.h"
#include "ps/writer.h"

struct saver;

/* Snapshots go to output_dir/snapshots. run, server and shard are borrowed. */
enum status saver_create(const struct run *run, struct shard *shard, const char *optimizer, const char *options_text,
                         struct saver **out, struct error *err);
void saver_free(struct saver *saver);

/* The server calls back while it idles and before it changes a chunk. */
void saver_attach(struct saver *saver, struct server *server);

/* Starts a snapshot of the present state. `meta` as of now; `history` is copied. Waits for an earlier one to end. */
enum status saver_begin(struct saver *saver, const struct snapshot_meta *meta, const struct text *history, struct error *err);
/* Reports ended writes: calls `done` for each. A failed write is a warning; the run goes on. */
typedef void saver_done_fn(void *context, const struct writer_result *result);
void saver_poll(struct saver *saver, saver_done_fn *done, void *context);
/* Finishes what was begun and waits until it is on disk. */
void saver_finish(struct saver *saver);

#endif
