#include "launch/trained.h"

#include <string.h>

static struct words words_of(const struct string_list *list)
{
    return (struct words){list->items, list->count};
}

enum status trained_read(const struct options *o, struct training *out, struct error *err)
{
    static const char *const kinds[] = {
        [TRAIN_ALL] = "full", [TRAIN_ROUTERS] = "router", [TRAIN_CHOSEN] = "freeze", [TRAIN_ADAPTERS] = "lora"};
    *out = (struct training){.kind = TRAIN_ALL};
    while (strcmp(kinds[out->kind], o->finetuning_type))
        out->kind++;
    out->modules = words_of(&o->modules_to_save);
    if (out->kind == TRAIN_CHOSEN) {
        out->layers = (int)o->freeze_trainable_layers;
        out->frozen = words_of(&o->freeze_parameters);
    }
    if (out->kind != TRAIN_ADAPTERS)
        return STATUS_OK;
    double alpha = o->lora_alpha > 0 ? o->lora_alpha : 2 * (double)o->lora_rank;
    out->lora = (struct lora){.rank = (int)o->lora_rank, .alpha = alpha, .dropout = o->lora_dropout, .rslora = o->use_rslora};
    const struct words targets = words_of(&o->lora_target);
    return lora_set_targets(&out->lora, &targets, err);
}

static void put_line(struct text *out, const char *name, int64_t values, int64_t trained)
{
    text_printf(out, "%-9s %14lld values %14lld trained %6.2f %%\n", name, (long long)values, (long long)trained,
                values ? 100.0 * (double)trained / (double)values : 0.0);
}

void trained_put(const struct params *table, struct text *out)
{
    int64_t values[GROUP_COUNT] = {0}, trained[GROUP_COUNT] = {0};
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        enum training_group group = training_group_of(p->name);
        values[group] += p->size;
        trained[group] += p->role == PARAM_TRAINED ? p->size : 0;
    }
    for (int g = 0; g < GROUP_COUNT; g++)
        if (values[g])
            put_line(out, training_group_name((enum training_group)g), values[g], trained[g]);
    put_line(out, "in all", table->trained + table->frozen, table->trained);
}
