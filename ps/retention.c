#include "ps/retention.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/text.h"
#include "ps/snapshot.h"

void retention_choose(const struct retention *retention, const int64_t *steps, int count, int64_t latest_step,
                      int64_t best_step, bool *remove)
{
    memset(remove, 0, (size_t)count * sizeof *remove);
    if (retention->save_total_limit <= 0)
        return;
    int limit = retention->save_total_limit < RETENTION_ALWAYS_KEPT ? RETENTION_ALWAYS_KEPT
                                                                    : retention->save_total_limit;
    int mine = 0;
    while (mine < count && steps[mine] <= latest_step)
        mine++;
    /* From the oldest on, until the limit holds. The last two and the best one stay even if it does not. */
    int excess = mine - limit;
    for (int i = 0; i < mine - RETENTION_ALWAYS_KEPT && excess > 0; i++)
        if (steps[i] != best_step) {
            remove[i] = true;
            excess--;
        }
}

static bool is_leftover(const char *name)
{
    size_t size = strlen(name);
    return !strcmp(name, "latest.tmp") || (!strncmp(name, "step-", 5) && size > 7 && !strcmp(name + size - 7, ".h5.tmp"));
}

static enum status remove_file(const char *dir, const char *name, struct error *err)
{
    char *path = path_join(dir, name);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory for a path in '%s'", dir);
    enum status st = STATUS_OK;
    if (unlink(path) && errno != ENOENT)
        st = error_set(err, STATUS_IO, "cannot remove '%s': %s", path, strerror(errno));
    mem_free(path);
    return st;
}

static enum status remove_leftovers(const char *dir, struct error *err)
{
    DIR *folder = opendir(dir);
    if (!folder)
        FAIL(err, STATUS_IO, "cannot list '%s': %s", dir, strerror(errno));
    enum status st = STATUS_OK;
    for (struct dirent *entry; st == STATUS_OK && (entry = readdir(folder));)
        if (is_leftover(entry->d_name))
            st = remove_file(dir, entry->d_name, err);
    closedir(folder);
    return st;
}

enum status retention_prune(const struct retention *retention, const char *dir, int64_t latest_step, int64_t best_step,
                            int *removed, struct error *err)
{
    int64_t *steps;
    int count, done = 0;
    TRY(snapshot_list(dir, &steps, &count, err));
    bool *remove = mem_alloc((size_t)count, sizeof *remove);
    enum status st = remove ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory to choose among %d snapshots", count);
    if (st == STATUS_OK)
        retention_choose(retention, steps, count, latest_step, best_step, remove);
    for (int i = 0; st == STATUS_OK && i < count; i++) {
        char name[SNAPSHOT_STRING_SIZE];
        if (!remove[i])
            continue;
        snapshot_file_name(steps[i], name);
        st = remove_file(dir, name, err);
        done += st == STATUS_OK;
    }
    if (st == STATUS_OK)
        st = remove_leftovers(dir, err);
    mem_free(remove);
    mem_free(steps);
    if (removed)
        *removed = done;
    return st;
}
