#include "worker/data/select.h"

#include <string.h>

#include "common/memory.h"

/* Copies all that belongs to one row. `to` has room, its rows so far end at place `at`. `from` may be the same data set,
 * further behind. */
static void copy_row(struct dataset *to, int64_t at, const struct dataset *from, int64_t row)
{
    int64_t tokens = from->starts[row + 1] - from->starts[row];
    for (int i = 0; i < DATASET_ARRAYS; i++)
        memmove(dataset_place(to, i, at), dataset_place(from, i, row),
                (size_t)(dataset_arrays[i].per_token ? tokens : 1) * dataset_arrays[i].size);
    to->starts[at + 1] = to->starts[at] + tokens;
}

/* Counts anew what can be counted in the rows of a part. */
static void count_part(const struct dataset *dataset, struct dataset_part *part, int64_t rows)
{
    struct dataset_stats *s = &part->stats;
    s->kept = rows;
    s->thoughts = s->longest = 0;
    memset(s->tokens, 0, sizeof s->tokens);
    for (int64_t i = part->first_row; i < part->first_row + rows; i++) {
        int64_t begin = dataset->starts[i], end = dataset->starts[i + 1];
        for (int64_t k = begin; k < end; k++)
            s->tokens[dataset->spans[k]]++;
        s->thoughts += memchr(dataset->spans + begin, SPAN_THOUGHT, (size_t)(end - begin)) != NULL;
        if (end - begin > s->longest) {
            s->longest = (int)(end - begin);
            s->longest_row = i;
        }
    }
}

static int64_t drop(struct dataset *dataset, const bool *out, int part, int64_t *kept)
{
    struct dataset_part *p = &dataset->parts[part];
    int64_t first = *kept, end = p->first_row + p->stats.kept, all = p->stats.kept;
    for (int64_t i = p->first_row; i < end; i++)
        if (!out[i])
            copy_row(dataset, (*kept)++, dataset, i);
    p->first_row = first;
    count_part(dataset, p, *kept - first);
    return all - p->stats.kept;
}

void select_drop_repeated(struct dataset *dataset, const bool *out)
{
    int64_t kept = 0;
    for (int i = 0; i < dataset->n_parts; i++)
        dataset->parts[i].stats.repeated += drop(dataset, out, i, &kept);
    stretch_table_drop(&dataset->stretches, out);
    dataset->rows = kept;
}

/* Room in `to` for everything that may come. */
static enum status make_room(const struct dataset *dataset, const bool *out, struct dataset *to, struct error *err)
{
    int64_t rows = to->rows, tokens = rows ? to->starts[rows] : 0;
    for (int64_t i = 0; i < dataset->rows; i++)
        if (out[i]) {
            rows++;
            tokens += dataset->starts[i + 1] - dataset->starts[i];
        }
    TRY(dataset_reserve(to, rows, tokens, err));
    struct dataset_part *parts = mem_realloc(to->parts, (size_t)(to->n_parts + dataset->n_parts), sizeof *parts);
    if (!parts)
        FAIL(err, STATUS_NOMEM, "no memory for the rows that are held out");
    to->parts = parts;
    return STATUS_OK;
}

/* Copies what one part gives. */
static enum status take(const struct dataset *dataset, const bool *out, const struct dataset_part *part, int64_t limit,
                        struct dataset *to, struct error *err)
{
    struct dataset_part made = {.format = part->format, .task = part->task, .share = part->share, .first_row = to->rows,
                                .classify = part->classify, .classes_first = part->classes_first, .classes_count = part->classes_count};
    int64_t rows = to->rows;
    for (int64_t i = part->first_row; i < part->first_row + part->stats.kept; i++) {
        made.stats.read += out[i];
        if (out[i] && (limit < 0 || rows - to->rows < limit)) {
            struct row row;
            stretch_table_find(&dataset->stretches, i, &row);
            TRY(stretch_table_add(&to->stretches, rows, row.stretches, row.n_stretches, err));
            copy_row(to, rows++, dataset, i);
        }
    }
    if (rows == to->rows)
        return STATUS_OK;
    made.name = mem_strdup(part->name);
    made.path = mem_strdup(part->path);
    if (!made.name || !made.path) {
        mem_free(made.name);
        mem_free(made.path);
        FAIL(err, STATUS_NOMEM, "no memory for the rows that are held out");
    }
    count_part(to, &made, rows - to->rows);
    to->parts[to->n_parts++] = made;
    to->rows = rows;
    return STATUS_OK;
}

enum status select_hold_out(struct dataset *dataset, const bool *out, int64_t limit, struct dataset *to, struct error *err)
{
    int parts = to->n_parts;
    int64_t rows = to->rows, kept = 0;
    enum status st = make_room(dataset, out, to, err);
    to->balanced = dataset->balanced;
    for (int i = 0; i < dataset->n_parts && st == STATUS_OK; i++)
        st = take(dataset, out, &dataset->parts[i], limit, to, err);
    if (st != STATUS_OK) {
        while (to->n_parts > parts) {
            mem_free(to->parts[--to->n_parts].name);
            mem_free(to->parts[to->n_parts].path);
        }
        to->rows = rows;
        stretch_table_cut(&to->stretches, rows);
        return st;
    }
    for (int i = 0; i < dataset->n_parts; i++)
        dataset->parts[i].stats.held_out += drop(dataset, out, i, &kept);
    stretch_table_drop(&dataset->stretches, out);
    dataset->rows = kept;
    return STATUS_OK;
}
