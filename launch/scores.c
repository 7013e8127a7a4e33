#include "launch/scores.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/scalar.h"

struct class_scores class_scores_put(const struct counters *shape, const struct dataset_part *set, const int64_t *counts, size_t count,
                      struct report_extra *out)
{
    if (!set->classes_count || count != shape->count)
        return (struct class_scores){.accuracy = NAN, .macro_f1 = NAN};
    struct counters view = *shape;
    memcpy(&view.items, &counts, sizeof view.items);
    struct class_scores s = class_scores_of(counters_classes(&view) + set->classes_first, set->classes_count);
    char key[256];
    snprintf(key, sizeof key, "eval_%.150s_f1", set->name);
    text_puts(&out->json, out->json.size ? ", " : "");
    text_json_string(&out->json, key, strlen(key));
    text_puts(&out->json, ": ");
    scalar_put_json(&out->json, s.macro_f1);
    text_printf(&out->words, " macro F1 %.4f over %d labels", s.macro_f1, set->classes_count);
    return s;
}
