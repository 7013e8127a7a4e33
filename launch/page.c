#include "launch/page.h"

#include <string.h>

#include "common/memory.h"
#include "launch/svg.h"

/* ---- evaluation sets ---- */

static bool ends_in(const char *text, size_t size, const char *end)
{
    size_t length = strlen(end);
    return size >= length && !memcmp(text + size - length, end, length);
}

static bool add_set(struct page_sets *sets, const char *name, size_t size)
{
    for (int i = 0; i < sets->count; i++)
        if (strlen(sets->names[i]) == size && !memcmp(sets->names[i], name, size))
            return true;
    if (sets->count == PAGE_SETS_MAX || !size)
        return true;
    char *copy = mem_strndup(name, size);
    if (copy)
        sets->names[sets->count++] = copy;
    return copy != NULL;
}

bool page_sets_find(const struct history *h, struct page_sets *out)
{
    const struct json *data = json_member(history_newest(h, HISTORY_PLAN), "data");
    *out = (struct page_sets){0};
    for (size_t i = 0; i < json_count(data); i++) {
        const struct json *set = json_at(data, i), *evaluation = json_member(set, "evaluation");
        const char *name = history_text(set, "name");
        if (json_kind(evaluation) == JSON_KIND_BOOL && json_to_bool(evaluation) && !add_set(out, name, strlen(name)))
            return false;
    }
    /* Of runs without a plan, or of a plan that had other sets: eval_<set>_loss, but not eval_thought_loss. */
    for (int i = 0; i < h->n_series; i++) {
        const char *key = h->series[i].key, *metric;
        size_t size = strlen(key);
        if (strncmp(key, "eval_", 5) || size <= 10 || !ends_in(key, size, "_loss") || page_sets_of(out, key, &metric) >= 0)
            continue;
        if (!ends_in(key + 5, size - 10, "thought") && !ends_in(key + 5, size - 10, "answer") && !add_set(out, key + 5, size - 10))
            return false;
    }
    return true;
}

void page_sets_free(struct page_sets *sets)
{
    for (int i = 0; i < sets->count; i++)
        mem_free(sets->names[i]);
    *sets = (struct page_sets){0};
}

int page_sets_of(const struct page_sets *sets, const char *key, const char **metric)
{
    int best = -1;
    size_t longest = 0;
    if (strncmp(key, "eval_", 5))
        return -1;
    for (int i = 0; i < sets->count; i++) {
        size_t size = strlen(sets->names[i]);
        if (size > longest && !strncmp(key + 5, sets->names[i], size) && key[5 + size] == '_' && key[6 + size]) {
            best = i;
            longest = size;
            *metric = key + 6 + size;
        }
    }
    return best;
}

/* ---- the page ---- */

/* A text of many lines, closed at first where it is long. */
static void put_file(struct text *out, const char *title, const char *content)
{
    if (!*content)
        return;
    text_printf(out, "<details><summary>%s</summary><pre class=\"scroll\">", title);
    svg_puts(out, content);
    text_puts(out, "</pre></details>\n");
}

static void put_files(struct text *out, const struct history *h)
{
    const struct json *plan = history_newest(h, HISTORY_PLAN);
    if (!*history_text(plan, "run_file") && !*history_text(plan, "options"))
        return;
    text_puts(out, "<section><h2>Run file and options</h2>\n");
    put_file(out, "Run file, as it was when the run began", history_text(plan, "run_file"));
    put_file(out, "All options as they were resolved", history_text(plan, "options"));
    text_puts(out, "</section>\n");
}

enum status page_put(const struct page_request *request, struct text *out, struct error *err)
{
    const struct history *h = request->history;
    struct page_sets sets;
    bool found = page_sets_find(h, &sets);
    text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                   "<meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n");
    text_printf(out, "<style>\n%s</style>\n", page_style);
    page_put_head(out, request);
    page_put_plan(out, request);
    page_put_losses(out, h, &sets);
    page_put_evaluation(out, h, &sets);
    page_put_scores(out, h, &sets);
    page_put_samples(out, h);
    page_put_routing(out, h);
    page_put_optimisation(out, h);
    page_put_ranks(out, h);
    page_put_warnings(out, h);
    put_files(out, h);
    text_printf(out, "<footer>LoAR %s</footer>\n</main>\n</body>\n</html>\n", LOAR_VERSION);
    page_sets_free(&sets);
    if (!found || out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for the page of '%s'", request->folder);
    return STATUS_OK;
}
