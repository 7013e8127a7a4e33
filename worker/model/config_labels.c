#include "worker/model/config_labels.h"

#include <stdio.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "worker/model/config.h"

static enum status add_names(struct labels *out, const char *task, const struct json *names, const char *where, struct error *err)
{
    int count = (int)json_count(names);
    char **list = mem_alloc((size_t)count, sizeof *list);
    enum status st = list ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for the labels of '%s'", where);
    for (int i = 0; i < count && st == STATUS_OK; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const struct json *name = json_kind(names) == JSON_KIND_ARRAY ? json_at(names, (size_t)i) : json_member(names, number);
        list[i] = (char *)(uintptr_t)json_to_string(name, NULL);
        if (!list[i])
            st = error_set(err, STATUS_DATA, "%s: the labels of task '%s' must be texts for 0 to %d, but %d is missing or none", where, task,
                           count - 1, i);
    }
    if (st == STATUS_OK && labels_add(out, task, list, count, true, err) != STATUS_OK) {
        st = err && err->code == STATUS_NOMEM ? STATUS_NOMEM : STATUS_DATA;
        if (err)
            err->code = st;
        error_prefix(err, "%s", where);
    }
    mem_free(list);
    return st;
}

static enum status read_tasks(const struct json *tasks, const char *where, struct labels *out, struct error *err)
{
    if (json_kind(tasks) != JSON_KIND_ARRAY)
        FAIL(err, STATUS_DATA, "%s: 'classification_tasks' must be a list, found %s", where, json_kind_name(json_kind(tasks)));
    for (size_t i = 0; i < json_count(tasks); i++) {
        const struct json *names = json_member(json_at(tasks, i), "labels");
        const char *task = json_to_string(json_member(json_at(tasks, i), "task"), NULL);
        if (!task || json_kind(names) != JSON_KIND_ARRAY)
            FAIL(err, STATUS_DATA, "%s: 'classification_tasks' entry %zu must have a 'task' and a list of 'labels'", where, i);
        if (labels_find(out, task))
            FAIL(err, STATUS_DATA, "%s: 'classification_tasks' names the task '%s' twice", where, task);
        TRY(add_names(out, task, names, where, err));
    }
    return STATUS_OK;
}

enum status config_labels_read(const struct json *config, bool classifies, const char *where, struct labels *out, struct error *err)
{
    const struct json *tasks = json_member(config, "classification_tasks"), *names = json_member(config, "id2label");
    int64_t count = 2;
    if (json_kind(tasks) != JSON_KIND_NULL)
        return read_tasks(tasks, where, out, err);
    if (!classifies)
        return STATUS_OK;
    if (json_kind(names) == JSON_KIND_OBJECT)
        return add_names(out, "", names, where, err);
    TRY(json_get_int(config, "num_labels", where, &count, err));
    if (count < 2 || count > LABELS_MOST)
        FAIL(err, STATUS_DATA, "%s: 'num_labels' is %lld, allowed are 2 to %d", where, (long long)count, LABELS_MOST);
    return labels_add_numbers(out, "", count, err);
}

static bool classifies(const struct json *config)
{
    const char *architecture = json_to_string(json_at(json_member(config, "architectures"), 0), NULL);
    return architecture && model_architecture_classifies(architecture);
}

enum status config_labels_parse(const char *text, size_t size, const char *where, struct labels *out, struct error *err)
{
    struct json *config;
    TRY(json_parse(text, size, where, &config, err));
    enum status st = config_labels_read(config, classifies(config), where, out, err);
    json_free(config);
    return st;
}

/* *only: whether the architecture is one for classification. */
static enum status read_file(const char *path, bool *only, struct labels *out, struct error *err)
{
    struct json *config;
    TRY(json_read_file(path, &config, err));
    *only = classifies(config);
    enum status st = config_labels_read(config, *only, path, out, err);
    json_free(config);
    return st;
}

enum status config_labels_of_folder(const char *dir, struct labels *out, struct error *err)
{
    char *path = path_join(dir, "config.json");
    bool only;
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/config.json'", dir);
    enum status st = read_file(path, &only, out, err);
    mem_free(path);
    return st;
}

static enum status read_adapter(const char *path, struct model_config *config, struct labels *labels, struct error *err)
{
    labels_free(labels);
    enum status st = read_file(path, &config->classifies_only, labels, err);
    if (st == STATUS_OK && !labels->count)
        st = error_set(err, STATUS_DATA, "%s: names no labels; wanted 'classification_tasks', a list of a 'task' and its 'labels'", path);
    config->labels = labels->total;
    return st;
}

enum status config_labels_of_adapter(const char *dir, struct model_config *config, struct labels *labels, struct error *err)
{
    char *path = path_join(dir, ADAPTER_LABELS_FILE);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for the path of '%s/" ADAPTER_LABELS_FILE "'", dir);
    enum status st = file_exists(path) ? read_adapter(path, config, labels, err) : STATUS_OK;
    mem_free(path);
    return st;
}

static void put_value(const struct json *value, struct text *out)
{
    size_t size;
    const char *string = json_to_string(value, &size);
    const char *comma = "";
    switch (json_kind(value)) {
    case JSON_KIND_NULL: text_puts(out, "null"); return;
    case JSON_KIND_BOOL: text_puts(out, json_to_bool(value) ? "true" : "false"); return;
    case JSON_KIND_INT: text_printf(out, "%lld", (long long)json_to_int(value)); return;
    case JSON_KIND_REAL: model_config_real(out, json_to_real(value), false); return;
    case JSON_KIND_STRING: text_json_string(out, string, size); return;
    case JSON_KIND_ARRAY:
        text_puts(out, "[");
        for (size_t i = 0; i < json_count(value); i++, comma = ", ") {
            text_puts(out, comma);
            put_value(json_at(value, i), out);
        }
        text_puts(out, "]");
        return;
    case JSON_KIND_OBJECT:
        text_puts(out, "{");
        for (const void *it = json_first(value); it; it = json_next(value, it), comma = ", ") {
            const char *key = json_it_key(it, &size);
            text_puts(out, comma);
            text_json_string(out, key, size);
            text_puts(out, ": ");
            put_value(json_it_value(it), out);
        }
        text_puts(out, "}");
    }
}

static void put_string(struct text *out, const char *string)
{
    text_json_string(out, string, strlen(string));
}

/* As id2label has it. */
static void put_label(const struct labels *labels, const struct label_set *set, int place, struct text *out)
{
    struct text name = {0};
    if (labels->count > 1)
        text_printf(&name, "%s/", set->task);
    text_puts(&name, set->names[place]);
    put_string(out, name.failed ? "" : name.data);
    out->failed = out->failed || name.failed;
    text_free(&name);
}

/* id2label, or label2id. */
static void put_map(const struct labels *labels, bool by_name, struct text *out)
{
    text_puts(out, by_name ? ",\n  \"label2id\": {" : ",\n  \"id2label\": {");
    for (int s = 0; s < labels->count; s++)
        for (int i = 0; i < labels->sets[s].count; i++) {
            int id = labels->sets[s].first + i;
            text_puts(out, id ? ", " : "");
            if (!by_name)
                text_printf(out, "\"%d\": ", id);
            put_label(labels, &labels->sets[s], i, out);
            if (by_name)
                text_printf(out, ": %d", id);
        }
    text_puts(out, "}");
}

static void put_tasks(const struct labels *labels, struct text *out)
{
    text_puts(out, ",\n  \"classification_tasks\": [");
    for (int s = 0; s < labels->count; s++) {
        text_puts(out, s ? ", {\"task\": " : "{\"task\": ");
        put_string(out, labels->sets[s].task);
        text_puts(out, ", \"labels\": [");
        for (int i = 0; i < labels->sets[s].count; i++) {
            text_puts(out, i ? ", " : "");
            put_string(out, labels->sets[s].names[i]);
        }
        text_puts(out, "]}");
    }
    text_puts(out, "]");
}

static bool is_ours(const char *key)
{
    static const char *const keys[] = {"architectures", "num_labels", "id2label", "label2id", "problem_type", "classification_tasks"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

static void write(const struct json *object, const struct model_config *config, const struct labels *labels, struct text *out)
{
    text_printf(out, "{\n  \"architectures\": [\"%s\"]", model_architecture(config));
    for (const void *it = json_first(object); it; it = json_next(object, it)) {
        size_t size;
        const char *key = json_it_key(it, &size);
        if (is_ours(key))
            continue;
        text_puts(out, ",\n  ");
        text_json_string(out, key, size);
        text_puts(out, ": ");
        put_value(json_it_value(it), out);
    }
    if (labels->count) {
        text_printf(out, ",\n  \"num_labels\": %d", labels->total);
        put_map(labels, false, out);
        put_map(labels, true, out);
        text_puts(out, ",\n  \"problem_type\": \"single_label_classification\"");
        put_tasks(labels, out);
    }
    text_puts(out, "\n}\n");
}

enum status config_labels_write(const char *text, size_t size, const struct model_config *config, const struct labels *labels,
                                struct text *out, struct error *err)
{
    struct json *object;
    TRY(json_parse(text, size, "config.json", &object, err));
    write(object, config, labels, out);
    json_free(object);
    if (out->failed)
        FAIL(err, STATUS_NOMEM, "no memory for config.json with %d labels", labels->total);
    return STATUS_OK;
}
