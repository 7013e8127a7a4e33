#include "tests/support/fault_io.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_long countdown = -1, calls, writes;
static int fault_error;
static bool fault_cut, fault_persistent;
static const char *volatile hit;

void fault_io_arm(long n, int error, bool cut, bool persistent)
{
    atomic_store(&countdown, -1);
    fault_error = error;
    fault_cut = cut;
    fault_persistent = persistent;
    hit = NULL;
    atomic_store(&calls, 0);
    atomic_store(&writes, 0);
    atomic_store(&countdown, n);
}

long fault_io_calls(void)
{
    return atomic_load(&calls);
}

long fault_io_writes(void)
{
    return atomic_load(&writes);
}

const char *fault_io_hit(void)
{
    return hit;
}

/* Counts a call and says whether it is to fail. */
static bool fails(const char *name)
{
    atomic_fetch_add(&calls, 1);
    if (strstr(name, "write"))
        atomic_fetch_add(&writes, 1);
    if (atomic_load(&countdown) < 0)
        return false;
    long left = atomic_fetch_sub(&countdown, 1);
    if (left > 0)
        return false;
    atomic_store(&countdown, fault_persistent ? 0 : -1);
    if (!hit)
        hit = name;
    return true;
}

/* The function of that name behind ours. */
static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static int refuse(void)
{
    errno = fault_error;
    return -1;
}

/* A failing write takes half the bytes first where the fault says so; later ones take none. */
static bool takes_half(size_t size)
{
    bool half = fault_cut && size > 1;
    fault_cut = false;
    return half;
}

static ssize_t faulty_pwrite(const char *name, int fd, const void *data, size_t size, off64_t offset)
{
    ssize_t (*call)(int, const void *, size_t, off64_t) = (ssize_t (*)(int, const void *, size_t, off64_t))real("pwrite64");
    if (fd > 2 && fails(name))
        return takes_half(size) ? call(fd, data, size / 2, offset) : refuse();
    return call(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return faulty_pwrite("pwrite", fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return faulty_pwrite("pwrite64", fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*call)(int, const void *, size_t) = (ssize_t (*)(int, const void *, size_t))real("write");
    if (fd > 2 && fails("write"))
        return takes_half(size) ? call(fd, data, size / 2) : refuse();
    return call(fd, data, size);
}

static int faulty_truncate(int fd, off64_t size)
{
    int (*call)(int, off64_t) = (int (*)(int, off64_t))real("ftruncate64");
    return fd > 2 && fails("ftruncate") ? refuse() : call(fd, size);
}

int ftruncate(int fd, off_t size)
{
    return faulty_truncate(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return faulty_truncate(fd, size);
}

int fsync(int fd)
{
    int (*call)(int) = (int (*)(int))real("fsync");
    return fails("fsync") ? refuse() : call(fd);
}

int fdatasync(int fd)
{
    int (*call)(int) = (int (*)(int))real("fdatasync");
    return fails("fdatasync") ? refuse() : call(fd);
}

/* The file is closed in any case, as the system does. */
int close(int fd)
{
    int (*call)(int) = (int (*)(int))real("close");
    bool failing = fd > 2 && fails("close");
    int result = call(fd);
    return failing ? refuse() : result;
}

int rename(const char *from, const char *to)
{
    int (*call)(const char *, const char *) = (int (*)(const char *, const char *))real("rename");
    return fails("rename") ? refuse() : call(from, to);
}

static int faulty_open(const char *path, int flags, mode_t mode)
{
    int (*call)(const char *, int, ...) = (int (*)(const char *, int, ...))real("open64");
    return fails("open") ? refuse() : call(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return faulty_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    return faulty_open(path, flags, mode);
}
