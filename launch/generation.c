#include "launch/generation.h"

#include "common/log.h"
#include "launch/source.h"
#include "launch/template_choice.h"

static enum status use_template(const struct options *o, const struct tokenizer *tokenizer, struct generation *g, struct error *err)
{
    TRY(template_choose(o, &g->template, err));
    TRY(template_check(g->template, tokenizer, err));
    TRY(template_open_ids(g->template, tokenizer, &g->open, err));
    TRY(template_close_ids(g->template, tokenizer, &g->close, err));
    return template_end_ids(g->template, tokenizer, &g->ends, err);
}

enum status generation_prepare(const struct options *o, const struct model_config *config, const struct tokenizer *tokenizer,
                               bool raw, struct generation *g, struct error *err)
{
    TRY(options_check_generation(o, NULL, err));
    if (raw)
        for (int i = 0; i < config->n_eos; i++)
            TRY(token_list_add(&g->ends, &(int32_t){config->eos[i]}, 1, err));
    else
        TRY(use_template(o, tokenizer, g, err));
    g->settings = (struct generate_settings){
        .sampling = {.do_sample = o->do_sample, .temperature = o->temperature, .top_k = (int)o->top_k, .top_p = o->top_p,
                     .repetition_penalty = o->repetition_penalty, .seed = (uint64_t)o->seed},
        .max_new_tokens = (int)o->max_new_tokens,
        .two_stage = o->two_stage && !raw && template_thinks(g->template),
        .max_thinking_tokens = (int)o->max_thinking_tokens,
        .min_thinking_tokens = (int)o->min_thinking_tokens,
        .thinking_extend_text = o->thinking_extend_text,
        .thought_open = raw ? NULL : template_thought_open(g->template),
        .thought_close = raw ? NULL : template_thought_tag(g->template),
        .model_opens = !raw && template_written_tag(g->template),
        .open = g->open.ids,
        .n_open = (int)g->open.count,
        .close = g->close.ids,
        .n_close = (int)g->close.count,
        .answer_prefix = raw ? NULL : o->answer_prefix,
        .ends = g->ends.ids,
        .n_ends = (int)g->ends.count,
        .stops = (const char *const *)o->stop.items,
        .n_stops = (int)o->stop.count,
        .self_consistency = (int)o->self_consistency,
    };
    return STATUS_OK;
}

void generation_free(struct generation *g)
{
    template_free(g->template);
    token_list_free(&g->open);
    token_list_free(&g->close);
    token_list_free(&g->ends);
    *g = (struct generation){0};
}

/* Another task than those trained is answered as the default. */
static int task_of(const struct loar_setup *loar, const char *name)
{
    if (name && !loar)
        log_warn("--task is not used: the model routes no attention");
    else if (name && loar_setup_task(loar, name) < 0)
        log_warn("the task '%s' was not trained; routing as for the default task, %s", name, loar->tasks[loar->default_task]);
    if (!loar)
        return 0;
    return name ? loar_setup_task_or_default(loar, name) : loar->default_task;
}

/* Such a model has learnt to choose heads by the whole text, answer included, which is not there yet. */
static enum status refuse_leaky(const struct source *source, struct error *err)
{
    const struct loar_plan *loar = source->config.loar;
    if (loar && loar_is_leaky(&loar->config) && !source->options.loar.allow_leaky_routing)
        FAIL(err, STATUS_USAGE, "this model chose heads by the whole text (loar.features: seq_mean), which generation cannot do; what it "
             "writes will be worse than its losses promise; give --loar.allow_leaky_routing true to see it nevertheless");
    return STATUS_OK;
}

enum status generation_of_source(const struct source *source, const char *task, bool raw, struct generation *out, struct error *err)
{
    TRY(refuse_leaky(source, err));
    TRY(generation_prepare(&source->options, &source->config, source->tokenizer, raw, out, err));
    out->settings.task = task_of(source->loar, task);
    return STATUS_OK;
}
