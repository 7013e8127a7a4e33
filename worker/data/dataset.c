#include "worker/data/dataset.h"

#include <stddef.h>
#include <string.h>

#include "common/memory.h"
#include "common/text.h"
#include "worker/data/block.h"
#include "worker/data/cache.h"
#include "worker/data/seen_names.h"

enum { ROUND_BLOCKS = 64 }; /* read side by side before their rows are put together */

bool truncation_parse(const char *name, enum truncation *out)
{
    static const char *const names[] = {"error", "drop", "thought"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(names[i], name)) {
            *out = (enum truncation)i;
            return true;
        }
    return false;
}

static void problems_print(const struct problems *problems, struct text *out)
{
    for (int i = 0; i < problems->shown; i++)
        text_printf(out, "%s  %s", i ? "\n" : "", problems->lines[i]);
}

const struct dataset_array dataset_arrays[DATASET_ARRAYS] = {
    {offsetof(struct dataset, tokens), sizeof(int32_t), true},
    {offsetof(struct dataset, spans), sizeof(uint8_t), true},
    {offsetof(struct dataset, weights), sizeof(float), false},
    {offsetof(struct dataset, lines), sizeof(int64_t), false},
    {offsetof(struct dataset, labels), sizeof(int32_t), false},
};

/* Pointers of any type are read and written as bytes. */
static char *array_of(const struct dataset *dataset, int array)
{
    char *block;
    memcpy(&block, (const char *)dataset + dataset_arrays[array].offset, sizeof block);
    return block;
}

void *dataset_place(const struct dataset *dataset, int array, int64_t row)
{
    const struct dataset_array *a = &dataset_arrays[array];
    return array_of(dataset, array) + (size_t)(a->per_token ? dataset->starts[row] : row) * a->size;
}

static bool grow(struct dataset *dataset, bool per_token, size_t count)
{
    for (int i = 0; i < DATASET_ARRAYS; i++) {
        if (dataset_arrays[i].per_token != per_token)
            continue;
        char *block = mem_realloc(array_of(dataset, i), count, dataset_arrays[i].size);
        if (!block)
            return false;
        memcpy((char *)dataset + dataset_arrays[i].offset, &block, sizeof block);
    }
    return true;
}

enum status dataset_reserve(struct dataset *dataset, int64_t rows, int64_t tokens, struct error *err)
{
    if (rows > dataset->row_capacity) {
        size_t n = (size_t)rows * 2;
        int64_t *starts = mem_realloc(dataset->starts, n + 1, sizeof *starts);
        if (starts) {
            if (!dataset->starts)
                starts[0] = 0;
            dataset->starts = starts;
        }
        if (!starts || !grow(dataset, false, n))
            FAIL(err, STATUS_NOMEM, "no memory for %lld rows", (long long)rows);
        dataset->row_capacity = (int64_t)n;
    }
    if (tokens > dataset->token_capacity) {
        size_t n = (size_t)(tokens + tokens / 4);
        if (!grow(dataset, true, n))
            FAIL(err, STATUS_NOMEM, "no memory for the data set: %lld tokens", (long long)tokens);
        dataset->token_capacity = (int64_t)n;
    }
    return STATUS_OK;
}

/* Adds the counts of a block; `rows` is the number of the block's first row in the data set. */
static void stats_add(struct dataset_stats *sum, const struct block *block, int64_t rows)
{
    const struct dataset_stats *more = &block->stats;
    for (int i = 0; i < block->rows; i++)
        if (block->lengths[i] > sum->longest) {
            sum->longest = block->lengths[i];
            sum->longest_row = rows + i;
        }
    sum->kept += more->kept;
    sum->skipped += more->skipped;
    sum->too_long += more->too_long;
    sum->masked += more->masked;
    sum->shortened += more->shortened;
    sum->thoughts += more->thoughts;
    sum->special_text += more->special_text;
    for (int span = 0; span < SPAN_COUNT; span++)
        sum->tokens[span] += more->tokens[span];
}

/* Moves a block's rows behind the `rows` that are there. */
static enum status take_block(struct dataset *dataset, int64_t *rows, struct block *block, struct seen_names *seen, struct error *err)
{
    if (!block->rows)
        return STATUS_OK;
    int64_t first = *rows ? dataset->starts[*rows] : 0;
    TRY(dataset_reserve(dataset, *rows + block->rows, first + (int64_t)block->n_tokens, err));
    memcpy(dataset->tokens + first, block->tokens, block->n_tokens * sizeof *block->tokens);
    memcpy(dataset->spans + first, block->spans, block->n_tokens);
    for (int i = 0; i < block->rows; i++, (*rows)++) {
        dataset->labels[*rows] = 0;
        if (block->labels[i])
            TRY(seen_names_add(seen, block->labels[i], &dataset->labels[*rows], err));
        struct row row = {0};
        stretch_table_find(&block->stretches, i, &row);
        TRY(stretch_table_add(&dataset->stretches, *rows, row.stretches, row.n_stretches, err));
        dataset->weights[*rows] = block->weights[i];
        dataset->lines[*rows] = block->lines[i];
        dataset->starts[*rows + 1] = dataset->starts[*rows] + block->lengths[i];
    }
    return STATUS_OK;
}

struct outcome {
    int64_t rows; /* in the data set with the new ones */
    int64_t refused_long;
    struct dataset_stats stats;
    struct problems problems;
    struct seen_names labels;
};

static void read_block(void *context, int task, int thread)
{
    (void)thread;
    block_read((struct block *)context + task);
}

static enum status read_round(struct dataset *dataset, struct block *blocks, int count, struct threads *pool,
                              struct outcome *outcome, struct error *err)
{
    threads_run(pool, count, read_block, blocks);
    for (int i = 0; i < count; i++) {
        struct block *block = &blocks[i];
        if (block->status != STATUS_OK) {
            if (err)
                *err = block->err;
            return block->status;
        }
        stats_add(&outcome->stats, block, outcome->rows);
        TRY(take_block(dataset, &outcome->rows, block, &outcome->labels, err));
        outcome->refused_long += block->refused_long;
        for (int p = 0; p < block->problems.shown; p++)
            TRY(problems_add(&outcome->problems, block->problems.lines[p], err));
        block_reset(block);
    }
    return STATUS_OK;
}

static enum status read_all(struct dataset *dataset, const struct block_source *source, struct threads *pool,
                            struct outcome *outcome, struct error *err)
{
    struct block *blocks = mem_alloc(ROUND_BLOCKS, sizeof *blocks);
    if (!blocks)
        FAIL(err, STATUS_NOMEM, "no memory to read '%s'", source->spec->path);
    enum status st = STATUS_OK;
    for (int64_t at = 0; at < source->count && st == STATUS_OK;) {
        int used = 0;
        for (; used < ROUND_BLOCKS && at < source->count; used++) {
            int64_t left = source->count - at;
            blocks[used].source = source;
            blocks[used].arena.block_bytes = 1 << 14;
            blocks[used].first = at;
            blocks[used].count = left < BLOCK_ROWS ? left : BLOCK_ROWS;
            at += blocks[used].count;
        }
        st = read_round(dataset, blocks, used, pool, outcome, err);
    }
    for (int i = 0; i < ROUND_BLOCKS; i++)
        block_free(&blocks[i]);
    mem_free(blocks);
    return st;
}

static enum status find_records(struct block_source *l, struct error *err)
{
    for (bool found;; l->count++) {
        if (l->spec->max_samples >= 0 && l->count == l->spec->max_samples)
            break;
        struct jsonl_record record;
        TRY(records_next(&l->reader, &record, &found, err));
        if (!found)
            break;
        if (l->count == l->capacity) {
            size_t n = l->capacity ? (size_t)l->capacity * 2 : 256;
            struct jsonl_record *grown = mem_realloc(l->records, n, sizeof *grown);
            if (!grown)
                FAIL(err, STATUS_NOMEM, "no memory for the list of rows of '%s'", l->spec->path);
            l->records = grown;
            l->capacity = (int64_t)n;
        }
        l->records[l->count] = record;
    }
    if (!l->count)
        FAIL(err, STATUS_DATA, "'%s' holds no rows%s%s", l->spec->path,
             l->spec->max_samples == 0 ? " because max_samples is 0" : "; ",
             l->spec->max_samples == 0 ? "" : records_wanted(&l->reader));
    return STATUS_OK;
}

/* Takes the named format, or the one of the first row that can be read at all. */
static enum status choose_format(struct block_source *l, struct error *err)
{
    const struct row_options options = {.columns = l->spec->columns};
    bool named = l->spec->format && *l->spec->format && strcmp(l->spec->format, "auto");
    if (named || l->spec->classify) { /* only one format has classes */
        TRY(row_format_find(named ? l->spec->format : "classification", &l->format, err));
        if (row_format_check(l->format, &options.columns, err) != STATUS_OK)
            return error_prefix(err, "data set '%s' ('%s')", l->spec->name, l->spec->path);
        return STATUS_OK;
    }
    enum status first = STATUS_OK;
    for (int64_t i = 0; i < l->count && i < BLOCK_ROWS && !l->format; i++) {
        struct json *row;
        struct error later;
        struct error *place = i ? &later : err; /* the first row's message is the one to show */
        enum status st = records_parse(&l->reader, &l->records[i], &row, place);
        if (st == STATUS_OK) {
            st = row_format_detect(row, l->spec->path, l->records[i].line, &options, &l->format, place);
            json_free(row);
        }
        if (st == STATUS_NOMEM)
            FAIL(err, STATUS_NOMEM, "no memory to read the first rows of '%s'", l->spec->path);
        first = i ? first : st;
    }
    if (!l->format && l->reader.is_table && !(l->spec->table.header && *l->spec->table.header))
        return error_prefix(err, "columns are named by the file's first line (if that is a row already, set header)");
    return l->format ? STATUS_OK : first;
}

static enum status check_classify(const struct block_source *l, struct error *err)
{
    if (!l->spec->classify || row_format_has_label(l->format))
        return STATUS_OK;
    FAIL(err, STATUS_USAGE, "'%s' ('%s'): task_type seq_cls needs rows with a text and a label (format classification), found format %s; "
         "name the columns with text_column and label_column, or choose task_type causal_lm", l->spec->name, l->spec->path,
         row_format_name(l->format));
}

/* Decides whether what was found can be used. */
static enum status judge(const struct block_source *l, const struct outcome *o, struct error *err)
{
    const struct dataset_stats *s = &o->stats;
    const struct dataset_rules *rules = l->rules;
    int64_t bad = s->skipped;
    struct text text = {0};
    text_printf(&text, "data set '%s' ('%s'): ", l->spec->name, l->spec->path);
    if (bad && rules->strict)
        text_printf(&text, "%lld bad row%s of %lld; repair them, or set strict: false to skip them", (long long)bad, bad == 1 ? "" : "s",
                    (long long)l->count);
    else if (rules->max_bad_rows >= 0 && bad > rules->max_bad_rows)
        text_printf(&text, "%lld bad row%s of %lld, more than max_bad_rows %lld", (long long)bad, bad == 1 ? "" : "s", (long long)l->count,
                    (long long)rules->max_bad_rows);
    else if (o->refused_long)
        text_printf(&text, "%lld rows of %lld are longer than max_length %d", (long long)o->refused_long,
                    (long long)l->count, rules->max_length);
    else if (!s->kept)
        text_printf(&text, "no row of %lld can be used: %lld bad, %lld longer than max_length %d, %lld without a token that takes loss",
                    (long long)l->count, (long long)bad, (long long)s->too_long, rules->max_length, (long long)s->masked);
    else {
        text_free(&text);
        return STATUS_OK;
    }
    text_printf(&text, "; the first %d:\n", o->problems.shown);
    problems_print(&o->problems, &text);
    enum status st = text.failed ? STATUS_NOMEM : STATUS_DATA;
    error_set(err, st, "%s", text.failed ? "no memory to list the bad rows" : text.data);
    text_free(&text);
    return st;
}

static enum status task_index(struct dataset *dataset, const char *name, int *out, struct error *err)
{
    for (*out = 0; *out < dataset->n_tasks; (*out)++)
        if (!strcmp(dataset->tasks[*out], name))
            return STATUS_OK;
    char **tasks = mem_realloc(dataset->tasks, (size_t)dataset->n_tasks + 1, sizeof *tasks);
    if (tasks)
        dataset->tasks = tasks;
    char *copy = tasks ? mem_strdup(name) : NULL;
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory for the task '%s'", name);
    dataset->tasks[dataset->n_tasks++] = copy;
    return STATUS_OK;
}

enum status dataset_name_tasks(struct dataset *dataset, char *const *tasks, int count, struct error *err)
{
    int index;
    for (int i = 0; i < count; i++)
        TRY(task_index(dataset, tasks[i], &index, err));
    return STATUS_OK;
}

/* Makes the new rows part of the data set: all memory is found before anything is changed. Takes the texts over when it
 * succeeds. */
static enum status add_part(struct dataset *dataset, const struct dataset_spec *spec, const struct dataset_found *found, struct error *err)
{
    struct dataset_part *parts = mem_realloc(dataset->parts, (size_t)dataset->n_parts + 1, sizeof *parts);
    if (!parts)
        FAIL(err, STATUS_NOMEM, "no memory for the data set '%s'", spec->name);
    dataset->parts = parts;
    struct dataset_part part = {.format = found->format, .first_row = dataset->rows, .stats = found->stats, .share = spec->weight,
                                .problems = found->problems, .note = found->note, .name = mem_strdup(spec->name),
                                .path = mem_strdup(spec->path), .classify = spec->classify,
                                .label_names = found->label_names, .n_label_names = found->n_label_names};
    enum status st = STATUS_OK;
    if (!part.name || !part.path)
        st = error_set(err, STATUS_NOMEM, "no memory for the data set '%s'", spec->name);
    if (st == STATUS_OK)
        st = task_index(dataset, spec->task && *spec->task ? spec->task : spec->name, &part.task, err);
    if (st != STATUS_OK) {
        mem_free(part.name);
        mem_free(part.path);
        return st;
    }
    dataset->parts[dataset->n_parts++] = part;
    dataset->rows = found->rows;
    return STATUS_OK;
}

static void free_names(char **names, int count)
{
    for (int i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
}

/* From the file of rows. */
static enum status read_file(struct dataset *dataset, const struct dataset_spec *spec, const struct dataset_rules *rules,
                             const struct tokenizer *tokenizer, struct threads *pool, struct dataset_found *found, struct error *err)
{
    struct block_source source = {.spec = spec, .rules = rules, .tokenizer = tokenizer};
    struct outcome outcome = {.rows = dataset->rows};
    struct text problems = {0};
    enum status st;
    TRY_OR(done, st, records_open(spec->path, &spec->table, &source.reader, err));
    TRY_OR(done, st, find_records(&source, err));
    TRY_OR(done, st, choose_format(&source, err));
    TRY_OR(done, st, check_classify(&source, err));
    TRY_OR(done, st, read_all(dataset, &source, pool, &outcome, err));
    TRY_OR(done, st, judge(&source, &outcome, err));
    problems_print(&outcome.problems, &problems);
    if (problems.failed) {
        st = error_set(err, STATUS_NOMEM, "no memory for the data set '%s'", spec->name);
        text_free(&problems);
        goto done;
    }
    outcome.stats.read = source.count;
    found->rows = outcome.rows;
    found->stats = outcome.stats;
    found->format = row_format_name(source.format);
    found->problems = problems.data;
    found->label_names = outcome.labels.names;
    found->n_label_names = outcome.labels.count;
    outcome.labels.names = NULL;
done:
    problems_clear(&outcome.problems);
    seen_names_free(&outcome.labels);
    mem_free(source.records);
    records_close(&source.reader);
    return st;
}

/* Keeps what was read, unless the file changed while it was. */
static enum status keep_in_cache(const struct cache_entry *entry, const struct dataset *dataset, const struct dataset_spec *spec,
                                 const struct tokenizer *tokenizer, struct dataset_found *found, struct error *err)
{
    struct cache_entry now;
    TRY(cache_find(spec, tokenizer, &now, err));
    bool same = now.path && !strcmp(now.key, entry->key);
    /* Uneven weights of turns are not in the file's form: such rows are read anew each time. */
    struct row row;
    for (int64_t i = dataset->rows; same && i < found->rows; i++) {
        stretch_table_find(&dataset->stretches, i, &row);
        same = !row.n_stretches;
    }
    cache_entry_free(&now);
    return same ? cache_write(entry, dataset, found, err) : STATUS_OK;
}

static enum status load_named(struct dataset *dataset, const struct dataset_spec *spec, const struct dataset_rules *rules,
                              const struct tokenizer *tokenizer, struct threads *pool, struct error *err)
{
    struct dataset_found found = {0};
    struct cache_entry entry = {0};
    bool cached = false;
    enum status st = STATUS_OK;
    stretch_table_cut(&dataset->stretches, dataset->rows); /* what a load that failed has left */
    dataset->balanced = rules->balanced;
    if (spec->cache)
        st = cache_find(spec, tokenizer, &entry, err);
    if (st == STATUS_OK && entry.path)
        st = cache_read(&entry, dataset, &found, &cached, err);
    if (st == STATUS_OK && !cached)
        st = read_file(dataset, spec, rules, tokenizer, pool, &found, err);
    if (st == STATUS_OK && !cached && entry.path)
        st = keep_in_cache(&entry, dataset, spec, tokenizer, &found, err);
    if (st == STATUS_OK)
        st = add_part(dataset, spec, &found, err);
    if (st != STATUS_OK) {
        mem_free(found.problems);
        mem_free(found.note);
        free_names(found.label_names, found.n_label_names);
    }
    cache_entry_free(&entry);
    if (st != STATUS_OK && st != STATUS_DATA)
        error_prefix(err, "data set '%s'", spec->name);
    return st;
}

enum status dataset_load(struct dataset *dataset, const struct dataset_spec *spec, const struct dataset_rules *rules,
                         const struct tokenizer *tokenizer, struct threads *pool, struct error *err)
{
    if (spec->name && *spec->name)
        return load_named(dataset, spec, rules, tokenizer, pool, err);
    const char *slash = strrchr(spec->path, '/');
    const char *file = slash ? slash + 1 : spec->path;
    const char *dot = strrchr(file, '.');
    struct dataset_spec named = *spec;
    char *name = mem_strndup(file, dot && dot > file ? (size_t)(dot - file) : strlen(file));
    if (!name)
        FAIL(err, STATUS_NOMEM, "no memory for the name of '%s'", spec->path);
    named.name = name;
    enum status st = load_named(dataset, &named, rules, tokenizer, pool, err);
    mem_free(name);
    return st;
}

void dataset_free(struct dataset *dataset)
{
    for (int i = 0; i < dataset->n_parts; i++) {
        mem_free(dataset->parts[i].name);
        mem_free(dataset->parts[i].path);
        mem_free(dataset->parts[i].problems);
        free_names(dataset->parts[i].label_names, dataset->parts[i].n_label_names);
        mem_free(dataset->parts[i].note);
    }
    for (int i = 0; i < dataset->n_tasks; i++)
        mem_free(dataset->tasks[i]);
    mem_free(dataset->parts);
    mem_free(dataset->tasks);
    mem_free(dataset->starts);
    for (int i = 0; i < DATASET_ARRAYS; i++)
        mem_free(array_of(dataset, i));
    stretch_table_free(&dataset->stretches);
    *dataset = (struct dataset){0};
}

int dataset_part_of(const struct dataset *dataset, int64_t row)
{
    int part = dataset->n_parts - 1;
    while (part > 0 && dataset->parts[part].first_row > row)
        part--;
    return part;
}

struct row dataset_row(const struct dataset *dataset, int64_t index)
{
    int part = dataset_part_of(dataset, index);
    int64_t start = dataset->starts[index];
    const struct dataset_part *p = &dataset->parts[part];
    struct row_class class = {0};
    if (p->classes_count)
        class = (struct row_class){p->classes_first, p->classes_count, dataset->labels[index]};
    struct row row = {.tokens = dataset->tokens + start, .spans = dataset->spans + start,
                        .n_tokens = (int)(dataset->starts[index + 1] - start), .task = p->task,
                        .weight = dataset->weights[index], .class = class, .balanced = dataset->balanced};
    stretch_table_find(&dataset->stretches, index, &row);
    return row;
}

enum status dataset_slot_batch(const struct dataset *dataset, struct order *order, int64_t step, int slot,
                               const float span_weights[SPAN_COUNT], struct batch *batch, struct error *err)
{
    batch_clear(batch);
    uint32_t *rows = mem_alloc((size_t)order->slot_rows, sizeof *rows);
    if (!rows)
        FAIL(err, STATUS_NOMEM, "no memory for a list of %d rows", order->slot_rows);
    int count = order_slot(order, step, slot, rows);
    enum status st = STATUS_OK;
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        struct row row = dataset_row(dataset, rows[i]);
        st = batch_append(batch, &row, span_weights, err);
    }
    mem_free(rows);
    return st;
}

int64_t dataset_eval_batches(const struct dataset_part *part, int batch_rows)
{
    return (part->stats.kept + batch_rows - 1) / batch_rows;
}

enum status dataset_eval_batch(const struct dataset *dataset, const struct dataset_part *part, int batch_rows,
                               int64_t index, const float span_weights[SPAN_COUNT], struct batch *batch,
                               struct error *err)
{
    batch_clear(batch);
    int64_t first = index * batch_rows;
    for (int64_t i = first; i < first + batch_rows && i < part->stats.kept; i++) {
        struct row row = dataset_row(dataset, part->first_row + i);
        TRY(batch_append(batch, &row, span_weights, err));
    }
    return STATUS_OK;
}
