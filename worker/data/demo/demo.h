/* Small synthetic tasks: some that a tiny model can only solve by writing its steps down, one that it can only solve by
 * looking far back. Rows of question, thought and answer, for first runs and tests. Every row is a pure function of
 * (seed, number).
 * Must not know: tokens, models. */
#ifndef WORKER_DATA_DEMO_DEMO_H
#define WORKER_DATA_DEMO_DEMO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

/* 0: the task's own default. */
struct demo_settings {
    int length; /* parity: bits; recall: characters of the question */
    int ops;    /* modchain: operations */
    int mod;    /* modchain: modulus */
    int swaps;  /* cups: exchanges */
    int cups;   /* cups: cups on the table */
    int digits; /* mult: digits of each factor */
    int pairs;   /* recall: in the question */
    int queries; /* recall: of them asked for */
    int letters; /* recall: different ones between the pairs */
    bool worded; /* modchain: in words instead of signs */
};

struct demo_row {
    struct text question, thought, answer;
    struct text columns; /* further ones as JSON members: `"distance": [12]`; or empty */
};
void demo_row_free(struct demo_row *row);

struct demo_task;
/* STATUS_USAGE listing the tasks if there is none with this name. */
enum status demo_find(const char *name, const struct demo_task **out, struct error *err);
/* Fills in the task's defaults. STATUS_USAGE naming the setting, its value and what is allowed. */
enum status demo_check(const struct demo_task *task, struct demo_settings *settings, struct error *err);
/* Candidate `number` of the task; texts are replaced. The settings were checked. STATUS_NOMEM only. */
enum status demo_make(const struct demo_task *task, const struct demo_settings *settings, uint64_t seed, uint64_t number,
                      struct demo_row *out, struct error *err);

/* Training and held-out rows never share a question: its checksum decides which of the two it may be in (one in
 * ten is held out), whatever the seed. */
enum demo_split { DEMO_TRAIN, DEMO_EVAL, DEMO_ALL };
bool demo_split_parse(const char *name, enum demo_split *out);
bool demo_in_split(enum demo_split split, const char *question, size_t size);

struct demo_request {
    const struct demo_task *task;
    struct demo_settings settings;
    int64_t rows;
    uint64_t seed;
    enum demo_split split;
    const char *exclude; /* file of rows whose questions must not come up, or NULL */
};

/* Appends `rows` qa-cot lines to `lines`, and their bare texts to `plain` (may be NULL) to learn a tokenizer from. No
 * question comes twice unless the task has too few of them; *repeated counts those that did. */
enum status demo_write(const struct demo_request *request, struct text *lines, struct text *plain, int64_t *repeated,
                       struct error *err);

/* tokenizer.json and tokenizer_config.json for rows of this kind: byte-level BPE over all 256 bytes, with the special
 * tokens the chat templates use; `merges` pairs (or fewer) are learnt from the `sample` of text, 0 for one token
 * per byte. */
enum status demo_tokenizer(const char *sample, size_t size, int merges, struct text *tokenizer, struct text *config,
                           struct error *err);

#endif
