/* One file that holds everything a run needs to go on, readable with stock HDF5 tools under the model's own tensor
 * names. A file is either whole or refused: it is written under a temporary name, read back, flushed to disk and only
 * then renamed; the first 512 bytes (an HDF5 user block) hold its size and a checksum of all that follows, and behind
 * the HDF5 part lies the index that reading goes by (see snapshot_seal.h, snapshot_index.h).
 * Must not know: why a snapshot was asked for, models, options. */
#ifndef PS_SNAPSHOT_H
#define PS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/checksum.h"
#include "common/params.h"
#include "common/status.h"
#include "common/text.h"

enum { SNAPSHOT_FORMAT = 1, SNAPSHOT_MAX_STATES = 4, SNAPSHOT_STRING_SIZE = 128 };

/* The attributes of /run, one row each: FIELD(kind, name, description). Kinds: INT int64_t, REAL double,
 * STRING char[SNAPSHOT_STRING_SIZE]. Struct member, writing, reading and `inspect` come from this table. Rows may be
 * added: a file that lacks one keeps the member at zero. */
#define SNAPSHOT_FIELDS(FIELD)                                                                  \
    FIELD(INT, format_version, "version of this file format")                                   \
    FIELD(STRING, program, "program that wrote the file")                                       \
    FIELD(STRING, version, "version of that program")                                           \
    FIELD(STRING, build, "compiler it was built with")                                          \
    FIELD(STRING, created, "time of writing, UTC")                                              \
    FIELD(INT, step, "steps done")                                                              \
    FIELD(INT, max_steps, "steps of the whole run")                                             \
    FIELD(INT, updates, "optimizer updates done; less than step where batches were empty")      \
    FIELD(REAL, epoch, "passes over the data done")                                             \
    FIELD(INT, tokens_seen, "tokens that went through the model")                               \
    FIELD(INT, targets_seen, "tokens that a loss was taken on")                                 \
    FIELD(REAL, seconds, "training time so far")                                                \
    FIELD(INT, slots, "micro-batches of a global batch")                                        \
    FIELD(INT, global_batch, "rows of a global batch")                                          \
    FIELD(INT, seed, "seed of the run")                                                         \
    FIELD(INT, data_seed, "seed of the row order")                                              \
    FIELD(INT, chunk_values, "values per chunk")                                                \
    FIELD(INT, tensors, "trained tensors")                                                      \
    FIELD(INT, parameters, "trained parameters")                                                \
    FIELD(STRING, base_digest, "hash of the frozen tensors, which lie in the folder that /run/base names; empty: none") \
    FIELD(STRING, optimizer, "group below /optimizer")                                          \
    FIELD(STRING, states, "optimizer states, separated by blanks")                              \
    FIELD(STRING, best_metric, "metric that chooses the best snapshot; empty: none")            \
    FIELD(REAL, best_value, "best value so far")                                                \
    FIELD(INT, best_step, "step of the best value; -1: none yet")                               \
    FIELD(INT, evaluated, "step of the last whole evaluation, plus 1; -1: none yet; 0: not known") \
    FIELD(INT, idle_evaluations, "evaluations in a row that brought no gain")                   \
    FIELD(INT, high_losses, "steps in a row whose loss was above loss_watchdog_threshold")      \
    FIELD(INT, stage, "stage in work, from 0")                                                  \
    FIELD(STRING, stage_name, "its name; empty in a run without stages")                        \
    FIELD(INT, stage_step, "steps of the run before the stage")                                 \
    FIELD(INT, stage_done, "1: the stage was ended before its last step")                       \
    FIELD(STRING, digest, "hash of all parameters and optimizer states in table order")

enum snapshot_kind { SNAPSHOT_INT, SNAPSHOT_REAL, SNAPSHOT_STRING };

#define SNAPSHOT_MEMBER_INT(name) int64_t name;
#define SNAPSHOT_MEMBER_REAL(name) double name;
#define SNAPSHOT_MEMBER_STRING(name) char name[SNAPSHOT_STRING_SIZE];
#define SNAPSHOT_MEMBER(kind, name, description) SNAPSHOT_MEMBER_##kind(name)
struct snapshot_meta {
    SNAPSHOT_FIELDS(SNAPSHOT_MEMBER)
};

/* The rows above as data. */
struct snapshot_field {
    enum snapshot_kind kind;
    const char *name, *description;
    size_t offset; /* in struct snapshot_meta */
};
extern const struct snapshot_field snapshot_fields[];
extern const int snapshot_field_count;

/* A UTF-8 text: a dataset below /run (config, options, history) or a file of the model folder below /run/files. */
struct snapshot_text {
    const char *name; /* no '/' */
    const char *data;
    size_t size;
};

/* A row of /run/shards: which part of the flat space lies where. */
struct snapshot_shard {
    int64_t shard, first_chunk, chunks, first_value, values;
};

struct snapshot_state {
    const char *name;    /* "exp_avg" */
    const float *values; /* [table->values] */
};

/* All that goes into a file; nothing is owned. The trained tensors of `table` are written, in table order. */
struct snapshot_view {
    const struct params *table;
    const float *values; /* [table->values] */
    int n_states;
    struct snapshot_state states[SNAPSHOT_MAX_STATES];
    /* The writer itself fills format_version, program, version, build, created, chunk_values (if 0), tensors,
     * parameters, states and digest; `optimizer` must be set where n_states > 0. */
    struct snapshot_meta meta;
    const struct snapshot_shard *shards; /* NULL: one row for everything */
    int n_shards;
    const struct snapshot_text *texts; /* "config", "options", "history", "base" */
    int n_texts;
    const struct snapshot_text *files; /* "config.json", "tokenizer.json", ... */
    int n_files;
};

/* Hash over name, shape and values of every trained tensor in table order, then of every state likewise; state names
 * take part. The one definition of "same run". STATUS_NOMEM is the only failure. */
enum status snapshot_digest(const struct params *table, const float *values, int n_states,
                            const struct snapshot_state *states, char hex[DIGEST_HEX_SIZE], struct error *err);

/* What a write amounted to. */
struct snapshot_written {
    int64_t step, bytes;
    double seconds;
    char digest[DIGEST_HEX_SIZE];
};

/* Writes dir/step-<8 digits>.h5 durably and atomically, then dir/latest. The folder is made. On failure nothing is
 * left of the new file (unless `latest` names it already and only the last flush of the folder failed), older ones stay
 * as they were, and the message says what failed; short disk space is found before anything is written. Does not prune; see retention.h. `out` may be NULL. */
enum status snapshot_write(const char *dir, const struct snapshot_view *view, struct snapshot_written *out,
                           struct error *err);
/* "step-00000100.h5" */
void snapshot_file_name(int64_t step, char name[SNAPSHOT_STRING_SIZE]);

/* Reading. */
struct snapshot;

/* Opens a whole, complete file of a known format after checking every byte of it; else STATUS_DATA with the reason
 * (STATUS_IO, STATUS_NOMEM where the system is to blame). */
enum status snapshot_open(const char *path, struct snapshot **out, struct error *err);
/* Opens the newest good snapshot of a folder: the one that `latest` names, else older ones, else any (files newer than
 * `latest` come from a run that was given up or killed while it published). Damaged ones are passed over and described
 * in `warnings` (one line each; may be NULL). STATUS_DATA when there is none. */
enum status snapshot_open_latest(const char *dir, struct snapshot **out, struct text *warnings, struct error *err);
/* Opens what a person names: a snapshot file, or the preferred one, else the newest good one, of a folder of snapshots or of a
 * run's folder. */
enum status snapshot_open_any(const char *path, struct snapshot **out, struct text *warnings, struct error *err);
void snapshot_close(struct snapshot *snapshot);

const char *snapshot_path(const struct snapshot *snapshot);
int64_t snapshot_bytes(const struct snapshot *snapshot); /* size of the file */
const struct snapshot_meta *snapshot_meta(const struct snapshot *snapshot);
/* The saved tensors in saved order: names, shapes, offsets; all trained; init is not known. */
const struct params *snapshot_params(const struct snapshot *snapshot);
int snapshot_states(const struct snapshot *snapshot);
const char *snapshot_state_name(const struct snapshot *snapshot, int state);
/* The shard table; returns the number of rows. */
int snapshot_shards(const struct snapshot *snapshot, const struct snapshot_shard **out);

/* STATUS_DATA naming the first tensor that is missing, extra, frozen or of another shape than in `table`. */
enum status snapshot_check(const struct snapshot *snapshot, const struct params *table, struct error *err);
/* Reads into flat arrays laid out by `table` (checked as above), verifying each tensor's checksum; padding becomes
 * zero. `values` may be NULL: not wanted. Any of the file's states may be asked for, by name. */
struct snapshot_target {
    const char *name;
    float *values; /* [table->values] */
};
enum status snapshot_load(const struct snapshot *snapshot, const struct params *table, float *values, int n_states,
                          const struct snapshot_target *states, struct error *err);
/* Digest of what the file holds now, computed from its data. */
enum status snapshot_recompute_digest(const struct snapshot *snapshot, char hex[DIGEST_HEX_SIZE], struct error *err);

/* A copy (mem_free, NUL after it) of a text below /run or a file below /run/files; STATUS_DATA when absent. */
enum status snapshot_text(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err);
enum status snapshot_file(const struct snapshot *snapshot, const char *name, char **out, size_t *size,
                          struct error *err);
/* Lets commands that are given the folder take the snapshot of this step for it, instead of the newest; -1: the newest again. */
enum status snapshot_prefer(const char *dir, int64_t step, struct error *err);

/* Names below /run/files in alphabetical order. */
int snapshot_files(const struct snapshot *snapshot);
const char *snapshot_file_at(const struct snapshot *snapshot, int index);

/* Steps of the snapshots in a folder by file name, ascending; mem_free. An absent folder has none. */
enum status snapshot_list(const char *dir, int64_t **steps, int *count, struct error *err);
/* The step that dir/latest names, -1 when there is no such file or it makes no sense. */
int64_t snapshot_latest_step(const char *dir);

#endif
