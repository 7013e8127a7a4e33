#include "launch/class_scores.h"

#include <math.h>

struct class_scores class_scores_of(const struct class_count *counts, int labels)
{
    struct class_scores out = {0};
    int64_t right = 0;
    int seen = 0;
    double sum = 0;
    for (int i = 0; i < labels; i++) {
        const struct class_count *c = &counts[i];
        out.rows += c->rows;
        right += c->right;
        if (c->rows + c->chosen == 0)
            continue;
        seen++;
        sum += 2.0 * (double)c->right / (double)(c->rows + c->chosen);
    }
    out.accuracy = out.rows ? (double)right / (double)out.rows : NAN;
    out.macro_f1 = seen ? sum / seen : NAN;
    return out;
}
