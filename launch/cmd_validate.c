/* `loar validate RUN.yaml`: the parser and checks of a run, without the run; or with its first steps, without its files. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/options.h"
#include "launch/check.h"
#include "launch/commands.h"
#include "launch/probe.h"
#include "launch/screen.h"

static const char usage[] =
    "usage: loar validate RUN.yaml [key=value ...] [--ranks N] [--probe] [--options_only]\n"
    "\n"
    "Reads a run file and overrides as `worker` does and lists all problems of the options. Where there are none,\n"
    "loads model, tokenizer and rows with the run's own code, lists what is wrong with any data set, and says what they\n"
    "hold: lengths, tokens, repeated rows, steps, memory, and what is allowed but probably not meant. Writes nothing but\n"
    "its dataset_cache_dir.\n"
    "\n"
    "  --ranks N       as `mpirun -n N worker` would start it; default: one process\n"
    "  --probe         also take three optimizer steps here, among them the one with the longest micro-batch of the first\n"
    "                  epoch, and estimate from them how long the run takes; nothing is saved\n"
    "  --options_only  look at the options alone\n"
    "\n"
    "Exit status: 0 a run would start, 2 problems with the options, 3 with the files they name, 4 not-a-number.\n";

struct request {
    bool options_only, probe;
    int64_t ranks;
};

static void put_duration(struct text *out, const char *what, double seconds)
{
    if (seconds < 60)
        text_printf(out, "%s %.2g s", what, seconds);
    else
        text_printf(out, "%s %d:%02d:%02d", what, (int)(seconds / 3600), (int)(seconds / 60) % 60, (int)seconds % 60);
}

static enum status probe(struct start *start, int64_t ranks, struct text *out, struct error *err)
{
    struct probe p;
    TRY(probe_run(start, &p, err));
    text_printf(out, "probe: steps %" PRId64 " to %" PRId64 " with one worker here:", p.first_step + 1, p.first_step + PROBE_STEPS);
    for (int i = 0; i < PROBE_STEPS; i++)
        text_printf(out, "%s %.3g s (%" PRId64 " tokens, loss %.3f)", i ? "," : "", p.seconds[i], p.tokens[i], p.loss[i]);
    text_printf(out, "\nprobe: memory reached %.1f MB for server and worker together, the rows and tokenizer of both included\n", (double)p.peak_bytes / 1e6);
    put_duration(out, "probe: the whole run takes about", probe_estimate(&p, start, 1));
    text_printf(out, " in one process");
    if (ranks > 2)
        put_duration(out, ", and", probe_estimate(&p, start, (int)ranks - 1));
    text_printf(out, ranks > 2 ? " with %d workers if each has as many cores, and what the exchange of parameters adds\n" : "\n", (int)ranks - 1);
    return STATUS_OK;
}

/* From loaded options on. */
static enum status look(struct options *options, const struct request *request, struct screen *screen, struct error *err)
{
    struct start start;
    struct text found = {0};
    int workers = request->ranks > 1 ? (int)request->ranks - 1 : 1;
    TRY(start_try(options, workers, 1, &start, err));
    enum status st = check_put(&start, (int)request->ranks, &found, err);
    if (found.size)
        screen_printf(screen, "\n");
    screen_text(screen, &found);
    text_clear(&found);
    if (st == STATUS_OK && request->probe)
        st = probe(&start, request->ranks, &found, err);
    screen_text(screen, &found);
    text_free(&found);
    start_free(&start);
    return st;
}

static enum status validate(const char *path, int n_overrides, char **overrides, const struct request *request, struct error *err)
{
    struct options options;
    struct screen screen;
    struct text notes = {0}, given = {0};
    enum status st = options_load(path, n_overrides, overrides, &options, &notes, err);
    if (notes.data)
        fprintf(stderr, "%s", notes.data);
    if (st == STATUS_OK) {
        options_format(&options, OPTIONS_GIVEN, &given);
        screen_open(&screen, stdout);
        screen_text(&screen, &given);
        if (!request->options_only)
            st = look(&options, request, &screen, err);
        screen_close(&screen);
        options_free(&options);
    }
    text_free(&notes);
    text_free(&given);
    return st;
}

/* Takes "--ranks N" or "--ranks=N" at argv[*at]. */
static enum status parse_ranks(int argc, char **argv, int *at, int64_t *out, struct error *err)
{
    const char *text = argv[*at][7] == '=' ? argv[*at] + 8 : *at + 1 < argc ? argv[++*at] : "";
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < 1 || value > 1000000)
        FAIL(err, STATUS_USAGE, "--ranks must be a number from 1 to 1000000, found '%.40s'", text);
    *out = value;
    return STATUS_OK;
}

/* Takes its own options out of argv[1..]; *kept: how many arguments are left, the run file first. */
static enum status parse(int argc, char **argv, struct request *out, int *kept, struct error *err)
{
    *out = (struct request){.ranks = 1};
    *kept = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--options_only"))
            out->options_only = true;
        else if (!strcmp(argv[i], "--probe"))
            out->probe = true;
        else if (!strcmp(argv[i], "--ranks") || !strncmp(argv[i], "--ranks=", 8))
            TRY(parse_ranks(argc, argv, &i, &out->ranks, err));
        else
            argv[1 + (*kept)++] = argv[i];
    }
    if (!*kept)
        FAIL(err, STATUS_USAGE, "which run file? See loar validate --help");
    if (out->options_only && out->probe)
        FAIL(err, STATUS_USAGE, "--options_only looks at no files and --probe needs them; keep one");
    return STATUS_OK;
}

int cmd_validate(int argc, char **argv)
{
    struct error err;
    struct request request;
    int kept;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status st = parse(argc, argv, &request, &kept, &err);
    if (st != STATUS_OK) {
        fprintf(stderr, "loar validate: %s\n", err.text);
        return status_exit_code(st);
    }
    st = validate(argv[1], kept - 1, argv + 2, &request, &err);
    if (st == STATUS_OK)
        printf("ok\n");
    else
        fprintf(stderr, "%s\n", err.text);
    return status_exit_code(st);
}
