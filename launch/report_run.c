/* From what the server holds to the plain facts that report.c and report_plan.c print. */
#include <inttypes.h>
#include <string.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "launch/board.h"
#include "launch/estimate.h"
#include "launch/gnuplot.h"
#include "launch/invocation.h"
#include "launch/plot.h"
#include "launch/report.h"
#include "launch/sift.h"
#include "launch/start.h"
#include "launch/trained.h"
#include "ps/server.h"
#include "worker/data/tokenizer.h"

/* "node1 x 4, node2 x 3": hosts of the workers in order of their ranks. */
static void put_hosts(const struct server *server, struct text *out)
{
    int workers = server_workers(server);
    for (int w = 0, next; w < workers; w = next) {
        const char *host = server_session(server, w)->host;
        for (next = w; next < workers && !strcmp(server_session(server, next)->host, host); next++)
            ;
        text_printf(out, "%s%s", w ? ", " : "", host);
        if (next - w > 1)
            text_printf(out, " x %d", next - w);
    }
}

static void put_model(const struct run *run, struct text *out)
{
    const struct model_config *c = &run->config;
    const struct options *o = run->options;
    text_printf(out, "%s (%s, %d layers, width %" PRId64 ", %d heads, %d key-value heads, vocabulary %" PRId64 ")",
                o->model_config ? o->model_config : o->model_name_or_path, c->type == MODEL_QWEN2 ? "qwen2" : "llama", c->layers,
                c->width, c->heads, c->kv_heads, c->vocab);
}

static void put_stages(const struct start *start, struct text *out)
{
    for (int i = 0; start->run.name && i < start->run.n_stages; i++) {
        const struct stage *stage = &start->stages[i];
        const struct options *o = stage->run->options;
        text_printf(out, "%s: %" PRId64 " steps over %" PRId64 " rows, learning rate %g%s\n", stage->run->name, stage->steps,
                    stage->run->train.rows, o->learning_rate,
                    i && !strcmp(start->run.all->stages.items[i].start_from, "best") ? ", from the best of the one before" : "");
    }
}

/* Tokens are those of an epoch. */
static void data_facts(const struct run *run, bool evaluation, struct plan_data *out)
{
    const struct dataset *dataset = evaluation ? &run->eval : &run->train;
    for (int i = 0; i < dataset->n_parts; i++) {
        const struct dataset_part *part = &dataset->parts[i];
        const struct dataset_stats *s = &part->stats;
        out[i] = (struct plan_data){.name = part->name, .format = part->format, .problems = part->problems, .evaluation = evaluation,
                                    .read = s->read, .kept = s->kept, .skipped = s->skipped, .too_long = s->too_long, .masked = s->masked,
                                    .shortened = s->shortened, .repeated = s->repeated, .held_out = s->held_out,
                                    .special_text = s->special_text, .longest = s->longest};
        for (int span = 0; span < SPAN_COUNT && span < REPORT_SPANS; span++)
            out[i].tokens[span] = (int64_t)((double)s->tokens[span] * (evaluation ? 1 : sift_passes(run, i)) + 0.5);
    }
}

enum { ROW_PIECES = 64 };

/* The name of the row's label. */
static const char *label_of(const struct run *run, const struct row *row)
{
    int set = 0;
    while (run->labels.sets[set].first != row->class.first)
        set++;
    return run->labels.sets[set].names[row->class.label];
}

/* The first row of the training data, cut where its span or its loss weight changes. */
static enum status show_row(struct report *report, const struct run *run, struct error *err)
{
    struct row row = dataset_row(&run->train, 0);
    struct row_piece pieces[ROW_PIECES + 1];
    bool classed = row.class.count > 0;
    struct text texts[ROW_PIECES] = {{0}};
    int count = 0;
    enum status st = STATUS_OK;
    struct row_weights weights = row_weights_begin(&row, run->span_weights);
    float weight = row_weights_next(&weights, 0), next_weight = weight;
    for (int at = 0, next; st == STATUS_OK && at < row.n_tokens && count < ROW_PIECES; at = next, count++) {
        weight = next_weight;
        for (next = at; next < row.n_tokens && row.spans[next] == row.spans[at] && next_weight == weight;)
            if (++next < row.n_tokens)
                next_weight = row_weights_next(&weights, next);
        st = tokenizer_decode(run->tokenizer, row.tokens + at, (size_t)(next - at), false, &texts[count], err);
        pieces[count] = (struct row_piece){span_name(row.spans[at]), texts[count].data ? texts[count].data : "", texts[count].size,
                                           next - at, classed ? 0 : weight};
    }
    if (st == STATUS_OK && classed)
        pieces[count++] = (struct row_piece){"label", label_of(run, &row), strlen(label_of(run, &row)), 1, row.weight};
    if (st == STATUS_OK)
        report_row(report, run->train.parts[0].name, pieces, count);
    for (int i = 0; i < ROW_PIECES; i++)
        text_free(&texts[i]);
    return st;
}

/* The run file as it is now and all options, beside the facts. */
static void record_plan(struct report *report, const struct plan_facts *facts, const struct invocation *invocation)
{
    struct text options = {0};
    struct error err;
    char *run_file = NULL;
    size_t size;
    options_format(facts->options, OPTIONS_ALL, &options);
    if (file_read(invocation->run_file, &run_file, &size, &err) != STATUS_OK)
        log_warn("metrics will not show the run file: %s", err.text);
    report_plan_record(report, facts, run_file ? run_file : "", options.failed || !options.data ? "" : options.data);
    mem_free(run_file);
    text_free(&options);
}

void report_plan(struct report *report, const struct start *start, const struct invocation *invocation,
                 const struct server *server)
{
    const struct run *run = start->stages[start->meta.stage].run;
    struct text hosts = {0}, model = {0}, stages = {0}, groups = {0};
    struct error err;
    int n_data = run->train.n_parts + run->eval.n_parts;
    struct plan_data *data = mem_alloc((size_t)n_data, sizeof *data);
    report_allow_progress(report, !run->options->disable_tqdm);
    put_hosts(server, &hosts);
    put_model(run, &model);
    put_stages(start, &stages);
    trained_put(&run->table, &groups);
    if (!data || hosts.failed || model.failed || groups.failed || !hosts.data) {
        log_warn("no memory to print the plan");
    } else {
        data_facts(run, false, data);
        data_facts(run, true, data + run->train.n_parts);
        struct plan_facts facts = {
            .all = run->all,
            .options = run->options,
            .stages = stages.data,
            .ranks = invocation->ranks,
            .workers = server_workers(server),
            .server_threads = threads_count(start->pool),
            .worker_threads = server_session(server, 0)->threads,
            .hosts = hosts.data,
            .model = model.data,
            .parameters = run->table.trained + run->table.frozen,
            .trained = run->table.trained,
            .groups = groups.data,
            .data = data,
            .n_data = n_data,
            .steps_per_epoch = order_steps_per_epoch(&run->order),
            .first_step = start->meta.step,
            .total_steps = start->total_steps,
            .warmup_steps = start->stages[start->meta.stage].schedule.warmup,
            .memory = estimate_memory(start),
            .machine_bytes = estimate_machine_bytes(),
            .resumed_from = start->resumed_from,
            .notes = start->notes.data,
        };
        report_plan_facts(report, &facts);
        record_plan(report, &facts, invocation);
        if (run->train.rows && show_row(report, run, &err) != STATUS_OK)
            log_warn("cannot show a row: %s", err.text);
    }
    mem_free(data);
    text_free(&hosts);
    text_free(&model);
    text_free(&stages);
    text_free(&groups);
}

/* logging_dir is the folder itself, as in Hugging Face's Trainer. */
static enum status create_board(const struct options *o, int64_t first_step, struct board **out, struct error *err)
{
    struct text folder = {0};
    enum status st;
    if (o->logging_dir)
        text_puts(&folder, o->logging_dir);
    else
        board_put_folder(o->output_dir, o->run_name ? o->run_name : "", &folder);
    if (folder.failed)
        st = error_set(err, STATUS_NOMEM, "no memory for a path");
    else
        st = board_create(folder.data, first_step, out, err);
    text_free(&folder);
    return st;
}

void report_open_board(struct report *report, const struct start *start, const struct invocation *invocation,
                       const struct text *options_text)
{
    const struct options *o = start->run.options;
    struct board *board;
    struct error err;
    char *run_file = NULL;
    size_t size;
    if (strcmp(o->report_to, "tensorboard"))
        return;
    enum status st = create_board(o, start->meta.step, &board, &err);
    if (st != STATUS_OK) {
        log_warn("report_to: nothing for TensorBoard will be written: %s; the run goes on", err.text);
        return;
    }
    if (file_read(invocation->run_file, &run_file, &size, &err) == STATUS_OK)
        board_text(board, "run_file", start->meta.step, run_file, size);
    else
        log_warn("TensorBoard will not show the run file: %s", err.text);
    board_text(board, "options", start->meta.step, options_text->data, options_text->size);
    mem_free(run_file);
    report_show_on(report, board);
}

/* The picture that `loar plot loss` draws; NULL, and a warning, where it cannot be had. Release with mem_free. */
static char *draw_loss(const struct report *report, const struct options *o)
{
    const struct text *lines = report_history(report);
    struct text script = {0}, told = {0};
    struct error err;
    char *path = path_join(o->output_dir, "loss.svg");
    struct plot_request request = {.name = o->run_name ? o->run_name : o->output_dir, .path = o->output_dir, .lines = lines->data,
                                   .size = lines->size, .form = PLOT_SVG};
    enum status st = path ? plot_loss(&request, &script, &told, &err) : error_set(&err, STATUS_NOMEM, "no memory for a path");
    if (st == STATUS_OK)
        st = gnuplot_draw(&script, path, &err);
    if (st != STATUS_OK) {
        log_warn("plot_loss: no picture: %s; loar plot loss and loar report draw it later", err.text);
        mem_free(path);
        path = NULL;
    }
    text_free(&script);
    text_free(&told);
    return path;
}

void report_end(struct report *report, const struct start *start, const struct invocation *invocation,
                const struct snapshot_meta *meta, enum status status, double seconds)
{
    struct error err;
    char digest[DIGEST_HEX_SIZE];
    const struct shard *shard = start->shard;
    struct snapshot_state states[SNAPSHOT_MAX_STATES];
    for (int i = 0; i < shard->n_states; i++)
        states[i] = (struct snapshot_state){shard->state_names[i], shard->states[i]};
    if (snapshot_digest(&start->run.table, shard->parameters, shard->n_states, states, digest, &err) != STATUS_OK) {
        log_warn("no digest: %s", err.text);
        snprintf(digest, sizeof digest, "-");
    }
    char *picture = start->run.options->plot_loss ? draw_loss(report, start->run.options) : NULL;
    struct end_facts facts = {
        .picture = picture,
        .stopped = status == STATUS_STOPPED,
        .step = meta->step,
        .total = start_total_steps(start, meta),
        .epoch = meta->epoch,
        .tokens = meta->tokens_seen,
        .seconds = seconds,
        .digest = digest,
        .best_metric = meta->best_metric,
        .best_value = meta->best_value,
        .best_step = meta->best_step,
        .staged = start->run.name,
        .stands_for_best = status == STATUS_OK && start->stages[start->run.n_stages - 1].run->options->load_best_model_at_end,
        .output_dir = start->run.options->output_dir,
        .invocation = invocation,
    };
    report_end_record(report, &facts);
    report_end_facts(report, &facts);
    mem_free(picture);
}
