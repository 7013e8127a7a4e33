#include "launch/search_list.h"

#include <stdio.h>

#include "common/scalar.h"

const char *search_word(const struct search_option *option, char room[SEARCH_WORD_SIZE])
{
    if (option->window)
        snprintf(room, SEARCH_WORD_SIZE, "%d/%.4g", option->window, option->share);
    else
        snprintf(room, SEARCH_WORD_SIZE, "full/%.4g", option->share);
    return room;
}

/* The layer behind the last one from `first` on that does the same. */
static int end_of_range(const uint8_t *list, int layers, int first)
{
    int end = first + 1;
    while (end < layers && list[end] == list[first])
        end++;
    return end;
}

static void put_range(int first, int end, struct text *out)
{
    text_printf(out, "%d", first);
    if (end > first + 1)
        text_printf(out, "-%d", end - 1);
}

void search_list_put(const struct search_space *space, const uint8_t *list, int layers, struct text *out)
{
    for (int first = 0, end; first < layers; first = end) {
        char room[SEARCH_WORD_SIZE];
        end = end_of_range(list, layers, first);
        text_puts(out, first ? ", " : "");
        put_range(first, end, out);
        text_printf(out, " %s", search_word(&space->items[list[first]], room));
    }
}

void search_list_put_yaml(const struct search_space *space, const uint8_t *list, int layers, int sinks, struct text *out)
{
    text_puts(out, "loar:\n  layers:\n");
    for (int first = 0, end; first < layers; first = end) {
        const struct search_option *o = &space->items[list[first]];
        end = end_of_range(list, layers, first);
        text_puts(out, "    - {range: ");
        put_range(first, end, out);
        if (o->window)
            text_printf(out, ", window: %d, sinks: %d", o->window, sinks);
        if (o->share < 1) {
            text_puts(out, ", budget: ");
            scalar_put_real(out, o->share);
        }
        text_puts(out, o->window || o->share < 1 ? "}\n" : ", preset: dense}\n");
    }
}
