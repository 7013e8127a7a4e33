#include "launch/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIELDS = 6, FIELD_SIZE = 64, BAR_LEAST = 10, BAR_MOST = 40 };

static void put_left(char field[FIELD_SIZE], double seconds)
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(field, FIELD_SIZE, "ETA -");
        return;
    }
    long long s = llround(seconds);
    if (s >= 3600)
        snprintf(field, FIELD_SIZE, "ETA %lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(field, FIELD_SIZE, "ETA %02lld:%02lld", s / 60, s % 60);
}

static double share_of(const struct progress_facts *f)
{
    double share = f->total > 0 ? (double)f->step / (double)f->total : 0;
    return fmin(fmax(share, 0), 1);
}

static void put_bar(struct text *out, double share, int room)
{
    int filled = (int)(share * room + 1e-9);
    text_puts(out, "[");
    for (int i = 0; i < room; i++)
        text_puts(out, i < filled ? "#" : ".");
    text_puts(out, "] ");
}

void progress_put(struct text *out, const struct progress_facts *f, int columns)
{
    enum { PERCENT, BAR, STEP, LOSS, SPEED, LEFT };
    static const int order[] = {SPEED, PERCENT, LOSS, LEFT, STEP}; /* what goes first where room is short; the bar takes what is left */
    char fields[FIELDS][FIELD_SIZE] = {""};
    snprintf(fields[PERCENT], FIELD_SIZE, "%3.0f %%", floor(100 * share_of(f)));
    int digits = snprintf(fields[STEP], FIELD_SIZE, "%lld", (long long)f->total);
    snprintf(fields[STEP], FIELD_SIZE, "%*lld/%lld", digits, (long long)f->step, (long long)f->total);
    if (isfinite(f->loss))
        snprintf(fields[LOSS], FIELD_SIZE, "loss %.3f", f->loss);
    if (f->tokens_per_second > 0)
        snprintf(fields[SPEED], FIELD_SIZE, "%5.0f tok/s", f->tokens_per_second);
    put_left(fields[LEFT], f->left_s);
    int used = 0, dropped = 0;
    for (int i = 0; i < FIELDS; i++)
        used += *fields[i] ? (int)strlen(fields[i]) + 1 : 0;
    for (; used > columns && dropped < (int)(sizeof order / sizeof *order); dropped++)
        if (*fields[order[dropped]]) {
            used -= (int)strlen(fields[order[dropped]]) + 1;
            *fields[order[dropped]] = '\0';
        }
    int bar = columns - used - 3;
    size_t begin = out->size;
    for (int i = 0; i < FIELDS; i++) {
        if (i == BAR && bar >= BAR_LEAST)
            put_bar(out, share_of(f), bar < BAR_MOST ? bar : BAR_MOST);
        else if (*fields[i])
            text_printf(out, "%s ", fields[i]);
    }
    while (!out->failed && out->size > begin && out->data[out->size - 1] == ' ')
        out->data[--out->size] = '\0';
}
