#include "common/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/text.h"

static enum status open_regular(const char *path, int *fd, size_t *size, struct error *err)
{
    /* Without O_NONBLOCK a pipe that nobody writes to would hold the program here; files do not mind. */
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0)
        FAIL(err, errno == ENOMEM || errno == EMFILE ? STATUS_IO : STATUS_DATA, "cannot open '%s': %s", path,
             strerror(errno));
    struct stat info;
    if (fstat(f, &info) || !S_ISREG(info.st_mode)) {
        close(f);
        FAIL(err, STATUS_DATA, "'%s' is not a regular file", path);
    }
    *fd = f;
    *size = (size_t)info.st_size;
    return STATUS_OK;
}

enum status file_map_open(const char *path, struct file_map *out, struct error *err)
{
    int fd;
    size_t size;
    TRY(open_regular(path, &fd, &size, err));
    void *data = NULL;
    if (size)
        data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    int reason = errno;
    close(fd);
    if (data == MAP_FAILED)
        FAIL(err, STATUS_IO, "cannot map '%s' (%zu bytes): %s", path, size, strerror(reason));
    *out = (struct file_map){data, size};
    return STATUS_OK;
}

void file_map_close(struct file_map *map)
{
    if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct file_map){0};
}

enum status file_read(const char *path, char **out, size_t *size, struct error *err)
{
    int fd;
    size_t expected;
    TRY(open_regular(path, &fd, &expected, err));
    char *data = mem_alloc(expected + 1, 1);
    if (!data) {
        close(fd);
        FAIL(err, STATUS_NOMEM, "no memory for the %zu bytes of '%s'", expected, path);
    }
    size_t done = 0;
    while (done < expected) {
        ssize_t got = read(fd, data + done, expected - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int reason = errno;
            close(fd);
            mem_free(data);
            FAIL(err, STATUS_IO, "cannot read '%s': %s", path, strerror(reason));
        }
        if (got == 0)
            break; /* the file shrank meanwhile: what is there is what we have */
        done += (size_t)got;
    }
    close(fd);
    data[done] = '\0';
    *out = data;
    *size = done;
    return STATUS_OK;
}

static enum status sync_path(const char *path, int flags, struct error *err)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        FAIL(err, STATUS_IO, "cannot open '%s' to flush it: %s", path, strerror(errno));
    int failed = fsync(fd);
    int reason = errno;
    close(fd);
    if (failed && reason != EINVAL) /* some file systems cannot sync folders */
        FAIL(err, STATUS_IO, "cannot flush '%s' to disk: %s", path, strerror(reason));
    return STATUS_OK;
}

static enum status sync_folder_of(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == path ? mem_strdup("/") : slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
    if (!folder)
        FAIL(err, STATUS_NOMEM, "no memory for the folder of '%s'", path);
    enum status st = sync_path(folder, O_RDONLY | O_DIRECTORY, err);
    mem_free(folder);
    return st;
}

enum status file_publish(const char *temporary, const char *path, struct error *err)
{
    TRY(sync_path(temporary, O_RDONLY, err));
    if (rename(temporary, path))
        FAIL(err, STATUS_IO, "cannot rename '%s' to '%s': %s", temporary, path, strerror(errno));
    return sync_folder_of(path, err);
}

void file_forget(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static enum status write_all(int fd, const char *path, const char *data, size_t size, struct error *err)
{
    while (size) {
        ssize_t put = write(fd, data, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            FAIL(err, STATUS_IO, "cannot write '%s': %s", path, strerror(errno));
        data += put;
        size -= (size_t)put;
    }
    return STATUS_OK;
}

enum status file_replace_pieces(const char *path, const char *temporary, const struct file_piece *pieces, int count,
                                struct error *err)
{
    enum status st = STATUS_OK;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        st = error_set(err, STATUS_IO, "cannot create '%s': %s", temporary, strerror(errno));
    for (int i = 0; i < count && st == STATUS_OK; i++)
        st = write_all(fd, temporary, pieces[i].data, pieces[i].size, err);
    if (fd >= 0 && close(fd) && st == STATUS_OK)
        st = error_set(err, STATUS_IO, "cannot close '%s': %s", temporary, strerror(errno));
    if (st == STATUS_OK)
        st = file_publish(temporary, path, err);
    if (st != STATUS_OK && fd >= 0)
        unlink(temporary);
    return st;
}

enum status file_replace(const char *path, const void *data, size_t size, struct error *err)
{
    struct text temporary = {0};
    text_printf(&temporary, "%s.tmp", path);
    enum status st = temporary.failed ? error_set(err, STATUS_NOMEM, "no memory for the name of '%s'", path)
                                      : file_replace_pieces(path, temporary.data, &(struct file_piece){data, size}, 1, err);
    text_free(&temporary);
    return st;
}

bool path_is_yaml(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    return dot && dot > path && (!slash || dot > slash + 1) && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"));
}

bool file_exists(const char *path)
{
    struct stat info;
    return !stat(path, &info) && S_ISREG(info.st_mode);
}

bool folder_exists(const char *path)
{
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

bool folder_is_empty(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(dir));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    closedir(dir);
    return empty;
}

enum status folder_make(const char *path, struct error *err)
{
    char *partial = mem_strdup(path);
    if (!partial)
        FAIL(err, STATUS_NOMEM, "no memory for the path '%s'", path);
    enum status st = STATUS_OK;
    for (char *at = partial + 1; st == STATUS_OK; at++) {
        if (*at && *at != '/')
            continue;
        char kept = *at;
        *at = '\0';
        if (mkdir(partial, 0777) && errno != EEXIST)
            st = error_set(err, STATUS_IO, "cannot make the folder '%s': %s", partial, strerror(errno));
        *at = kept;
        if (!kept)
            break;
    }
    if (st == STATUS_OK && !folder_exists(path))
        st = error_set(err, STATUS_IO, "'%s' is in the way: not a folder", path);
    mem_free(partial);
    return st;
}

char *path_join(const char *dir, const char *name)
{
    struct text path = {0};
    text_printf(&path, "%s/%s", dir, name);
    return path.failed ? NULL : path.data;
}

enum status file_replace_in(const char *dir, const char *name, const void *data, size_t size, struct error *err)
{
    char *path = path_join(dir, name);
    if (!path)
        FAIL(err, STATUS_NOMEM, "no memory to write '%s' in '%s'", name, dir);
    enum status st = file_replace(path, data, size, err);
    mem_free(path);
    return st;
}

void file_remove_in(const char *dir, const char *name)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path)
        unlink(path);
}
