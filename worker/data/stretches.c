#include "worker/data/stretches.h"

#include <string.h>

#include "common/memory.h"

enum status stretch_table_add(struct stretch_table *t, int64_t row, const struct stretch *stretches, int count,
                              struct error *err)
{
    if (!count)
        return STATUS_OK;
    if (t->n_items + count > t->item_capacity) {
        int64_t capacity = (t->n_items + count) * 2;
        struct stretch *grown = mem_realloc(t->items, (size_t)capacity, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for the loss weights of turns");
        t->items = grown;
        t->item_capacity = capacity;
    }
    if (t->n_places == t->place_capacity) {
        int64_t capacity = t->n_places ? t->n_places * 2 : 16;
        struct stretch_place *grown = mem_realloc(t->places, (size_t)capacity, sizeof *grown);
        if (!grown)
            FAIL(err, STATUS_NOMEM, "no memory for the loss weights of turns");
        t->places = grown;
        t->place_capacity = capacity;
    }
    memcpy(t->items + t->n_items, stretches, (size_t)count * sizeof *stretches);
    t->places[t->n_places++] = (struct stretch_place){row, t->n_items, count};
    t->n_items += count;
    return STATUS_OK;
}

/* Number of the first place at or behind the row. */
static int64_t lower_bound(const struct stretch_table *t, int64_t row)
{
    int64_t low = 0, high = t->n_places;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (t->places[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void stretch_table_find(const struct stretch_table *t, int64_t row, struct row *out)
{
    int64_t at = lower_bound(t, row);
    bool found = at < t->n_places && t->places[at].row == row;
    out->stretches = found ? t->items + t->places[at].first : NULL;
    out->n_stretches = found ? t->places[at].count : 0;
}

void stretch_table_drop(struct stretch_table *t, const bool *out)
{
    int64_t kept = 0, row = 0, dropped = 0;
    for (int64_t at = 0; at < t->n_places; at++) {
        struct stretch_place place = t->places[at];
        for (; row < place.row; row++)
            dropped += out[row];
        if (out[place.row])
            continue; /* its items stay where they are, unused */
        place.row -= dropped;
        t->places[kept++] = place;
    }
    t->n_places = kept;
}

void stretch_table_cut(struct stretch_table *t, int64_t rows)
{
    int64_t at = lower_bound(t, rows);
    if (at < t->n_places)
        t->n_items = t->places[at].first;
    t->n_places = at;
}

void stretch_table_free(struct stretch_table *t)
{
    mem_free(t->items);
    mem_free(t->places);
    *t = (struct stretch_table){0};
}
