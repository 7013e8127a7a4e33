/* `loar search`: finds a list for loar.layers that keeps the loss best at a given cost of attention. Arguments, the course
 * of a search, and the file at its end.
 * Must not know: how heads are ranked and timed, how lists are chosen, how tables look. */
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/scalar.h"
#include "common/timing.h"
#include "launch/commands.h"
#include "launch/run.h"
#include "launch/search_costs.h"
#include "launch/search_list.h"
#include "launch/search_model.h"
#include "launch/search_report.h"

static const char usage[] =
    "usage: loar search RUN.yaml [key=value ...] --out LAYERS.yaml [options]\n"
    "\n"
    "Finds a window and a share of heads for each layer such that the loss stays lowest while attention takes at most a\n"
    "share of its dense time, and writes the list for the key loar.layers_file. The model is the run's\n"
    "model_name_or_path or a snapshot of the run; rows are drawn from the run's training rows.\n"
    "\n"
    "  --out FILE           where the list goes\n"
    "  --snapshot FILE|RUN  weights of a snapshot, or of the newest one of a run, instead of model_name_or_path\n"
    "  --budget 0.75        share of the dense milliseconds of attention, projections and routers\n"
    "  --rows 32            rows of each of three splits: for single layers, to choose among lists, to report;\n"
    "                       default: 32, or a third of the training rows where there are fewer\n"
    "  --candidates 10      lists of the knapsack that are tried, and as many random ones\n"
    "  --windows 256,1024,0 keys behind a query; 0, all of them, is always among them\n"
    "  --shares 0.25,0.5,0.75,1   of the heads, the most important ones; 1 is always among them\n"
    "  --rounds 3           times are medians of so many\n"
    "  --costs FILE         milliseconds from a file instead, such as another machine's\n"
    "  --costs_out FILE     write the milliseconds to such a file\n"
    "  --seed N             draws rows and random lists; default: the run's seed\n"
    "\n"
    "Sinks of windows are loar.sinks; features, granularity, block, router_dim, always_on and router of the run hold, too.\n"
    "Exit status: 0 done, 2 wrong usage, 3 missing or damaged file, 4 not-a-number.\n";

/* Above all keys of the run: how layers are routed is what is searched. */
static const char *const forced[] = {"loar.layers=[{budget: 1}]", "loar.layers_file=", "loar.policy=topk", "loar.tasks=[]"};
enum { FORCED = sizeof forced / sizeof *forced };
enum { DEFAULT_ROWS = 32 };

struct request {
    const char *path, *out, *snapshot, *costs, *costs_out;
    double budget;
    int64_t rows, candidates, rounds, seed; /* rows, seed below 0: not given */
    int windows[SEARCH_MAX_CHOICES], n_windows, n_shares;
    double shares[SEARCH_MAX_CHOICES];
    char **overrides; /* room for all arguments and the forced ones */
    int n_overrides;
};

struct search {
    const struct request *request;
    struct options options;
    struct threads *pool;
    struct run run;
    struct search_rows rows[SEARCH_SPLITS];
    struct search_space space;
    struct search_model model;
    double *loss, *cost; /* [L][O], [O] */
    struct search_problem problem;
    struct search_trials trials;
    double dense[SEARCH_SPLITS];
    double began, heads_s, times_s, single_s, lists_s;
};

/* ---- arguments ---- */

static enum status parse_list(const char *name, const char *text, double low, double high, bool whole, double *out, int *count,
                              struct error *err)
{
    char word[64];
    *count = 0;
    for (const char *at = text;; at++) {
        size_t size = strcspn(at, ",");
        double value = 0;
        bool good = size < sizeof word && *count < SEARCH_MAX_CHOICES;
        if (good) {
            memcpy(word, at, size);
            word[size] = '\0';
            good = scalar_to_real(word, &value) && value >= low && value <= high && (!whole || value == (double)(int64_t)value);
        }
        if (!good)
            FAIL(err, STATUS_USAGE, "--%s: found '%.*s'; wanted up to %d numbers such as %s", name, size < 80 ? (int)size : 80, at,
                 SEARCH_MAX_CHOICES, whole ? "256,1024,0" : "0.25,0.5,0.75,1, each above 0 and at most 1");
        out[(*count)++] = value;
        at += size;
        if (!*at)
            return STATUS_OK;
    }
}

static enum status parse_windows(const char *text, struct request *r, struct error *err)
{
    double numbers[SEARCH_MAX_CHOICES];
    TRY(parse_list("windows", text, 0, INT32_MAX, true, numbers, &r->n_windows, err));
    for (int i = 0; i < r->n_windows; i++)
        r->windows[i] = (int)numbers[i];
    return STATUS_OK;
}

static enum status set_number(const char *name, const char *value, int64_t low, int64_t high, int64_t *out, struct error *err)
{
    if (!scalar_to_int(value, out) || *out < low || *out > high)
        FAIL(err, STATUS_USAGE, "--%s: found '%.60s'; wanted a whole number from %lld to %lld", name, value, (long long)low,
             (long long)high);
    return STATUS_OK;
}

/* known: whether the option is the search's own. */
static enum status set(struct request *r, const char *name, const char *value, bool *known, struct error *err)
{
    const struct {
        const char *name;
        const char **place;
    } texts[] = {{"out", &r->out}, {"snapshot", &r->snapshot}, {"costs", &r->costs}, {"costs_out", &r->costs_out}};
    const struct {
        const char *name;
        int64_t low, high, *place;
    } numbers[] = {{"rows", 1, INT32_MAX, &r->rows},
                   {"candidates", 1, SEARCH_MAX_LISTS, &r->candidates},
                   {"rounds", 1, 1000, &r->rounds},
                   {"seed", 0, INT64_MAX, &r->seed}};
    bool budget = !strcmp(name, "budget"), windows = !strcmp(name, "windows"), shares = !strcmp(name, "shares");
    size_t text = 0, number = 0;
    while (text < sizeof texts / sizeof *texts && strcmp(texts[text].name, name))
        text++;
    while (number < sizeof numbers / sizeof *numbers && strcmp(numbers[number].name, name))
        number++;
    bool is_text = text < sizeof texts / sizeof *texts, is_number = number < sizeof numbers / sizeof *numbers;
    *known = budget || windows || shares || is_text || is_number;
    if (!*known)
        return STATUS_OK;
    if (!value || !*value)
        FAIL(err, STATUS_USAGE, "--%s needs a value; see loar search --help", name);
    if (is_number)
        return set_number(name, value, numbers[number].low, numbers[number].high, numbers[number].place, err);
    if (windows)
        return parse_windows(value, r, err);
    if (shares)
        return parse_list(name, value, 1e-6, 1, false, r->shares, &r->n_shares, err);
    if (budget && (!scalar_to_real(value, &r->budget) || !(r->budget > 0 && r->budget <= 1)))
        FAIL(err, STATUS_USAGE, "--budget: found '%.60s'; wanted a share of the dense attention's time, above 0 and at most 1", value);
    if (is_text)
        *texts[text].place = value;
    return STATUS_OK;
}

/* Takes the search's own options; all other words are overrides of the run's keys. */
static enum status parse_arguments(int argc, char **argv, struct request *r, struct error *err)
{
    r->path = argv[1];
    if (r->path[0] == '-')
        FAIL(err, STATUS_USAGE, "found the option '%.80s' where the run file belongs; see loar search --help", r->path);
    for (int i = 2; i < argc; i++) {
        bool known = false;
        if (!strncmp(argv[i], "--", 2)) {
            const char *equals = strchr(argv[i], '=');
            char name[32];
            size_t size = equals ? (size_t)(equals - argv[i] - 2) : strlen(argv[i]) - 2;
            snprintf(name, sizeof name, "%.*s", size < sizeof name ? (int)size : 0, argv[i] + 2);
            for (char *c = name; *c; c++)
                *c = *c == '-' ? '_' : *c;
            TRY(set(r, name, equals ? equals + 1 : argv[i + 1], &known, err));
            i += known && !equals;
        }
        if (!known)
            r->overrides[r->n_overrides++] = argv[i];
    }
    for (int i = 0; i < FORCED; i++)
        r->overrides[r->n_overrides++] = (char *)forced[i];
    if (!r->out)
        FAIL(err, STATUS_USAGE, "--out is needed: the file that the list goes to; see loar search --help");
    if (r->costs && r->costs_out)
        FAIL(err, STATUS_USAGE, "--costs and --costs_out are given together; keep one: nothing is measured that is read from a file");
    return STATUS_OK;
}

/* An hour's work must not end at a folder that is not there. */
static enum status check_writable(const char *name, const char *path, struct error *err)
{
    char *copy = mem_strdup(path);
    if (!copy)
        FAIL(err, STATUS_NOMEM, "no memory for a path");
    const char *folder = dirname(copy);
    enum status st = STATUS_OK;
    if (folder_exists(path) || !folder_exists(folder) || access(folder, W_OK))
        st = error_set(err, STATUS_USAGE, "--%s: '%.200s' cannot be written: wanted a file in a folder that is there and may be written to",
                       name, path);
    mem_free(copy);
    return st;
}

/* ---- the search ---- */

static enum status load_options(const struct request *r, struct options *out, struct error *err)
{
    struct text notes = {0};
    enum status st = options_load(r->path, r->n_overrides, r->overrides, out, &notes, err);
    if (notes.data)
        fputs(notes.data, stderr);
    text_free(&notes);
    TRY(st);
    log_init((enum log_level)log_level_parse(out->log_level), -1);
    if (r->snapshot || out->model_name_or_path)
        return STATUS_OK;
    options_free(out);
    FAIL(err, STATUS_USAGE, "%s trains from scratch (model_config), and a model that has learnt nothing says nothing about its layers; "
         "give --snapshot RUN, or model_name_or_path", r->path);
}

static enum status draw_rows(struct search *s, uint64_t seed, struct error *err)
{
    const struct dataset *train = &s->run.train;
    int64_t third = train->rows / SEARCH_SPLITS, rows = s->request->rows;
    if (rows < 0)
        rows = third < DEFAULT_ROWS ? third : DEFAULT_ROWS;
    return search_rows_draw(train, s->run.span_weights, seed, rows, s->options.per_device_train_batch_size, SEARCH_SPLITS, s->rows, err);
}

/* Options that make a difference to these rows. */
static enum status make_space(struct search *s, struct error *err)
{
    const struct request *r = s->request;
    int longest = 0, n_shares = r->n_shares;
    bool skips;
    for (int i = 0; i < SEARCH_SPLITS; i++)
        longest = s->rows[i].longest > longest ? s->rows[i].longest : longest;
    TRY(search_model_skips(&s->model, &s->rows[SPLIT_SINGLE], &skips, err));
    if (!skips) {
        log_warn("shares of heads are left out: with loar.features %s and granularity %s the first tokens of a row run all heads, and "
                 "no row is longer than that; --loar.granularity token decides earlier", s->options.loar.features, s->options.loar.granularity);
        n_shares = 0;
    }
    search_space_make(r->windows, r->n_windows, r->shares, n_shares, s->run.config.heads, longest, &s->space);
    if (s->space.count == 1)
        FAIL(err, STATUS_USAGE, "nothing to search: no window of --windows is shorter than the longest row (%d tokens), and no share of "
             "--shares leaves a head out", longest);
    TRY(search_model_check(&s->model, &s->space, err));
    size_t options = (size_t)s->space.count, layers = (size_t)s->run.config.layers;
    s->loss = mem_alloc(layers * options, sizeof *s->loss);
    s->cost = mem_alloc(options, sizeof *s->cost);
    if (!s->loss || !s->cost)
        FAIL(err, STATUS_NOMEM, "no memory for %zu options of %zu layers", options, layers);
    s->problem = (struct search_problem){(int)layers, (int)options, s->loss, s->cost};
    return STATUS_OK;
}

static enum status write_text(const char *path, struct text *text, struct error *err)
{
    enum status st = text->failed ? error_set(err, STATUS_NOMEM, "no memory for the text of '%s'", path)
                                  : file_replace(path, text->data, text->size, err);
    text_free(text);
    return st;
}

static enum status find_costs(struct search *s, struct error *err)
{
    const struct request *r = s->request;
    double began = time_seconds();
    TRY(r->costs ? search_costs_read(r->costs, &s->space, s->cost, err)
                 : search_model_time(&s->model, &s->space, &s->rows[SPLIT_SINGLE], (int)r->rounds, s->cost, err));
    s->times_s = time_seconds() - began;
    char origin[256];
    if (r->costs)
        snprintf(origin, sizeof origin, "from %.200s", r->costs);
    else
        snprintf(origin, sizeof origin, "medians of %lld rounds", (long long)r->rounds);
    search_report_costs(&s->space, s->cost, origin);
    if (!r->costs_out)
        return STATUS_OK;
    struct text text = {0};
    search_costs_put(&s->space, s->cost, &text);
    return write_text(r->costs_out, &text, err);
}

static enum status loss_of(struct search *s, const uint8_t *list, enum search_split split, double *out, struct error *err)
{
    search_model_use(&s->model, &s->space, list);
    return search_model_loss(&s->model, &s->rows[split], out, err);
}

static enum status try_single_layers(struct search *s, struct error *err)
{
    const int layers = s->problem.layers, options = s->problem.options;
    double began = time_seconds();
    uint8_t *list = mem_alloc((size_t)layers, 1);
    enum status st = list ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory for a list of %d layers", layers);
    for (int split = 0; split < SEARCH_SPLITS && st == STATUS_OK; split++)
        st = loss_of(s, list, (enum search_split)split, &s->dense[split], err);
    for (int i = 0; i < layers && st == STATUS_OK; i++) {
        for (int o = 1; o < options && st == STATUS_OK; o++) {
            list[i] = (uint8_t)o;
            st = loss_of(s, list, SPLIT_SINGLE, &s->loss[i * options + o], err);
            s->loss[i * options + o] -= s->dense[SPLIT_SINGLE];
            list[i] = 0;
        }
        log_info("single layers: %d of %d", i + 1, layers);
    }
    mem_free(list);
    s->single_s = time_seconds() - began;
    if (st == STATUS_OK)
        search_report_single(&s->space, &s->problem, s->dense[SPLIT_SINGLE]);
    return st;
}

static enum status try_lists(struct search *s, uint64_t seed, struct error *err)
{
    double began = time_seconds();
    TRY(search_trials_make(&s->problem, s->request->budget, (int)s->request->candidates, seed, &s->trials, err));
    for (int i = 0; i < s->trials.count; i++) {
        struct search_trial *t = &s->trials.items[i];
        if (t->kind == TRIAL_CANDIDATE)
            TRY(loss_of(s, t->list, SPLIT_SINGLE, &t->loss[SPLIT_SINGLE], err));
        TRY(loss_of(s, t->list, SPLIT_CHOICE, &t->loss[SPLIT_CHOICE], err));
        if (i + 1 == s->trials.count || (i + 1) % 10 == 0)
            log_info("lists: %d of %d", i + 1, s->trials.count);
    }
    for (int kind = TRIAL_CANDIDATE; kind <= TRIAL_RULE; kind++) {
        int best = search_trials_best(&s->trials, kind);
        if (best >= 0)
            TRY(loss_of(s, s->trials.items[best].list, SPLIT_REPORT, &s->trials.items[best].loss[SPLIT_REPORT], err));
    }
    s->lists_s = time_seconds() - began;
    search_report_trials(&s->space, &s->problem, &s->trials, s->request->budget, s->dense);
    search_report_end(&s->space, &s->problem, &s->trials, s->dense);
    return STATUS_OK;
}

static enum status write_winner(const struct search *s, struct error *err)
{
    const struct search_trial *t = &s->trials.items[search_trials_best(&s->trials, -1)];
    struct text text = {0};
    text_printf(&text, "# Found by loar search: %.3f of the dense milliseconds of attention; loss %.6f on rows kept apart, %.6f dense.\n",
                t->cost, t->loss[SPLIT_REPORT], s->dense[SPLIT_REPORT]);
    search_list_put_yaml(&s->space, t->list, s->problem.layers, s->model.sinks, &text);
    TRY(write_text(s->request->out, &text, err));
    printf("\nwrote %s; a run takes it by loar.layers_file=%s\n", s->request->out, s->request->out);
    printf("took %.1f s: ranking heads %.1f, times %.1f, single layers %.1f, lists %.1f\n", time_seconds() - s->began, s->heads_s,
           s->times_s, s->single_s, s->lists_s);
    return STATUS_OK;
}

static enum status search(struct search *s, struct error *err)
{
    const struct request *r = s->request;
    const struct options *o = &s->options;
    uint64_t seed = (uint64_t)(r->seed >= 0 ? r->seed : o->seed);
    TRY(threads_create(run_threads(o->threads, 1), &s->pool, err));
    TRY(run_load(o, s->pool, &s->run, err));
    if (o->loar.sinks > INT32_MAX)
        FAIL(err, STATUS_USAGE, "loar.sinks are tokens, at most %d", INT32_MAX);
    TRY(draw_rows(s, seed, err));
    TRY(search_model_create(&s->run.config, (int)o->loar.sinks, o->gradient_checkpointing, s->pool, &s->model, err));
    TRY(search_model_load(&s->model, o->model_name_or_path, r->snapshot, err));
    TRY(make_space(s, err));
    const struct search_rows *rows = &s->rows[SPLIT_SINGLE];
    printf("%d layers of %d heads, %d options each; 3 splits of %lld rows, the first with %d to %d tokens in %d batches\n",
           s->problem.layers, s->run.config.heads, s->problem.options, (long long)rows->rows, rows->shortest, rows->longest,
           rows->count);
    double began = time_seconds();
    TRY(search_model_rank_heads(&s->model, rows, err));
    s->heads_s = time_seconds() - began;
    TRY(find_costs(s, err));
    fflush(stdout);
    TRY(try_single_layers(s, err));
    fflush(stdout);
    TRY(try_lists(s, seed, err));
    return write_winner(s, err);
}

static void release(struct search *s)
{
    search_trials_free(&s->trials);
    mem_free(s->loss);
    mem_free(s->cost);
    search_model_free(&s->model);
    search_rows_free(s->rows, SEARCH_SPLITS);
    run_free(&s->run);
    threads_free(s->pool);
    options_free(&s->options);
}

static enum status run_search(int argc, char **argv, struct request *r, struct error *err)
{
    struct search s = {.request = r, .began = time_seconds()};
    TRY(parse_arguments(argc, argv, r, err));
    TRY(check_writable("out", r->out, err));
    if (r->costs_out)
        TRY(check_writable("costs_out", r->costs_out, err));
    TRY(load_options(r, &s.options, err));
    enum status st = search(&s, err);
    release(&s);
    return st;
}

int cmd_search(int argc, char **argv)
{
    struct error err = {0};
    bool help = false;
    for (int i = 1; i < argc; i++)
        help = help || !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
    if (argc < 2 || help) {
        fputs(usage, help ? stdout : stderr);
        return help ? 0 : status_exit_code(STATUS_USAGE);
    }
    struct request request = {.budget = 0.75, .rows = -1, .candidates = 10, .rounds = 3, .seed = -1,
                              .windows = {256, 1024, 0}, .n_windows = 3, .shares = {0.25, 0.5, 0.75, 1}, .n_shares = 4};
    request.overrides = mem_alloc((size_t)argc + FORCED, sizeof *request.overrides);
    enum status st = request.overrides ? run_search(argc, argv, &request, &err) : error_set(&err, STATUS_NOMEM, "no memory for the arguments");
    mem_free(request.overrides);
    if (st != STATUS_OK)
        fprintf(stderr, "loar search: %s\n", err.text);
    return status_exit_code(st);
}
