#include "launch/request.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "launch/template_choice.h"

/* Which of the run file's keys make sense here. */
static bool is_setting(const char *name)
{
    static const char *const names[] = {
        "answer_prefix", "chat_template", "cot_prompt", "default_system", "do_sample", "enable_thinking", "loar.allow_leaky_routing",
        "max_new_tokens", "max_thinking_tokens", "min_thinking_tokens", "num_generation_samples", "per_device_eval_batch_size",
        "prompt_opens_thought", "repetition_penalty", "seed", "self_consistency", "stop", "temperature", "thinking_extend_text",
        "thought_close", "thought_open", "top_k", "top_p", "two_stage",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* These may stand without a value. */
static bool is_switch(const char *name)
{
    return !strcmp(name, "do_sample") || !strcmp(name, "two_stage");
}

static enum status parse_count(const char *name, const char *text, int64_t *out, struct error *err)
{
    long long value;
    char rest;
    if (sscanf(text, "%lld%c", &value, &rest) != 1 || value < 0)
        FAIL(err, STATUS_USAGE, "--%s must be a whole number, found '%s'", name, text);
    *out = value;
    return STATUS_OK;
}

static enum status set(struct request *r, const char *name, const char *value, struct error *err)
{
    const struct {
        const char *name;
        const char **place;
    } texts[] = {{"model", &r->path}, {"snapshot", &r->path}, {"prompt", &r->prompt}, {"file", &r->file}, {"format", &r->format},
                 {"task", &r->task}, {"base", &r->base}, {"adapter", &r->adapter}, {"lines", &r->lines}, {"out", &r->out},
                 {"json", &r->json}};
    const struct {
        const char *name;
        int64_t *place;
    } counts[] = {{"rows", &r->rows}, {"score", &r->score}, {"threads", &r->threads},
                  {"num_return_sequences", &r->num_return_sequences}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!strcmp(name, texts[i].name)) {
            if (*texts[i].place)
                FAIL(err, STATUS_USAGE, "--%s is one too many; see loar %s --help", name, r->command);
            *texts[i].place = value;
            r->snapshot = r->snapshot || !strcmp(name, "snapshot");
            return STATUS_OK;
        }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (!strcmp(name, counts[i].name))
            return parse_count(name, value, counts[i].place, err);
    bool of_table;
    TRY(table_rules_set(&r->table, name, value, &of_table, err));
    if (of_table || row_columns_set(&r->columns, name, value))
        return STATUS_OK;
    if (!is_setting(name) || r->n_keys == REQUEST_KEYS)
        FAIL(err, STATUS_USAGE, "unknown option '--%s'; see loar %s --help", name, r->command);
    r->keys[r->n_keys] = name;
    r->key_values[r->n_keys++] = value;
    return STATUS_OK;
}

enum status request_parse(const char *command, int argc, char **argv, struct request *out, struct error *err)
{
    *out = (struct request){.command = command, .rows = -1, .score = -1, .threads = -1, .num_return_sequences = -1};
    for (int i = 1; i < argc; i++) {
        bool raw = !strcmp(argv[i], "--raw"), force = !strcmp(argv[i], "--force-template");
        out->raw = out->raw || raw;
        out->force_template = out->force_template || force;
        if (raw || force)
            continue;
        char *name = argv[i], *value = strchr(argv[i], '=');
        if (strncmp(name, "--", 2) && !value)
            FAIL(err, STATUS_USAGE, "unexpected '%s'; see loar %s --help", name, command);
        name += strncmp(name, "--", 2) ? 0 : 2;
        if (value && (!strchr(name, ' ') || value < strchr(name, ' ')))
            *value++ = '\0';
        else if (is_switch(name) && (i + 1 == argc || !strncmp(argv[i + 1], "--", 2)))
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            FAIL(err, STATUS_USAGE, "--%s needs a value; see loar %s --help", name, command);
        TRY(set(out, name, value, err));
    }
    if (!out->path)
        FAIL(err, STATUS_USAGE, "--model or --snapshot is needed; see loar %s --help", command);
    if (out->adapter && (out->snapshot || out->base))
        FAIL(err, STATUS_USAGE, "--adapter goes with --model alone: a snapshot holds its own adapters");
    return STATUS_OK;
}

int64_t request_sequences(const struct request *r)
{
    return r->num_return_sequences < 0 ? 1 : r->num_return_sequences;
}

enum status request_open(const struct request *r, struct threads *pool, struct source *out, struct error *err)
{
    TRY(r->adapter ? source_open(r->adapter, false, r->path, pool, out, err) : source_open(r->path, r->snapshot, r->base, pool, out, err));
    bool compare = out->knows_template && !r->raw && !r->force_template;
    char trained[TEMPLATE_HASH_SIZE];
    if (compare)
        TRY(template_choice_hash(&out->options, trained, err));
    for (int i = 0; i < r->n_keys; i++)
        TRY(!strcmp(r->keys[i], "chat_template") ? template_choice_set(&out->options, r->key_values[i], err)
                                                 : options_set(&out->options, r->keys[i], r->key_values[i], err));
    return compare ? template_choice_check(trained, &out->options, r->path, err) : STATUS_OK;
}

void request_warn(const struct request *r, const struct source *source)
{
    const struct options *o = &source->options;
    bool template = source->knows_template || r->raw;
    for (int i = 0; i < r->n_keys; i++) {
        const char *key = r->keys[i];
        template = template || !strcmp(key, "chat_template");
        if (!o->do_sample && (!strcmp(key, "temperature") || !strcmp(key, "top_p") || !strcmp(key, "top_k")))
            log_warn("%s is not used: do_sample is false; give --do_sample true to draw tokens", key);
    }
    if (!template)
        log_warn("the chat template is %s; give --chat_template if the model was trained with another one", o->chat_template);
}
