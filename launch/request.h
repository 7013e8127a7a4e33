/* What a person asks of a model on the command line: which model, which questions, which settings. The same words for every
 * command that lets a model answer.
 * Must not know: what is done with it. */
#ifndef LAUNCH_REQUEST_H
#define LAUNCH_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/threads.h"
#include "launch/source.h"
#include "worker/data/columns.h"
#include "worker/data/table.h"

enum { REQUEST_KEYS = 64 };

struct request {
    const char *command; /* for messages */
    const char *path, *prompt, *file, *lines, *format, *task, *base, *adapter, *out, *json;
    struct row_columns columns;
    struct table_rules table;
    bool snapshot, raw, force_template;
    int64_t rows, score, threads, num_return_sequences; /* negative: not given */
    const char *keys[REQUEST_KEYS], *key_values[REQUEST_KEYS]; /* settings of the run file's kind */
    int n_keys;
};

/* Words of the command line behind the command's own; they are borrowed, and "--key=value" is cut in two. A run file's key
 * that matters for generation may stand as --key value. STATUS_USAGE naming the word. */
enum status request_parse(const char *command, int argc, char **argv, struct request *out, struct error *err);
/* Answers to each question. */
int64_t request_sequences(const struct request *request);
/* Opens the model and sets its options as the request says. STATUS_USAGE when that is another chat template than the model is
 * known to be trained with, unless the request insists. */
enum status request_open(const struct request *request, struct threads *pool, struct source *out, struct error *err);
/* Warns of what is allowed, but hardly what was meant. */
void request_warn(const struct request *request, const struct source *source);

#endif
