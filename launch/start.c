#include "launch/start.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "launch/flags.h"
#include "launch/sift.h"
#include "launch/run_labels.h"
#include "launch/row_notes.h"
#include "launch/source.h"
#include "launch/warnings.h"
#include "ps/server.h"
#include "worker/model/export.h"

static bool wants_resume(const struct options *o)
{
    return o->resume_from_checkpoint && strcmp(o->resume_from_checkpoint, "false");
}

/* The snapshot to go on from; NULL when there is none yet, which a supervised run may meet after an early death. */
static enum status find_snapshot(const struct options *o, struct snapshot **out, struct text *notes, struct error *err)
{
    *out = NULL;
    if (!wants_resume(o))
        return STATUS_OK;
    if (strcmp(o->resume_from_checkpoint, "true"))
        return snapshot_open(o->resume_from_checkpoint, out, err);
    char *dir = path_join(o->output_dir, "snapshots");
    int64_t *steps = NULL;
    int count = 0;
    enum status st = dir ? snapshot_list(dir, &steps, &count, err) : error_set(err, STATUS_NOMEM, "no memory for a path");
    if (st == STATUS_OK && count > 0)
        st = snapshot_open_latest(dir, out, notes, err);
    else if (st == STATUS_OK)
        text_printf(notes, "nothing to resume in '%s' yet: starting from the beginning\n", dir);
    mem_free(steps);
    mem_free(dir);
    return st;
}

/* Only what a run itself makes: its snapshots, their `latest` and the metrics. */
static enum status remove_earlier_run(const char *folder, struct error *err)
{
    int64_t *steps = NULL;
    int count = 0;
    struct text path = {0};
    text_printf(&path, "%s/snapshots", folder);
    if (path.failed)
        FAIL(err, STATUS_NOMEM, "no memory for a path");
    enum status st = snapshot_list(path.data, &steps, &count, err);
    for (int i = -3; st == STATUS_OK && i < count; i++) {
        char name[SNAPSHOT_STRING_SIZE] = "latest";
        if (i == -3)
            snprintf(name, sizeof name, "best");
        if (i >= 0)
            snapshot_file_name(steps[i], name);
        text_clear(&path);
        if (i == -2)
            text_printf(&path, "%s/metrics.jsonl", folder);
        else
            text_printf(&path, "%s/snapshots/%s", folder, name);
        if (unlink(path.data) && errno != ENOENT)
            st = error_set(err, STATUS_IO, "cannot remove '%s': %s", path.data, strerror(errno));
    }
    mem_free(steps);
    text_free(&path);
    return st;
}

/* A new run must not write over an old one. */
static enum status check_folder(const struct options *o, struct error *err)
{
    if (wants_resume(o) || o->overwrite_output_dir || folder_is_empty(o->output_dir))
        return STATUS_OK;
    FAIL(err, STATUS_USAGE,
         "output_dir: '%s' is not empty; go on from it with --resume_from_checkpoint true, start over with "
         "--overwrite_output_dir, or name another folder",
         o->output_dir);
}

static enum status claim_folder(const struct options *o, struct error *err)
{
    if (!wants_resume(o) && !folder_is_empty(o->output_dir))
        TRY(remove_earlier_run(o->output_dir, err));
    return folder_make(o->output_dir, err);
}

/* A template's file may be gone; the snapshot has what was in it. */
static enum status adopt_template(struct options *o, const char *saved, size_t size, struct error *err)
{
    struct options earlier;
    if (!path_is_yaml(o->chat_template) || o->chat_template_text)
        return STATUS_OK;
    TRY(options_parse_text(saved, size, "the snapshot's options", 0, NULL, &earlier, NULL, err));
    enum status st = STATUS_OK;
    if (earlier.chat_template_text)
        st = options_set(o, "chat_template_text", earlier.chat_template_text, err);
    options_free(&earlier);
    return st;
}

static enum status take_over(struct start *s, struct options *o, const struct snapshot *snapshot, struct error *err)
{
    char *saved = NULL;
    size_t size;
    s->meta = *snapshot_meta(snapshot);
    s->resumed_from = mem_strdup(snapshot_path(snapshot));
    if (!s->resumed_from)
        FAIL(err, STATUS_NOMEM, "no memory for a path");
    if (o->ps.slots == 0)
        o->ps.slots = s->meta.slots;
    TRY(snapshot_text(snapshot, "options", &saved, &size, err));
    enum status st = adopt_template(o, saved, size, err);
    if (st == STATUS_OK)
        st = options_check_resume(o, saved, size, &s->notes, err);
    mem_free(saved);
    if (st != STATUS_OK) {
        error_prefix(err, "cannot resume from '%s'", s->resumed_from);
        return st;
    }
    return snapshot_text(snapshot, "history", &s->history, &s->history_size, err);
}

static enum status make_optimizer(struct start *s, const struct options *o, struct error *err)
{
    struct optimizer_options settings = stage_optimizer_options(s->stages[s->meta.stage].run->options);
    TRY(optimizer_create(o->optim, &settings, &s->run.table, &s->run.chunks, &s->optimizer, err));
    return shard_create(&s->run.chunks, optimizer_n_states(s->optimizer), optimizer_state_names(s->optimizer), &s->shard, err);
}

/* What is frozen must be what the snapshot's tensors were trained beside. */
static enum status check_base(struct start *s, const struct options *o, const struct snapshot *snapshot, struct error *err)
{
    struct import_report report;
    if (!s->run.table.frozen)
        return STATUS_OK;
    TRY(run_import(&s->run, false, s->shard->parameters, &report, err));
    return source_check_base(snapshot, o->model_name_or_path, report.frozen_digest, "model_name_or_path", err);
}

static enum status fill_parameters(struct start *s, const struct options *o, const struct snapshot *snapshot, struct error *err)
{
    if (snapshot) {
        TRY(check_base(s, o, snapshot, err));
        struct snapshot_target targets[SNAPSHOT_MAX_STATES];
        for (int i = 0; i < s->shard->n_states; i++)
            targets[i] = (struct snapshot_target){s->shard->state_names[i], s->shard->states[i]};
        return snapshot_load(snapshot, &s->run.table, s->shard->parameters, s->shard->n_states, targets, err);
    }
    if (o->model_config) {
        params_initialise(&s->run.table, (uint64_t)o->seed, s->shard->parameters);
        return STATUS_OK;
    }
    struct import_report report;
    TRY(run_import(&s->run, false, s->shard->parameters, &report, err));
    if (report.new_routers)
        text_printf(&s->notes, "%d tensors of routers are not in '%s' and begin anew: all heads on\n", report.new_routers,
                    o->model_name_or_path);
    if (report.left_routers)
        text_printf(&s->notes, "%d tensors of routers in '%s' are left out: their layers are not routed here, or keep other state\n",
                    report.left_routers, o->model_name_or_path);
    if (s->run.scores_anew && s->run.labels.count)
        text_printf(&s->notes, "the head of classification (" MODEL_SCORE_TENSOR ", %d labels) begins anew: '%s' has none for these labels\n",
                    s->run.labels.total, o->model_name_or_path);
    if (report.unknown_extras)
        text_printf(&s->notes, "%d tensors of '%s' are not part of the model and were left out, for example '%s'\n",
                    report.unknown_extras, o->model_name_or_path, report.example);
    return STATUS_OK;
}

/* Routing that was taken over is not part of the options that a resumed run must keep. */
static enum status check_routing(const struct start *s, const struct snapshot *snapshot, struct error *err)
{
    char *saved = NULL;
    size_t size;
    if (!s->run.loar_taken_over)
        return STATUS_OK;
    TRY(snapshot_file(snapshot, MODEL_ROUTING_FILE, &saved, &size, err));
    bool same = size == s->run.loar_json.size && !memcmp(saved, s->run.loar_json.data, size);
    mem_free(saved);
    if (!same)
        FAIL(err, STATUS_USAGE, "cannot resume from '%s': it was routed in another way than " MODEL_ROUTING_FILE " of '%s' says now; give "
             "model_name_or_path the folder that the run began with", s->resumed_from, s->run.options->model_name_or_path);
    return STATUS_OK;
}

static enum status check_saved(const struct start *s, const struct snapshot *snapshot, struct error *err)
{
    TRY(check_routing(s, snapshot, err));
    return run_labels_check(&s->run, snapshot, err);
}

/* The stage to begin or go on in, and how many steps the run has as far as is known. */
static enum status plan_stages(struct start *s, bool resumed, struct error *err)
{
    int n = s->run.n_stages;
    s->stages = mem_alloc((size_t)n, sizeof *s->stages);
    if (!s->stages)
        FAIL(err, STATUS_NOMEM, "no memory for %d stages", n);
    TRY(stages_plan(&s->run, s->stages, err));
    if (s->meta.stage < 0 || s->meta.stage >= n)
        FAIL(err, STATUS_DATA, "'%s' belongs to stage %lld of the run, which has %d", s->resumed_from, (long long)s->meta.stage + 1, n);
    s->total_steps = start_total_steps(s, &s->meta);
    if (resumed && s->meta.stage == n - 1 && (s->meta.stage_done || s->meta.step >= s->total_steps))
        text_printf(&s->notes, s->meta.stage_done ? "the run was ended early after step %lld: nothing is left to train\n"
                                                  : "step %lld was the last one: nothing is left to train; raise max_steps or "
                                                    "num_train_epochs to go on\n",
                    (long long)s->meta.step);
    return STATUS_OK;
}

int64_t start_total_steps(const struct start *s, const struct snapshot_meta *meta)
{
    int64_t total = meta->stage_done ? meta->step : meta->stage_step + s->stages[meta->stage].steps;
    for (int i = (int)meta->stage + 1; i < s->run.n_stages; i++)
        total += s->stages[i].steps;
    return total;
}

static enum status load(struct start *s, struct options *o, int workers, int ranks_on_node, struct snapshot **snapshot,
                        struct error *err)
{
    TRY(find_snapshot(o, snapshot, &s->notes, err));
    if (*snapshot)
        TRY(take_over(s, o, *snapshot, err));
    else
        s->meta = (struct snapshot_meta){.best_step = -1, .evaluated = -1};
    if (o->ps.slots == 0)
        o->ps.slots = workers * o->gradient_accumulation_steps;
    s->slots = (int)o->ps.slots;
    if (workers > s->slots)
        FAIL(err, STATUS_USAGE, "%d workers but only %d slots: raise ps.slots or start at most %d ranks", workers, s->slots,
             s->slots + 1);
    int64_t wanted = o->ps.threads > 0 ? o->ps.threads : o->threads;
    TRY(threads_create(run_threads(wanted, ranks_on_node), &s->pool, err));
    TRY(run_load(o, s->pool, &s->run, err));
    run_routing_notes(&s->run, &s->notes);
    run_labels_notes(&s->run, &s->notes);
    row_notes(&s->run.train, s->run.template, &s->notes);
    if (*snapshot)
        TRY(check_saved(s, *snapshot, err));
    TRY(run_plan(&s->run, s->slots, err));
    TRY(plan_stages(s, *snapshot, err));
    for (int stage = 0; stage < s->run.n_stages; stage++)
        TRY(sift_notes(run_stage(&s->run, stage), &s->notes, err));
    TRY(make_optimizer(s, o, err));
    TRY(fill_parameters(s, o, *snapshot, err));
    TRY(check_folder(o, err));
    warnings_put(s, &s->notes);
    s->meta.max_steps = s->total_steps;
    s->meta.slots = s->slots;
    s->meta.seed = o->seed;
    s->meta.data_seed = o->data_seed;
    s->meta.chunk_values = o->ps.chunk_values;
    snprintf(s->meta.base_digest, sizeof s->meta.base_digest, "%s", s->run.table.frozen_digest);
    if (s->notes.failed)
        FAIL(err, STATUS_NOMEM, "no memory for notes");
    return STATUS_OK;
}

enum status start_try(struct options *options, int workers, int ranks_on_node, struct start *out, struct error *err)
{
    struct snapshot *snapshot = NULL;
    *out = (struct start){0};
    enum status st = load(out, options, workers, ranks_on_node, &snapshot, err);
    snapshot_close(snapshot);
    if (st != STATUS_OK)
        start_free(out);
    return st;
}

enum status start_load(struct options *options, int workers, int ranks_on_node, struct start *out, struct error *err)
{
    TRY(start_try(options, workers, ranks_on_node, out, err));
    enum status st = claim_folder(options, err);
    if (st != STATUS_OK)
        start_free(out);
    return st;
}

enum status start_server(struct start *start, struct transport *transport, const struct text *options_text, struct server **out,
                         struct error *err)
{
    const struct options *o = start->run.all;
    struct server_config config = {
        .transport = transport,
        .table = &start->run.table,
        .shard = start->shard,
        .slots = start->slots,
        .pool = start->run.pool,
        .optimizer = start->optimizer,
        .stage = stage_for_server(&start->stages[start->meta.stage], start->meta.stage_step),
        .credits = (int)o->ps.credits,
        .timeout_ms = (int64_t)(o->timeout_s * 1e3),
        .first_step = start->meta.step,
        .updates = start->meta.updates,
        .config_text = options_text->data,
        .config_size = options_text->size,
        .signals = flags_of_signals,
    };
    return server_create(&config, out, err);
}

void start_free(struct start *s)
{
    run_free(&s->run);
    mem_free(s->stages);
    shard_free(s->shard);
    optimizer_free(s->optimizer);
    threads_free(s->pool);
    mem_free(s->history);
    mem_free(s->resumed_from);
    text_free(&s->notes);
    *s = (struct start){0};
}
