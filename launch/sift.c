#include "launch/sift.h"

#include "common/checksum.h"
#include "common/files.h"
#include "common/memory.h"
#include "worker/data/duplicates.h"
#include "worker/data/holdout.h"
#include "worker/data/select.h"

enum status sift_cache_key(const struct run *run, const struct dataset_options *set, struct text *out, struct error *err)
{
    const char *template = run->options->chat_template;
    options_format_rows(run->options, set, out);
    text_printf(out, "vocabulary: %lld\n", (long long)run->config.vocab);
    if (template && file_exists(template)) {
        char *text;
        size_t size;
        TRY(file_read(template, &text, &size, err));
        text_printf(out, "template: %zu bytes\n", size);
        text_append(out, text, size);
        mem_free(text);
    }
    if (out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for what shapes the rows of '%s'", set->path);
    return STATUS_OK;
}

static enum status drop_repeated(struct run *run, bool *marked, struct error *err)
{
    struct duplicates found;
    TRY(duplicates_within(&run->train, marked, &found, err));
    select_drop_repeated(&run->train, marked);
    return STATUS_OK;
}

static enum status hold_out(struct run *run, bool *marked, struct error *err)
{
    const struct options *o = run->options;
    TRY(holdout_choose(&run->train, o->val_size, marked, err));
    return select_hold_out(&run->train, marked, o->eval_max_samples, &run->eval, err);
}

enum status sift_rows(struct run *run, struct error *err)
{
    const struct options *o = run->options;
    if (!o->dataset_exact_deduplication && o->val_size <= 0)
        return STATUS_OK;
    bool *marked = mem_alloc((size_t)run->train.rows, sizeof *marked);
    if (!marked)
        FAIL(err, STATUS_NOMEM, "no memory to sift %lld rows", (long long)run->train.rows);
    enum status st = o->dataset_exact_deduplication ? drop_repeated(run, marked, err) : STATUS_OK;
    if (st == STATUS_OK && o->val_size > 0)
        st = hold_out(run, marked, err);
    mem_free(marked);
    return st;
}

enum status sift_order(struct run *run, int slots, struct error *err)
{
    const struct options *o = run->options;
    const struct dataset *train = &run->train;
    /* Stages with the same rows see them in another order. */
    uint64_t seed = (uint64_t)(o->data_seed >= 0 ? o->data_seed : o->seed) + (uint64_t)run->stage * UINT64_C(0x9e3779b97f4a7c15);
    enum mix_strategy strategy;
    if (!mix_strategy_parse(o->mix_strategy, &strategy))
        FAIL(err, STATUS_USAGE, "mix_strategy: '%s' is not known", o->mix_strategy);
    if (train->rows > UINT32_MAX)
        FAIL(err, STATUS_DATA, "the training data hold %lld rows; at most %u are possible", (long long)train->rows, UINT32_MAX);
    struct mix_set *sets = mem_alloc((size_t)train->n_parts, sizeof *sets);
    if (!sets)
        FAIL(err, STATUS_NOMEM, "no memory for the order of %d data sets", train->n_parts);
    for (int i = 0; i < train->n_parts; i++)
        sets[i] = (struct mix_set){.first = (uint32_t)train->parts[i].first_row, .rows = (uint32_t)train->parts[i].stats.kept,
                                   .share = train->parts[i].share};
    order_free(&run->order);
    enum status st = order_create_mixed(seed, strategy, sets, train->n_parts, slots, (int)o->per_device_train_batch_size,
                                        o->shuffle_dataset, &run->order, err);
    mem_free(sets);
    return st;
}

double sift_passes(const struct run *run, int part)
{
    const struct mix_set *sets = run->order.sets;
    return sets && sets[part].rows ? (double)sets[part].count / (double)sets[part].rows : 1;
}

static void put_duplicates(const struct duplicates *found, const struct dataset *of, const struct dataset *like, const char *what,
                           struct text *notes)
{
    if (!found->rows)
        return;
    text_printf(notes, "%lld row%s of %s, token for token; the first is ", (long long)found->rows, found->rows == 1 ? "" : "s", what);
    duplicates_put_place(of, found->row, notes);
    text_puts(notes, ", the same as ");
    duplicates_put_place(like, found->like, notes);
    text_puts(notes, "\n");
}

static void put_cache_notes(const struct dataset *dataset, struct text *notes)
{
    for (int i = 0; i < dataset->n_parts; i++)
        if (dataset->parts[i].note)
            text_printf(notes, "data set '%s': %s\n", dataset->parts[i].name, dataset->parts[i].note);
}

static void put_shares(const struct run *run, struct text *notes)
{
    const struct order *order = &run->order;
    if (!order->sets)
        return;
    text_printf(notes, "mixing: an epoch of %lld rows takes", (long long)order->rows);
    for (int i = 0; i < order->n_sets; i++)
        text_printf(notes, "%s %lld of %s (%.1f %%, %.2f times the set)", i ? "," : "", (long long)order->sets[i].count,
                    run->train.parts[i].name, 100.0 * (double)order->sets[i].count / (double)order->rows, sift_passes(run, i));
    text_puts(notes, "\n");
}

enum status sift_notes(const struct run *run, struct text *notes, struct error *err)
{
    struct duplicates found;
    put_cache_notes(&run->train, notes);
    put_cache_notes(&run->eval, notes);
    TRY(duplicates_within(&run->train, NULL, &found, err));
    put_duplicates(&found, &run->train, &run->train, "the training data repeat an earlier one", notes);
    if (found.rows)
        text_puts(notes, "dataset_exact_deduplication: true leaves repeated rows out\n");
    if (run->eval.rows) {
        TRY(duplicates_between(&run->train, &run->eval, &found, err));
        put_duplicates(&found, &run->eval, &run->train, "the evaluation data are trained on, too", notes);
    }
    put_shares(run, notes);
    return STATUS_OK;
}
