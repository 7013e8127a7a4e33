#include "worker/data/row_names.h"

#include "common/memory.h"

enum { NAMES_MAX = 12 };

/* `number`: how many of them came before. */
static void put_row(const struct dataset *dataset, int64_t row, int64_t number, struct text *out)
{
    const struct dataset_part *part = &dataset->parts[dataset_part_of(dataset, row)];
    if (number < NAMES_MAX)
        text_printf(out, "%s%s:%lld", number ? ", " : "", part->path, (long long)dataset->lines[row]);
}

static void put_more(int64_t count, struct text *out)
{
    if (count > NAMES_MAX)
        text_printf(out, " and %lld more", (long long)(count - NAMES_MAX));
}

void row_names_of_slot(const struct dataset *dataset, struct order *order, int64_t step, int slot, struct text *out)
{
    uint32_t *rows = mem_alloc((size_t)order->slot_rows, sizeof *rows);
    int count = rows ? order_slot(order, step, slot, rows) : 0;
    for (int i = 0; i < count; i++)
        put_row(dataset, rows[i], i, out);
    put_more(count, out);
    mem_free(rows);
}

void row_names_of_batch(const struct dataset *dataset, const struct dataset_part *part, int batch_rows, int64_t index, struct text *out)
{
    int64_t first = index * batch_rows, count = part->stats.kept - first < batch_rows ? part->stats.kept - first : batch_rows;
    for (int64_t i = 0; i < count; i++)
        put_row(dataset, part->first_row + first + i, i, out);
    put_more(count, out);
}
