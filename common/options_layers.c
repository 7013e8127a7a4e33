/* loar.layers_file: a list of layers from a file of its own takes the place of loar.layers when options are loaded, so that
 * whoever reads, saves or compares options later knows the list alone.
 * Must not know: what a layer's entry means. */
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/options_read.h"

static const char wanted[] = "a layers file holds `loar: {layers: [...]}` alone";

/* Problems of the file carry its own lines; they join those of the run file. */
static void join_problems(struct option_reader *reader, const struct option_reader *inner)
{
    if (inner->problems.failed)
        reader->problems.failed = true;
    if (inner->problems.size)
        text_append(&reader->problems, inner->problems.data, inner->problems.size);
    reader->n_problems += inner->n_problems;
}

/* Reads the file as a run file of which one key may be there. */
static enum status read_list(struct option_reader *reader, const char *path, const char *text, size_t size, struct options *held,
                             struct error *err)
{
    const struct option_source *at = &reader->options->sources[OPTION_loar_layers_file];
    const char *key = option_name(OPTION_loar_layers_file);
    struct option_reader inner = {.options = held, .name = path};
    enum status st = option_read_file(&inner, text, size, err);
    for (int id = 0; st == STATUS_OK && id < OPTION_COUNT; id++)
        if (id != OPTION_loar_layers && held->sources[id].origin == ORIGIN_FILE)
            option_problem(&inner, &held->sources[id], option_name((enum option_id)id), "%s; this key belongs in the run file", wanted);
    if (st == STATUS_USAGE) {
        option_problem(reader, at, key, "%s", err->text);
        st = STATUS_OK;
    } else if (st == STATUS_OK && !inner.n_problems && !held->loar.layers.count) {
        option_problem(reader, at, key, "'%.200s' holds no loar.layers, or none that has an entry; %s", path, wanted);
    }
    join_problems(reader, &inner);
    text_free(&inner.problems);
    return st;
}

static enum status take_list(struct option_reader *reader, const char *text, size_t size, struct error *err)
{
    struct options *o = reader->options, held;
    int before = reader->n_problems;
    TRY(options_defaults(&held, err));
    enum status st = read_list(reader, o->loar.layers_file, text, size, &held, err);
    if (st == STATUS_OK && reader->n_problems == before) {
        o->loar.layers = held.loar.layers;
        held.loar.layers = (struct layer_list){0};
        o->sources[OPTION_loar_layers] = o->sources[OPTION_loar_layers_file];
        mem_free(o->loar.layers_file);
        o->loar.layers_file = NULL;
    }
    options_free(&held);
    return st;
}

enum status option_read_layers_file(struct option_reader *reader, struct error *err)
{
    struct options *o = reader->options;
    const struct option_source *at = &o->sources[OPTION_loar_layers_file];
    const char *key = option_name(OPTION_loar_layers_file), *path = o->loar.layers_file;
    if (!path || reader->bad[OPTION_loar_layers_file] || reader->bad[OPTION_loar_layers])
        return STATUS_OK;
    char *text = NULL;
    size_t size;
    enum status st = STATUS_OK;
    if (o->loar.layers.count) {
        option_problem(reader, at, key, "given together with loar.layers; keep one: the list itself, or the file that holds it");
    } else if ((st = file_read(path, &text, &size, err)) == STATUS_OK) {
        st = take_list(reader, text, size, err);
    } else if (st == STATUS_DATA || st == STATUS_IO) {
        option_problem(reader, at, key, "%s", err->text);
        st = STATUS_OK;
    }
    reader->bad[OPTION_loar_layers] = o->loar.layers_file != NULL; /* rules about layers would only add noise */
    mem_free(text);
    return st;
}
