#include "launch/row_notes.h"

#include <inttypes.h>

#include "worker/data/template.h"

/* A model that thinks unlearns it from rows without thoughts. */
static void few_thoughts(const struct dataset *train, const struct chat_template *t, struct text *notes)
{
    int64_t rows = 0, thoughts = 0;
    for (int i = 0; i < train->n_parts; i++) {
        rows += train->parts[i].stats.kept;
        thoughts += train->parts[i].stats.thoughts;
    }
    if (template_expects_thoughts(t) && 2 * thoughts < rows)
        text_printf(notes, "only %" PRId64 " of %" PRId64 " rows have a thought that is learnt, but chat_template '%s' is for models that think: "
                    "trained so, they lose it; use rows with thoughts, or ignore_empty_thought with enable_thinking: true\n",
                    thoughts, rows, template_name(t));
}

void row_notes(const struct dataset *train, const struct chat_template *t, struct text *notes)
{
    char hash[TEMPLATE_HASH_SIZE];
    if (template_is_declared(t) && template_hash(t, hash, NULL) == STATUS_OK)
        text_printf(notes, "chat template '%s' is declared by a file; its text, %s, is kept in snapshots\n", template_name(t), hash);
    few_thoughts(train, t, notes);
}
