/* Where a run begins: everything rank 0 loads before the first step, anew or from a snapshot.
 * Must not know: messages. */
#ifndef LAUNCH_START_H
#define LAUNCH_START_H

#include "launch/run.h"
#include "launch/stage.h"
#include "proto/transport.h"
#include "ps/optimizer/optimizer.h"
#include "ps/shard.h"
#include "ps/snapshot.h"

struct server;

struct start {
    struct run run;
    struct threads *pool;
    int slots;
    struct stage *stages; /* [run.n_stages] */
    int64_t total_steps;  /* as planned at the start */
    struct optimizer *optimizer;
    struct shard *shard; /* parameters are filled */
    struct snapshot_meta meta; /* state of the run so far; all zero for a new one but best_step = -1 */
    char *history;             /* metrics so far as JSON lines, NULL for a new run */
    size_t history_size;
    char *resumed_from; /* path of the snapshot, NULL for a new run */
    struct text notes;  /* what a person should know about the start, one line each */
};

/* Fixes ps.slots in the options where they leave it open, and makes output_dir. On failure everything is released. */
enum status start_load(struct options *options, int workers, int ranks_on_node, struct start *out, struct error *err);
/* Steps of the whole run, with what has become of the stages up to the one in `meta`. */
int64_t start_total_steps(const struct start *start, const struct snapshot_meta *meta);
/* The same with output_dir looked at but left as it is. */
enum status start_try(struct options *options, int workers, int ranks_on_node, struct start *out, struct error *err);
/* A server for it; options_text: OPTIONS_ALL, handed to the workers. Both must outlive it. */
enum status start_server(struct start *start, struct transport *transport, const struct text *options_text, struct server **out,
                         struct error *err);
void start_free(struct start *start);

#endif
