/* `loar inspect SNAPSHOT|RUN_DIR`: what a snapshot holds, after every byte of it was checked. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/commands.h"
#include "ps/snapshot.h"

static const char usage[] =
    "usage: loar inspect SNAPSHOT|RUN_DIR [--digest] [--tensors]\n"
    "\n"
    "Checks a snapshot and says what it holds.\n"
    "\n"
    "  SNAPSHOT      a snapshot file, or a folder of snapshots or of a run: the newest good one\n"
    "  --digest      compute the digest from the data; the last line is 'digest <hex>'. Fails if the file names another\n"
    "  --tensors     list every tensor with its shape\n"
    "\n"
    "Exit status: 0 good, 2 wrong usage, 3 missing or damaged.\n";

struct request {
    const char *path;
    bool digest, tensors;
};

static enum status parse_arguments(int argc, char **argv, struct request *out, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--digest"))
            out->digest = true;
        else if (!strcmp(argv[i], "--tensors"))
            out->tensors = true;
        else if (argv[i][0] == '-')
            FAIL(err, STATUS_USAGE, "unknown option '%s'; see loar inspect --help", argv[i]);
        else if (!out->path)
            out->path = argv[i];
        else
            FAIL(err, STATUS_USAGE, "too many arguments: '%s'; see loar inspect --help", argv[i]);
    }
    if (!out->path)
        FAIL(err, STATUS_USAGE, "a snapshot or a folder is needed; see loar inspect --help");
    return STATUS_OK;
}

static void print_meta(const struct snapshot *snapshot, bool with_digest)
{
    const struct snapshot_meta *meta = snapshot_meta(snapshot);
    printf("%-16s %s\n", "file", snapshot_path(snapshot));
    printf("%-16s %" PRId64 "\n", "bytes", snapshot_bytes(snapshot));
    for (int i = 0; i < snapshot_field_count; i++) {
        const struct snapshot_field *field = &snapshot_fields[i];
        const char *member = (const char *)meta + field->offset;
        if (member == meta->digest && !with_digest)
            continue;
        if (field->kind == SNAPSHOT_INT)
            printf("%-16s %-34" PRId64 " %s\n", field->name, *(const int64_t *)member, field->description);
        else if (field->kind == SNAPSHOT_REAL)
            printf("%-16s %-34.9g %s\n", field->name, *(const double *)member, field->description);
        else
            printf("%-16s %-34s %s\n", field->name, member[0] ? member : "-", field->description);
    }
    printf("%-16s", "files");
    for (int i = 0; i < snapshot_files(snapshot); i++)
        printf(" %s", snapshot_file_at(snapshot, i));
    printf("\n");
}

static void print_tensors(const struct params *table)
{
    for (int i = 0; i < table->count; i++) {
        const struct param *p = &table->items[i];
        printf("tensor %-60s [", p->name);
        for (int d = 0; d < p->n_dims; d++)
            printf("%s%" PRId64, d ? ", " : "", p->shape[d]);
        printf("]\n");
    }
}

/* Prints what was asked for. */
static enum status report(const struct snapshot *snapshot, const struct request *request, struct error *err)
{
    char digest[DIGEST_HEX_SIZE];
    const char *written = snapshot_meta(snapshot)->digest;
    if (request->digest) {
        TRY(snapshot_recompute_digest(snapshot, digest, err));
        if (strcmp(digest, written))
            FAIL(err, STATUS_DATA, "'%s' says digest %s, its data have %s", snapshot_path(snapshot), written, digest);
    }
    print_meta(snapshot, !request->digest);
    if (request->tensors)
        print_tensors(snapshot_params(snapshot));
    if (request->digest)
        printf("digest %s\n", digest);
    return STATUS_OK;
}

int cmd_inspect(int argc, char **argv)
{
    struct request request = {0};
    struct snapshot *snapshot = NULL;
    struct text warnings = {0};
    struct error err;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status st = parse_arguments(argc, argv, &request, &err);
    if (st == STATUS_OK)
        st = snapshot_open_any(request.path, &snapshot, &warnings, &err);
    if (warnings.size)
        fputs(warnings.data, stderr);
    text_free(&warnings);
    if (st == STATUS_OK) {
        st = report(snapshot, &request, &err);
        snapshot_close(snapshot);
    }
    if (st != STATUS_OK)
        fprintf(stderr, "loar inspect: %s\n", err.text);
    return status_exit_code(st);
}
