#include "launch/search_costs.h"

#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/scalar.h"
#include "common/yaml.h"

void search_costs_put(const struct search_space *space, const double *cost, struct text *out)
{
    text_puts(out, "# Milliseconds of a layer's attention in a batch, forward and backward; window 0: all keys.\ncosts:\n");
    for (int o = 0; o < space->count; o++) {
        text_printf(out, "  - {window: %d, budget: ", space->items[o].window);
        scalar_put_real(out, space->items[o].share);
        text_puts(out, ", ms: ");
        scalar_put_real(out, cost[o]);
        text_puts(out, "}\n");
    }
}

struct entry {
    int64_t window;
    double budget, ms;
};

static enum status read_entry(const char *path, const struct yaml *node, struct entry *out, struct error *err)
{
    static const char wanted[] = "an entry such as {window: 256, budget: 0.5, ms: 3.25}";
    bool known[3] = {false};
    if (yaml_kind(node) != YAML_KIND_MAP)
        FAIL(err, STATUS_USAGE, "%s:%d:%d: found a %s, wanted %s", path, yaml_line(node), yaml_column(node),
             yaml_kind_name(yaml_kind(node)), wanted);
    for (const struct yaml *e = yaml_first(node); e; e = yaml_next(e)) {
        const char *key = yaml_text(yaml_key(e)), *text = yaml_kind(e) == YAML_KIND_SCALAR ? yaml_text(e) : "";
        bool good = true;
        if (!strcmp(key, "window"))
            good = known[0] = scalar_to_int(text, &out->window) && out->window >= 0;
        else if (!strcmp(key, "budget"))
            good = known[1] = scalar_to_real(text, &out->budget) && out->budget > 0 && out->budget <= 1;
        else if (!strcmp(key, "ms"))
            good = known[2] = scalar_to_real(text, &out->ms) && out->ms > 0;
        else
            FAIL(err, STATUS_USAGE, "%s:%d:%d: unknown key '%.60s'; wanted %s", path, yaml_line(yaml_key(e)), yaml_column(yaml_key(e)),
                 key, wanted);
        if (!good)
            FAIL(err, STATUS_USAGE, "%s:%d:%d: %s: found '%.60s'; wanted %s, with ms above 0", path, yaml_line(e), yaml_column(e), key,
                 text, wanted);
    }
    if (!known[0] || !known[1] || !known[2])
        FAIL(err, STATUS_USAGE, "%s:%d:%d: %s is missing; wanted %s", path, yaml_line(node), yaml_column(node),
             !known[0] ? "window" : !known[1] ? "budget" : "ms", wanted);
    return STATUS_OK;
}

static enum status read_entries(const char *path, const struct yaml *root, const struct search_space *space, double *cost,
                                struct error *err)
{
    const struct yaml *list = root && yaml_kind(root) == YAML_KIND_MAP && yaml_count(root) == 1 ? yaml_first(root) : NULL;
    if (!list || strcmp(yaml_text(yaml_key(list)), "costs") || yaml_kind(list) != YAML_KIND_LIST)
        FAIL(err, STATUS_USAGE, "%s: wanted the key `costs` alone, with a list of entries such as {window: 256, budget: 0.5, ms: 3.25}",
             path);
    for (int o = 0; o < space->count; o++)
        cost[o] = 0;
    for (const struct yaml *e = yaml_first(list); e; e = yaml_next(e)) {
        struct entry entry;
        TRY(read_entry(path, e, &entry, err));
        for (int o = 0; o < space->count; o++) {
            if (space->items[o].window != entry.window || space->items[o].share != entry.budget)
                continue;
            if (cost[o] > 0)
                FAIL(err, STATUS_USAGE, "%s:%d:%d: window %lld with budget %g is given twice; keep one", path, yaml_line(e),
                     yaml_column(e), (long long)entry.window, entry.budget);
            cost[o] = entry.ms;
        }
    }
    for (int o = 0; o < space->count; o++)
        if (cost[o] == 0)
            FAIL(err, STATUS_USAGE, "%s: window %d with budget %g is missing; add it, or name other --windows and --shares", path,
                 space->items[o].window, space->items[o].share);
    return STATUS_OK;
}

enum status search_costs_read(const char *path, const struct search_space *space, double *cost, struct error *err)
{
    char *text = NULL;
    size_t size;
    struct yaml_document *document;
    enum status st = file_read(path, &text, &size, err);
    if (st == STATUS_OK)
        st = yaml_parse(text, size, path, &document, err);
    mem_free(text);
    if (st != STATUS_OK)
        return st == STATUS_DATA ? STATUS_USAGE : st; /* a wrong name or text, typed by hand */
    st = read_entries(path, yaml_root(document), space, cost, err);
    yaml_close(document);
    return st;
}
