#include "launch/merge.h"

#include "common/files.h"
#include "common/memory.h"
#include "launch/loar_folder.h"
#include "launch/source.h"
#include "worker/model/config_labels.h"

/* Files of the model's folder that go along, and its config.json. */
struct companions {
    struct text config;
    char *data[SOURCE_CARRIED];
    struct text routing;
    struct export_file files[SOURCE_CARRIED + 1];
    size_t count;
};

static enum status read_companion(const char *folder, const char *name, char **out, size_t *size, struct error *err)
{
    char *path = path_join(folder, name);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/%s'", folder, name);
    enum status st = file_exists(path) ? file_read(path, out, size, err) : STATUS_OK;
    mem_free(path);
    return st;
}

static enum status companions_read(const char *folder, const struct source *source, bool dense, struct companions *out, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    TRY(read_companion(folder, "config.json", &text, &size, err));
    enum status st = STATUS_OK;
    if (source->labels.count)
        st = config_labels_write(text, size, &source->config, &source->labels, &out->config, err);
    else
        text_append(&out->config, text, size);
    mem_free(text);
    TRY(st);
    if (out->config.failed)
        FAIL(err, STATUS_NOMEM, "no memory for config.json");
    for (int i = 0; i < SOURCE_CARRIED; i++) {
        size = 0;
        TRY(read_companion(folder, source_carried[i], &out->data[i], &size, err));
        if (out->data[i])
            out->files[out->count++] = (struct export_file){source_carried[i], out->data[i], size};
    }
    if (source->loar && !dense) {
        loar_folder_write(source->loar, &out->routing);
        if (out->routing.failed)
            FAIL(err, STATUS_NOMEM, "no memory for " MODEL_ROUTING_FILE);
        out->files[out->count++] = (struct export_file){MODEL_ROUTING_FILE, out->routing.data, out->routing.size};
    }
    return STATUS_OK;
}

static void companions_free(struct companions *c)
{
    for (int i = 0; i < SOURCE_CARRIED; i++)
        mem_free(c->data[i]);
    text_free(&c->config);
    text_free(&c->routing);
}

static enum status merge(struct source *source, const char *folder, const char *dir, const struct export_options *options, struct error *err)
{
    struct companions companions = {0};
    enum status st = companions_read(folder, source, options->dense, &companions, err);
    if (st == STATUS_OK)
        st = model_merge_adapters(&source->config, &source->table, source->values, err);
    if (st == STATUS_OK)
        st = model_export(dir, companions.config.data, companions.config.size, companions.files, companions.count, &source->table, source->values,
                          options, err);
    companions_free(&companions);
    return st;
}

enum status merge_adapter(const char *adapter, const char *base, const char *dir, const struct export_options *options, struct text *said,
                          struct error *err)
{
    struct threads *pool;
    struct source source;
    TRY(threads_create(1, &pool, err));
    enum status st = source_open(adapter, false, base, pool, &source, err);
    if (st == STATUS_OK) {
        const char *folder = base ? base : source.adapter.base;
        st = merge(&source, folder, dir, options, err);
        text_printf(said, "merged the adapters in '%s' into the model of '%s', in '%s'\n", adapter, folder, dir);
        source_close(&source);
    }
    threads_free(pool);
    return st;
}
