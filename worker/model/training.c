#include "worker/model/training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/data/tokenizer/regex.h"
#include "worker/loar/tensors.h"
#include "worker/model/model.h"

static const struct {
    const char *block, *name;
} modules[LORA_MODULES] = {
    [LORA_Q] = {"self_attn", "q_proj"}, [LORA_K] = {"self_attn", "k_proj"},  [LORA_V] = {"self_attn", "v_proj"},
    [LORA_O] = {"self_attn", "o_proj"}, [LORA_GATE] = {"mlp", "gate_proj"}, [LORA_UP] = {"mlp", "up_proj"},
    [LORA_DOWN] = {"mlp", "down_proj"},
};

const char *lora_module_name(enum lora_module module)
{
    return modules[module].name;
}

bool lora_is_tensor(const char *name)
{
    return strstr(name, ".lora_") != NULL;
}

double lora_scale(const struct lora *lora)
{
    return lora->alpha / (lora->rslora ? sqrt((double)lora->rank) : (double)lora->rank);
}

void lora_tensor_name(char room[128], int layer, enum lora_module module, char part)
{
    snprintf(room, 128, "model.layers.%d.%s.%s.lora_%c.weight", layer, modules[module].block, modules[module].name, part);
}

/* ---- words ---- */

struct word {
    const char *at;
    int size;
};

/* Walks through all words; begins with *item = 0 and *rest = NULL. */
static bool next_word(const struct words *words, size_t *item, const char **rest, struct word *out)
{
    for (;; (*item)++, *rest = NULL) {
        if (*item == words->count)
            return false;
        const char *at = *rest ? *rest : words->items[*item];
        at += strspn(at, ", ");
        out->at = at;
        out->size = (int)strcspn(at, ", ");
        *rest = at + out->size;
        if (out->size)
            return true;
    }
}

static bool is_word(struct word w, const char *text)
{
    return (size_t)w.size == strlen(text) && !memcmp(w.at, text, (size_t)w.size);
}

enum status lora_set_targets(struct lora *lora, const struct words *words, struct error *err)
{
    size_t item = 0;
    const char *rest = NULL;
    lora->targets = words->count ? 0 : (1u << LORA_MODULES) - 1;
    for (struct word w; next_word(words, &item, &rest, &w);) {
        int m = 0;
        while (m < LORA_MODULES && !is_word(w, modules[m].name))
            m++;
        if (m == LORA_MODULES && !is_word(w, "all"))
            FAIL(err, STATUS_USAGE, "lora_target: no linear map of a layer is called '%.*s'; there are q_proj, k_proj, v_proj, o_proj, gate_proj, "
                 "up_proj, down_proj, and all for these seven (modules_to_save trains others, such as embed_tokens or lm_head, as a whole)",
                 w.size, w.at);
        lora->targets |= m == LORA_MODULES ? (1u << LORA_MODULES) - 1 : 1u << m;
    }
    if (!lora->targets)
        FAIL(err, STATUS_USAGE, "lora_target: names no module; there are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, and all");
    return STATUS_OK;
}

/* ---- names ---- */

/* Layer of a tensor, or -1. */
static int layer_of(const char *name)
{
    static const char plain[] = "model.layers.", routed[] = "loar.layers.";
    const char *at = !strncmp(name, plain, sizeof plain - 1)     ? name + sizeof plain - 1
                     : !strncmp(name, routed, sizeof routed - 1) ? name + sizeof routed - 1
                                                                 : NULL;
    return at ? atoi(at) : -1;
}

/* Whether the tensor lies in the module: the word is a whole part of its path, from one dot to another, or only up to one. */
static bool lies_in(const char *name, struct word w, bool by_end)
{
    const char *end = strrchr(name, '.'); /* behind it: weight, bias */
    for (const char *at = name; end && at + w.size <= end; at++)
        if ((by_end || at == name || at[-1] == '.') && !memcmp(at, w.at, (size_t)w.size) && at[w.size] == '.')
            return true;
    return false;
}

/* Names of modules that hold tensors: "embed_tokens, input_layernorm, q_proj, ...". */
static void put_modules(const struct params *listed, struct text *out)
{
    for (int i = 0; i < listed->count; i++) {
        const char *name = listed->items[i].name, *end = strrchr(name, '.'), *begin = end;
        if (!end || loar_is_tensor(name) || layer_of(name) > 0 || strcmp(end, ".weight"))
            continue;
        while (begin > name && begin[-1] != '.')
            begin--;
        text_printf(out, "%s%.*s", out->size ? ", " : "", (int)(end - begin), begin);
    }
}

/* Tensors outside the layers and those of the first one. */
static void put_tensors(const struct params *listed, struct text *out)
{
    for (int i = 0; i < listed->count; i++)
        if (!loar_is_tensor(listed->items[i].name) && layer_of(listed->items[i].name) <= 0)
            text_printf(out, "%s%s", out->size ? ", " : "", listed->items[i].name);
}

/* Tensors that a run adds to a model are always trained, whatever stays as it is. */
static bool is_added(const char *name)
{
    return loar_is_tensor(name) || !strcmp(name, MODEL_SCORE_TENSOR);
}

/* ---- choosing ---- */

struct choice {
    const struct training *training;
    int layers;
    int64_t width;
    const struct params *listed;
    bool *trained; /* [listed->count] */
};

static enum status refuse_module(const struct choice *c, struct word w, struct error *err)
{
    struct text there = {0};
    if (is_word(w, "lm_head") && params_find(c->listed, "lm_head.weight") < 0)
        FAIL(err, STATUS_USAGE, "modules_to_save: this model has no lm_head of its own (tie_word_embeddings); name embed_tokens, which it shares");
    put_modules(c->listed, &there);
    error_set(err, STATUS_USAGE, "modules_to_save: no module of the model is called '%.*s'; there are %.1500s", w.size, w.at,
              there.failed ? "others" : there.data);
    text_free(&there);
    return STATUS_USAGE;
}

static enum status add_modules(const struct choice *c, struct error *err)
{
    size_t item = 0;
    const char *rest = NULL;
    for (struct word w; next_word(&c->training->modules, &item, &rest, &w);) {
        int found = 0;
        for (int i = 0; i < c->listed->count; i++)
            if (!loar_is_tensor(c->listed->items[i].name) && lies_in(c->listed->items[i].name, w, c->training->modules_by_end)) {
                c->trained[i] = true;
                found++;
            }
        bool shared = c->training->modules_by_end && is_word(w, "lm_head"); /* an adapter's copy of tied embeddings */
        if (!found && !(shared && params_find(c->listed, "lm_head.weight") < 0))
            return refuse_module(c, w, err);
    }
    return STATUS_OK;
}

static enum status choose_layers(const struct choice *c, struct error *err)
{
    int n = abs(c->training->layers), first = c->training->layers > 0 ? c->layers - n : 0;
    if (n > c->layers)
        FAIL(err, STATUS_USAGE, "freeze_trainable_layers: %d layers are to be trained, but the model has %d", n, c->layers);
    for (int i = 0; i < c->listed->count; i++) {
        int layer = layer_of(c->listed->items[i].name);
        c->trained[i] = layer >= first && layer < first + n;
    }
    return STATUS_OK;
}

static enum status refuse_pattern(const struct choice *c, const char *pattern, bool all, struct error *err)
{
    struct text there = {0};
    put_tensors(c->listed, &there);
    error_set(err, STATUS_USAGE, "freeze_parameters: '%.200s' is found in %s of the model's tensors; they are called %.2000s%s", pattern,
              all ? "the names of all" : "the name of none", there.failed ? "otherwise" : there.data,
              c->layers > 1 ? ", and alike in the other layers" : "");
    text_free(&there);
    return STATUS_USAGE;
}

static enum status freeze_found(const struct choice *c, const char *pattern, const struct regex *regex, struct regex_scratch *scratch,
                                struct error *err)
{
    int found = 0, all = 0;
    for (int i = 0; i < c->listed->count; i++) {
        const char *name = c->listed->items[i].name;
        size_t start, end;
        bool hit = false;
        if (loar_is_tensor(name))
            continue;
        TRY(regex_find(regex, scratch, name, strlen(name), 0, &start, &end, &hit, err));
        all++;
        found += hit;
        if (hit)
            c->trained[i] = false;
    }
    return found && found < all ? STATUS_OK : refuse_pattern(c, pattern, found != 0, err);
}

static enum status freeze_patterns(const struct choice *c, struct error *err)
{
    struct regex_scratch *scratch = regex_scratch_new();
    if (!scratch)
        FAIL(err, STATUS_NOMEM, "no memory for regular expressions");
    enum status st = STATUS_OK;
    for (size_t i = 0; i < c->training->frozen.count && st == STATUS_OK; i++) {
        const char *pattern = c->training->frozen.items[i];
        struct regex *regex = NULL;
        st = regex_compile(pattern, strlen(pattern), "freeze_parameters", &regex, err);
        if (st == STATUS_DATA)
            st = STATUS_USAGE;
        if (st == STATUS_OK)
            st = freeze_found(c, pattern, regex, scratch, err);
        regex_free(regex);
    }
    regex_scratch_free(scratch);
    return st;
}

static enum status choose(const struct choice *c, struct error *err)
{
    const struct training *t = c->training;
    int plain = 0, frozen = 0;
    if (t->kind == TRAIN_CHOSEN && t->layers)
        TRY(choose_layers(c, err));
    for (int i = 0; i < c->listed->count && t->kind == TRAIN_CHOSEN && !t->layers; i++)
        c->trained[i] = t->frozen.count > 0;
    if (t->kind != TRAIN_ROUTERS)
        TRY(add_modules(c, err));
    if (t->kind == TRAIN_CHOSEN)
        TRY(freeze_patterns(c, err));
    for (int i = 0; i < c->listed->count; i++) {
        bool added = is_added(c->listed->items[i].name);
        c->trained[i] = c->trained[i] || added;
        plain += !added;
        frozen += !c->trained[i];
    }
    if (t->kind == TRAIN_CHOSEN && frozen == plain)
        FAIL(err, STATUS_USAGE, "finetuning_type: freeze: nothing of the model is left to train; let freeze_parameters match less, or "
             "freeze_trainable_layers or modules_to_save name more");
    if (t->kind == TRAIN_CHOSEN && !frozen)
        FAIL(err, STATUS_USAGE, "finetuning_type: freeze: nothing is frozen; give finetuning_type: full to train the whole model");
    return STATUS_OK;
}

/* ---- listing ---- */

static enum status list_adapter(const struct choice *c, const struct param *weight, struct params *out, struct error *err)
{
    const struct lora *lora = &c->training->lora;
    for (int m = 0; m < LORA_MODULES && c->training->kind == TRAIN_ADAPTERS; m++) {
        struct word w = {modules[m].name, (int)strlen(modules[m].name)};
        if (!(lora->targets & 1u << m) || weight->n_dims != 2 || layer_of(weight->name) < 0 || !lies_in(weight->name, w, false))
            continue;
        if (weight->role == PARAM_TRAINED)
            FAIL(err, STATUS_USAGE, "modules_to_save trains '%s' as a whole, to which lora_target gives an adapter; take it out of one of them",
                 weight->name);
        char name[2][128];
        lora_tensor_name(name[0], layer_of(weight->name), (enum lora_module)m, 'A');
        lora_tensor_name(name[1], layer_of(weight->name), (enum lora_module)m, 'B');
        /* As PEFT begins: A by Kaiming's uniform rule with a = sqrt(5), which is 1 / sqrt(in) on both sides of zero; B zero. */
        const struct param a = {.name = name[0], .n_dims = 2, .shape = {lora->rank, weight->shape[1]}, .decay = true,
                                .init = INIT_UNIFORM, .init_std = 1 / sqrtf((float)weight->shape[1])};
        const struct param b = {.name = name[1], .n_dims = 2, .shape = {weight->shape[0], lora->rank}, .decay = true, .init = INIT_ZEROS};
        TRY(params_add(out, &a, NULL, err));
        TRY(params_add(out, &b, NULL, err));
    }
    return STATUS_OK;
}

enum status training_list(const struct training *t, int layers, int64_t width, const struct params *listed, struct params *out,
                          struct error *err)
{
    if (t->kind == TRAIN_ADAPTERS && (t->lora.rank < 1 || t->lora.rank > width))
        FAIL(err, STATUS_USAGE, "lora_rank: %d is not below the model's width of %lld; adapters are to be smaller than what they are added to",
             t->lora.rank, (long long)width);
    struct choice c = {t, layers, width, listed, mem_alloc((size_t)listed->count, sizeof *c.trained)};
    if (!c.trained)
        FAIL(err, STATUS_NOMEM, "no memory to choose among %d tensors", listed->count);
    enum status st = choose(&c, err);
    for (int i = 0; i < listed->count && st == STATUS_OK; i++) {
        struct param p = listed->items[i];
        p.role = c.trained[i] ? PARAM_TRAINED : PARAM_FROZEN;
        st = params_add(out, &p, NULL, err);
        if (st == STATUS_OK)
            st = list_adapter(&c, &p, out, err);
    }
    mem_free(c.trained);
    return st;
}

/* ---- groups ---- */

enum training_group training_group_of(const char *name)
{
    static const struct {
        const char *part;
        enum training_group group;
    } parts[] = {
        {".lora_", GROUP_ADAPTERS}, {"loar.", GROUP_ROUTERS},       {"norm.", GROUP_NORMS},
        {"embed_tokens", GROUP_EMBEDDING}, {".self_attn.", GROUP_ATTENTION}, {".mlp.", GROUP_MLP},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part))
            return parts[i].group;
    return GROUP_HEAD;
}

const char *training_group_name(enum training_group group)
{
    static const char *const names[GROUP_COUNT] = {
        [GROUP_EMBEDDING] = "embedding", [GROUP_ATTENTION] = "attention", [GROUP_MLP] = "mlp",          [GROUP_NORMS] = "norms",
        [GROUP_HEAD] = "head",           [GROUP_ROUTERS] = "routers",     [GROUP_ADAPTERS] = "adapters",
    };
    return names[group];
}

int training_lowest(const struct params *table, int layers)
{
    int lowest = layers;
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        if (p->role != PARAM_TRAINED)
            continue;
        if (training_group_of(p->name) == GROUP_EMBEDDING)
            return 0;
        int layer = layer_of(p->name);
        lowest = layer >= 0 && layer < lowest ? layer : lowest;
    }
    return lowest;
}
