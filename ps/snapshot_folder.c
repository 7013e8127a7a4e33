/* A folder of snapshots: which are there, which is the newest good one. Must not know: what is inside a file. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "ps/snapshot.h"

/* The step a file name stands for, or -1: exactly what snapshot_file_name makes. */
static int64_t step_of_name(const char *name)
{
    int64_t step;
    char made[SNAPSHOT_STRING_SIZE];
    if (sscanf(name, "step-%12" SCNd64 ".h5", &step) != 1 || step < 0)
        return -1;
    snapshot_file_name(step, made);
    return strcmp(name, made) ? -1 : step;
}

static int compare_steps(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum status snapshot_list(const char *dir, int64_t **steps, int *count, struct error *err)
{
    *steps = NULL;
    *count = 0;
    DIR *folder = opendir(dir);
    if (!folder) {
        if (errno == ENOENT)
            return STATUS_OK;
        FAIL(err, STATUS_IO, "cannot list '%s': %s", dir, strerror(errno));
    }
    enum status st = STATUS_OK;
    for (struct dirent *entry; st == STATUS_OK && (entry = readdir(folder));) {
        int64_t step = step_of_name(entry->d_name);
        if (step < 0)
            continue;
        int64_t *grown = mem_realloc(*steps, (size_t)*count + 1, sizeof *grown);
        if (!grown) {
            st = error_set(err, STATUS_NOMEM, "no memory for the list of snapshots in '%s'", dir);
            break;
        }
        *steps = grown;
        grown[(*count)++] = step;
    }
    closedir(folder);
    if (st != STATUS_OK) {
        mem_free(*steps);
        *steps = NULL;
        *count = 0;
    } else if (*count)
        qsort(*steps, (size_t)*count, sizeof **steps, compare_steps);
    return st;
}

/* The step that a small file in the folder names, or -1. */
static int64_t named_step(const char *dir, const char *pointer)
{
    char line[SNAPSHOT_STRING_SIZE] = "", path[PATH_MAX];
    FILE *file = snprintf(path, sizeof path, "%s/%s", dir, pointer) < (int)sizeof path ? fopen(path, "re") : NULL;
    if (!file)
        return -1;
    if (!fgets(line, sizeof line, file))
        line[0] = '\0';
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    return step_of_name(line);
}

int64_t snapshot_latest_step(const char *dir)
{
    return named_step(dir, "latest");
}

enum status snapshot_prefer(const char *dir, int64_t step, struct error *err)
{
    char name[SNAPSHOT_STRING_SIZE], path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/best", dir) >= (int)sizeof path)
        FAIL(err, STATUS_USAGE, "the path of '%s' is too long", dir);
    if (step < 0) {
        if (unlink(path) && errno != ENOENT)
            FAIL(err, STATUS_IO, "cannot remove '%s': %s", path, strerror(errno));
        return STATUS_OK;
    }
    snapshot_file_name(step, name);
    return file_replace(path, name, strlen(name), err);
}

/* Tries one file. STATUS_DATA and STATUS_IO mean: try another; the reason goes to warnings and, if it is the first,
 * stays in `first`. */
static enum status try_step(const char *dir, int64_t step, struct snapshot **out, struct text *warnings,
                            struct error *first, bool *any, struct error *err)
{
    char name[SNAPSHOT_STRING_SIZE];
    struct error reason = {0};
    snapshot_file_name(step, name);
    char *path = path_join(dir, name);
    enum status st = path ? snapshot_open(path, out, &reason) : error_set(&reason, STATUS_NOMEM, "no memory for a path in '%s'", dir);
    mem_free(path);
    if (st == STATUS_NOMEM)
        return error_set(err, st, "%s", reason.text);
    if (st == STATUS_OK)
        return st;
    if (warnings)
        text_printf(warnings, "passed over: %s\n", reason.text);
    if (!*any)
        *first = reason;
    *any = true;
    return st;
}

enum status snapshot_open_latest(const char *dir, struct snapshot **out, struct text *warnings, struct error *err)
{
    int64_t *steps, latest = snapshot_latest_step(dir);
    int count;
    TRY(snapshot_list(dir, &steps, &count, err));
    struct error first = {0};
    bool any = false;
    enum status st = STATUS_DATA;
    if (latest >= 0)
        st = try_step(dir, latest, out, warnings, &first, &any, err);
    /* Round 0: older than `latest`; round 1: newer. Newest first in each. Without `latest` all are newer. */
    for (int round = 0; round < 2; round++)
        for (int i = count - 1; i >= 0 && st != STATUS_OK && st != STATUS_NOMEM; i--)
            if (steps[i] != latest && (steps[i] > latest) == (round == 1))
                st = try_step(dir, steps[i], out, warnings, &first, &any, err);
    mem_free(steps);
    if (st == STATUS_OK || st == STATUS_NOMEM)
        return st;
    if (any)
        FAIL(err, STATUS_DATA, "no usable snapshot in '%s'; the newest: %s", dir, first.text);
    FAIL(err, STATUS_DATA, "no snapshot in '%s' (files named step-<number>.h5)", dir);
}

enum status snapshot_open_any(const char *path, struct snapshot **out, struct text *warnings, struct error *err)
{
    if (!folder_exists(path))
        return snapshot_open(path, out, err);
    char *inner = path_join(path, "snapshots");
    if (!inner)
        FAIL(err, STATUS_NOMEM, "no memory for a path in '%s'", path);
    const char *dir = folder_exists(inner) ? inner : path;
    int64_t preferred = named_step(dir, "best");
    struct error first;
    bool any = false;
    enum status st = preferred >= 0 ? try_step(dir, preferred, out, warnings, &first, &any, err) : STATUS_DATA;
    if (st != STATUS_OK && st != STATUS_NOMEM)
        st = snapshot_open_latest(dir, out, warnings, err);
    mem_free(inner);
    return st;
}
