/* A small run to save: five tensors (one frozen, one empty), two optimizer states, texts and files. */
#ifndef TESTS_SUPPORT_SAMPLE_SNAPSHOT_H
#define TESTS_SUPPORT_SAMPLE_SNAPSHOT_H

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/rng.h"
#include "ps/snapshot.h"

struct sample {
    struct params table;
    float *values, *states[2];
    struct snapshot_text texts[3], files[2];
    struct snapshot_view view;
};

/* `width` sets the size: about 4 * width * width values per array. */
static inline void sample_make(struct sample *out, int64_t width, int64_t step)
{
    const struct param items[] = {
        {.name = "model.embed_tokens.weight", .n_dims = 2, .shape = {width, width}, .decay = true},
        {.name = "model.layers.0.self_attn.q_proj.weight", .n_dims = 2, .shape = {3, width}, .decay = true},
        {.name = "model.layers.0.frozen", .n_dims = 1, .shape = {7}, .role = PARAM_FROZEN},
        {.name = "model.layers.0.extra", .n_dims = 3, .shape = {2, 0, 3}},
        {.name = "lm_head.weight", .n_dims = 2, .shape = {3 * width, width}, .decay = true},
        {.name = "model.norm.weight", .n_dims = 1, .shape = {width}},
    };
    *out = (struct sample){0};
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
        if (params_add(&out->table, &items[i], NULL, NULL) != STATUS_OK)
            abort();
    float **arrays[3] = {&out->values, &out->states[0], &out->states[1]};
    for (int a = 0; a < 3; a++) {
        *arrays[a] = mem_alloc_aligned((size_t)out->table.values, sizeof(float));
        for (int i = 0; i < out->table.count; i++)
            for (int64_t j = 0; out->table.items[i].role == PARAM_TRAINED && j < out->table.items[i].size; j++)
                (*arrays[a])[out->table.items[i].offset + j] =
                    (float)rng_uniform((uint64_t)step, (uint64_t)a, (uint64_t)(out->table.items[i].offset + j)) - 0.5f;
    }
    out->texts[0] = (struct snapshot_text){"config", "max_steps: 7 # größer\n", 24};
    out->texts[1] = (struct snapshot_text){"options", "seed=3\n", 7};
    out->texts[2] = (struct snapshot_text){"history", "", 0};
    out->files[0] = (struct snapshot_text){"config.json", "{\"model_type\": \"llama\"}", 23};
    out->files[1] = (struct snapshot_text){"tokenizer.json", "{}", 2};
    out->view = (struct snapshot_view){
        .table = &out->table,
        .values = out->values,
        .n_states = 2,
        .states = {{"exp_avg", out->states[0]}, {"exp_avg_sq", out->states[1]}},
        .meta = {.step = step, .max_steps = 1000, .updates = step, .epoch = 0.25, .tokens_seen = 12345, .slots = 8,
                 .global_batch = 16, .seed = 3, .data_seed = -1, .chunk_values = 64, .optimizer = "adamw",
                 .best_metric = "eval_loss", .best_value = 1.5, .best_step = 4},
        .texts = out->texts,
        .n_texts = 3,
        .files = out->files,
        .n_files = 2,
    };
}

static inline void sample_free(struct sample *sample)
{
    mem_free_aligned(sample->values);
    mem_free_aligned(sample->states[0]);
    mem_free_aligned(sample->states[1]);
    params_free(&sample->table);
}

#endif
