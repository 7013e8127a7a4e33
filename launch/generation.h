/* The generation keys of a run as settings of a generator, the same for every command and for evaluation during training.
 * Must not know: prompts, where answers go. */
#ifndef LAUNCH_GENERATION_H
#define LAUNCH_GENERATION_H

#include <stdbool.h>

#include "common/options.h"
#include "common/status.h"
#include "worker/data/tokenizer.h"
#include "worker/infer/generate.h"
#include "worker/model/model.h"

struct chat_template;
struct source;

/* Start with {0}. */
struct generation {
    struct chat_template *template; /* NULL: raw text */
    struct token_list open, close, ends;
    struct generate_settings settings; /* points into what stands above, and into the options */
};

/* raw: no template, no thought, no answer prefix. The task is 0. `options` must outlive the result. STATUS_USAGE for keys that
 * contradict each other, STATUS_DATA when the tokenizer does not fit the template; generation_free in any case. */
enum status generation_prepare(const struct options *options, const struct model_config *config, const struct tokenizer *tokenizer,
                               bool raw, struct generation *out, struct error *err);
/* The same for a model that was opened, with the options of its source, and the task with this name (NULL: the default one;
 * one that was not trained is answered as that, with a warning). STATUS_USAGE for a model that chose heads by whole texts,
 * which generation cannot do, unless loar.allow_leaky_routing. */
enum status generation_of_source(const struct source *source, const char *task, bool raw, struct generation *out, struct error *err);
void generation_free(struct generation *generation);

#endif
