#include "worker/model/import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/loar/tensors.h"
#include "worker/model/safetensors.h"

struct import {
    const char *dir;
    const struct import_options *options;
    const struct safetensors *set;
    float *values;
    int new_routers, new_adapters;
    struct digest *frozen; /* NULL: not wanted */
};

static enum status check_shape(const struct safetensors_entry *entry, const struct param *param, struct error *err)
{
    if (entry->n_dims == param->n_dims && !memcmp(entry->shape, param->shape, (size_t)param->n_dims * sizeof *param->shape))
        return STATUS_OK;
    char found[128], expected[128];
    safetensors_shape_text(entry->shape, entry->n_dims, found, sizeof found);
    safetensors_shape_text(param->shape, param->n_dims, expected, sizeof expected);
    if (loar_is_tensor(param->name))
        FAIL(err, STATUS_DATA,
             "%s: tensor '%s' has the shape %s, this run's routing asks for %s: give loar.router_dim, loar.per_head and as many "
             "tasks as in the folder's loar_config.json, or leave the loar block out to take its routing over, or let loar export "
             "--dense write a folder without routers",
             entry->file, entry->name, found, expected);
    FAIL(err, STATUS_DATA,
         "%s: tensor '%s' has the shape %s, config.json asks for %s: weights and config.json do not belong together",
         entry->file, entry->name, found, expected);
}

/* True when all exponents differ from that of infinity and NaN; without a way out of the loop, so that it runs at memory
 * speed. */
static bool all_finite(const float *values, int64_t count)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static enum status check_finite(const struct safetensors_entry *entry, const float *values, struct error *err)
{
    if (all_finite(values, entry->count))
        return STATUS_OK;
    int64_t i = 0;
    while (isfinite(values[i]))
        i++;
    FAIL(err, STATUS_NUMERIC, "%s: tensor '%s' holds %s at index %lld of %lld: the weights are damaged", entry->file,
         entry->name, isnan(values[i]) ? "NaN" : "infinity", (long long)i, (long long)entry->count);
}

/* A frozen tensor goes to its place, or into scratch memory only to be checked; both ways it takes part in the digest. */
static enum status import_frozen(struct import *in, const struct safetensors_entry *entry, const struct param *param,
                                 float *place, struct error *err)
{
    float *scratch = place ? NULL : mem_alloc((size_t)entry->count, sizeof *scratch), *out = place ? place : scratch;
    if (!out)
        FAIL(err, STATUS_NOMEM, "%s: no memory to check tensor '%s'", entry->file, entry->name);
    enum status st = safetensors_to_float(entry, out, err);
    if (st == STATUS_OK)
        st = check_finite(entry, out, err);
    if (st == STATUS_OK && in->frozen) {
        digest_add_string(in->frozen, param->name);
        digest_add(in->frozen, param->shape, (size_t)param->n_dims * sizeof *param->shape);
        digest_add(in->frozen, out, (size_t)param->size * sizeof *out);
    }
    mem_free(scratch);
    return st;
}

static enum status import_tensor(struct import *in, const struct params *table, int index, struct error *err)
{
    const struct param *param = &table->items[index];
    const struct safetensors_entry *entry = safetensors_find(in->set, param->name);
    bool router = loar_is_tensor(param->name), adapter = lora_is_tensor(param->name);
    if (in->options && in->options->new_scores && !strcmp(param->name, MODEL_SCORE_TENSOR)) {
        param_initialise(param, in->options->seed, in->values + param->offset);
        return STATUS_OK;
    }
    if (!entry && (adapter || (router && in->options && in->options->new_routers))) {
        param_initialise(param, in->options ? in->options->seed : 0, in->values + param->offset);
        in->new_routers += router;
        in->new_adapters += adapter;
        return STATUS_OK;
    }
    if (!entry) {
        char shape[128];
        safetensors_shape_text(param->shape, param->n_dims, shape, sizeof shape);
        FAIL(err, STATUS_DATA, "'%s' lacks the tensor '%s' %s that its %sconfig.json asks for%s", in->dir, param->name, shape,
             router ? "loar_" : "", strcmp(param->name, "lm_head.weight") ? "" : " (tie_word_embeddings is false)");
    }
    TRY(check_shape(entry, param, err));
    if (param->role == PARAM_FROZEN)
        return import_frozen(in, entry, param, in->options && in->options->keep_frozen ? in->values + params_place(table, index) : NULL,
                             err);
    TRY(safetensors_to_float(entry, in->values + param->offset, err));
    return check_finite(entry, in->values + param->offset, err);
}

/* The tensors that published folders hold besides the model's own. */
static bool is_known_extra(const struct model_config *config, const char *name)
{
    static const char layer[] = "model.layers.", inverse[] = "rotary_emb.inv_freq";
    size_t size = strlen(name);
    if (size >= sizeof inverse - 1 && !strcmp(name + size - (sizeof inverse - 1), inverse))
        return true;
    if ((config->tied || config->classifies_only) && !strcmp(name, "lm_head.weight"))
        return true;
    return !strncmp(name, layer, sizeof layer - 1) && strtol(name + sizeof layer - 1, NULL, 10) >= config->layers;
}

static void report_extras(const struct import *in, const struct model_config *config, const struct params *table,
                          struct import_report *report)
{
    *report = (struct import_report){.tensors = table->count - in->new_routers - in->new_adapters, .new_routers = in->new_routers};
    for (size_t i = 0; i < safetensors_count(in->set); i++) {
        const char *name = safetensors_at(in->set, i)->name;
        if (params_find(table, name) >= 0)
            continue;
        if (loar_is_tensor(name))
            report->left_routers++;
        else if (is_known_extra(config, name))
            report->known_extras++;
        else if (!report->unknown_extras++)
            snprintf(report->example, sizeof report->example, "%s", name);
    }
}

enum status model_import(const char *dir, const struct model_config *config, const struct params *table,
                         const struct import_options *options, float *values, struct import_report *report,
                         struct error *err)
{
    struct safetensors *set;
    TRY(safetensors_open(dir, &set, err));
    struct import in = {.dir = dir, .options = options, .set = set, .values = values};
    memset(values, 0, (size_t)(options && options->keep_frozen ? params_room(table) : table->values) * sizeof *values);
    enum status st = STATUS_OK;
    if (report && table->frozen && !(in.frozen = digest_new()))
        st = error_set(err, STATUS_NOMEM, "'%s': no memory for a digest", dir);
    for (int i = 0; i < table->count && st == STATUS_OK; i++)
        st = import_tensor(&in, table, i, err);
    if (st == STATUS_OK && report)
        report_extras(&in, config, table, report);
    if (in.frozen) {
        char hex[DIGEST_HEX_SIZE];
        digest_finish(in.frozen, hex);
        if (st == STATUS_OK)
            memcpy(report->frozen_digest, hex, sizeof hex);
    }
    safetensors_close(set);
    return st;
}
