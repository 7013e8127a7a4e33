#include "launch/saver.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "launch/source.h"
#include "worker/model/export.h"

enum { TEXTS = 4 };

struct saver {
    const struct run *run;
    struct shard *shard;
    struct shadow *shadow;
    struct writer *writer;
    struct server *server;
    const char *optimizer;
    struct snapshot_text files[SOURCE_CARRIED + 3];
    int n_files;
    char *contents[SOURCE_CARRIED];
    char *options_text;
    char *base; /* folder of the frozen tensors; NULL: none */
    bool open; /* a round was begun and not yet handed to the writer */
    struct snapshot_meta meta;
    struct text history;
};

static enum status carry_files(struct saver *s, struct error *err)
{
    s->files[s->n_files++] = (struct snapshot_text){"config.json", s->run->config_json.data, s->run->config_json.size};
    if (s->run->loar)
        s->files[s->n_files++] = (struct snapshot_text){MODEL_ROUTING_FILE, s->run->loar_json.data, s->run->loar_json.size};
    s->files[s->n_files++] = (struct snapshot_text){RUN_TEMPLATE_FILE, s->run->template_text.data, s->run->template_text.size};
    for (int i = 0; i < SOURCE_CARRIED; i++) {
        char *path = path_join(run_tokenizer_path(s->run->options), source_carried[i]);
        if (!path)
            FAIL(err, STATUS_NOMEM, "no memory for the path of '%s'", source_carried[i]);
        enum status st = STATUS_OK;
        size_t size;
        if (file_exists(path) && (st = file_read(path, &s->contents[i], &size, err)) == STATUS_OK)
            s->files[s->n_files++] = (struct snapshot_text){source_carried[i], s->contents[i], size};
        mem_free(path);
        TRY(st);
    }
    return STATUS_OK;
}

/* In full, for later commands may be given elsewhere. */
static enum status name_base(struct saver *s, struct error *err)
{
    char room[PATH_MAX];
    const char *given = s->run->options->model_name_or_path, *whole = realpath(given, room);
    if (!(s->base = mem_strdup(whole ? whole : given)))
        FAIL(err, STATUS_NOMEM, "no memory for the path '%s'", given);
    return STATUS_OK;
}

enum status saver_create(const struct run *run, struct shard *shard, const char *optimizer, const char *options_text,
                         struct saver **out, struct error *err)
{
    struct saver *s = mem_alloc(1, sizeof *s);
    char *dir = path_join(run->options->output_dir, "snapshots");
    enum status st = STATUS_OK;
    if (!s || !dir)
        st = error_set(err, STATUS_NOMEM, "no memory for the snapshots' writer");
    if (st == STATUS_OK) {
        *s = (struct saver){.run = run, .shard = shard, .optimizer = optimizer, .options_text = mem_strdup(options_text)};
        st = s->options_text ? carry_files(s, err) : error_set(err, STATUS_NOMEM, "no memory for the options' text");
        if (st == STATUS_OK && run->table.frozen)
            st = name_base(s, err);
    }
    if (st == STATUS_OK)
        st = shadow_create(&shard->chunks, shard->n_states, &s->shadow, err);
    if (st == STATUS_OK) {
        struct retention retention = {.save_total_limit = (int)run->options->save_total_limit};
        st = writer_create(dir, &retention, &s->writer, err);
    }
    mem_free(dir);
    if (st != STATUS_OK) {
        saver_free(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void saver_free(struct saver *s)
{
    if (!s)
        return;
    if (s->writer)
        writer_free(s->writer);
    shadow_free(s->shadow);
    for (int i = 0; i < SOURCE_CARRIED; i++)
        mem_free(s->contents[i]);
    mem_free(s->options_text);
    mem_free(s->base);
    text_free(&s->history);
    mem_free(s);
}

/* Hands a complete shadow to the writer. */
static void submit(struct saver *s)
{
    struct error err;
    struct snapshot_text texts[TEXTS] = {
        {"config", s->run->all->text, s->run->all->text_size},
        {"options", s->options_text, strlen(s->options_text)},
        {"history", s->history.data ? s->history.data : "", s->history.size},
        {"base", s->base, s->base ? strlen(s->base) : 0}, /* the last, for it may be left out */
    };
    struct snapshot_view view = {
        .table = &s->run->table,
        .values = shadow_values(s->shadow),
        .n_states = s->shard->n_states,
        .meta = s->meta,
        .texts = texts,
        .n_texts = TEXTS - !s->base,
        .files = s->files,
        .n_files = s->n_files,
    };
    for (int i = 0; i < s->shard->n_states; i++)
        view.states[i] = (struct snapshot_state){s->shard->state_names[i], shadow_state(s->shadow, i)};
    s->open = false;
    if (writer_submit(s->writer, &view, &err) != STATUS_OK)
        log_error("the snapshot of step %lld cannot be written: %s", (long long)s->meta.step, err.text);
}

static void before_change(void *context, int chunk)
{
    struct saver *s = context;
    if (s->open)
        shadow_copy_chunk(s->shadow, chunk);
}

static bool while_idle(void *context)
{
    struct saver *s = context;
    if (!s->open)
        return false;
    bool more = shadow_copy_next(s->shadow);
    if (shadow_complete(s->shadow))
        submit(s);
    return more;
}

void saver_attach(struct saver *s, struct server *server)
{
    s->server = server;
    server_before_update(server, before_change, s);
    server_on_idle(server, while_idle, s);
}

enum status saver_begin(struct saver *s, const struct snapshot_meta *meta, const struct text *history, struct error *err)
{
    saver_finish(s);
    s->meta = *meta;
    snprintf(s->meta.optimizer, sizeof s->meta.optimizer, "%s", s->optimizer);
    text_clear(&s->history);
    if (history->size)
        text_append(&s->history, history->data, history->size);
    if (s->history.failed)
        FAIL(err, STATUS_NOMEM, "no memory to keep the run's history in a snapshot");
    shadow_begin(s->shadow, s->shard->parameters, (const float *const *)s->shard->states);
    s->open = true;
    return STATUS_OK;
}

void saver_poll(struct saver *s, saver_done_fn *done, void *context)
{
    struct writer_result result;
    if (s->open && shadow_complete(s->shadow))
        submit(s);
    if (writer_poll(s->writer, &result))
        done(context, &result);
}

void saver_finish(struct saver *s)
{
    if (s->open) {
        shadow_copy_rest(s->shadow);
        submit(s);
    }
    writer_wait(s->writer);
}
