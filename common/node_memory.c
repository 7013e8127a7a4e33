#include "common/node_memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/timing.h"

enum { NOT_YET, FILLED, GIVEN_UP };
enum { CONNECT_MS = 2000, PAUSE_US = 2000, BACKLOG = 4096 };

/* First page of the shared file. */
struct header {
    atomic_int state;
    char note[NODE_NOTE_SIZE];
};

struct node_memory {
    char *region; /* own part, padded at its front to whole pages, and the shared part behind */
    size_t region_bytes, front_bytes, own_bytes, shared_bytes; /* front_bytes: of the padded own part */
    struct header *header; /* NULL: nothing is shared */
    size_t header_bytes;
    int socket; /* of who fills: by it the others find the file; -1: none */
    int file;   /* the same */
    pid_t filler;
    bool fills;
};

static size_t whole_pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* A name in the abstract space of sockets, which is gone with the process that holds it. */
static socklen_t address_of(const char *key, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    int size = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "loar:%s", key);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)size);
}

/* ---- finding who fills ---- */

/* Process that listens under the name, or 0. It never needs to answer: the system knows who it is. */
static pid_t find_filler(const struct sockaddr_un *address, socklen_t size)
{
    int64_t deadline = time_ms() + CONNECT_MS;
    pid_t found = 0;
    for (bool again = true; again && !found;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct ucred who;
        socklen_t who_size = sizeof who;
        if (fd < 0)
            return 0;
        if (!connect(fd, (const struct sockaddr *)address, size)) {
            bool ours = !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_size) && who.uid == getuid();
            found = ours ? who.pid : 0;
            again = false;
        } else { /* refused: between taking the name and listening */
            again = errno == ECONNREFUSED && time_ms() < deadline;
        }
        close(fd);
        if (again)
            usleep(PAUSE_US);
    }
    return found;
}

/* The file of that name among those that the process has open; -1: none. */
static int open_file_of(pid_t process, const char *key)
{
    char folder[64], path[128], link[256], wanted[256];
    snprintf(folder, sizeof folder, "/proc/%d/fd", (int)process);
    snprintf(wanted, sizeof wanted, "/memfd:loar:%s", key);
    DIR *dir = opendir(folder);
    int fd = -1;
    for (struct dirent *e; fd < 0 && dir && (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%.32s", folder, e->d_name);
        ssize_t size = readlink(path, link, sizeof link - 1);
        link[size > 0 ? size : 0] = '\0';
        if (!strncmp(link, wanted, strlen(wanted)) && strchr(" ", link[strlen(wanted)]))
            fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (dir)
        closedir(dir);
    return fd;
}

/* ---- mapping ---- */

/* Puts the file's pages in the place of the shared part. */
static bool map_file(struct node_memory *m, int fd, int protection)
{
    void *header = mmap(NULL, m->header_bytes, protection, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return false;
    void *place = m->region + m->front_bytes;
    if (mmap(place, whole_pages(m->shared_bytes), protection, MAP_SHARED | MAP_FIXED, fd, (off_t)m->header_bytes) == MAP_FAILED) {
        munmap(header, m->header_bytes);
        return false;
    }
    m->header = header;
    return true;
}

/* Back to pages of this process alone. */
static void unshare_part(struct node_memory *m)
{
    void *place = m->region + m->front_bytes;
    if (mmap(place, whole_pages(m->shared_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        abort(); /* the place was ours: the system is out of mappings */
    if (m->header)
        munmap(m->header, m->header_bytes);
    m->header = NULL;
    m->fills = true;
}

static bool begin_filling(struct node_memory *m, const char *key)
{
    char name[128];
    snprintf(name, sizeof name, "loar:%s", key);
    m->file = memfd_create(name, MFD_CLOEXEC);
    return m->file >= 0 && !ftruncate(m->file, (off_t)(m->header_bytes + whole_pages(m->shared_bytes))) &&
           map_file(m, m->file, PROT_READ | PROT_WRITE);
}

/* Takes the name or finds who has it; false: nothing can be shared. */
static bool share(struct node_memory *m, const char *key)
{
    struct sockaddr_un address;
    socklen_t size = address_of(key, &address);
    m->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (m->socket < 0 || !begin_filling(m, key))
        return false;
    if (!bind(m->socket, (const struct sockaddr *)&address, size))
        return !listen(m->socket, BACKLOG);
    if (errno != EADDRINUSE)
        return false;
    unshare_part(m);
    m->filler = find_filler(&address, size);
    int fd = m->filler ? open_file_of(m->filler, key) : -1;
    bool mapped = fd >= 0 && map_file(m, fd, PROT_READ);
    if (fd >= 0)
        close(fd);
    m->fills = !mapped;
    return mapped;
}

static void close_ends(struct node_memory *m)
{
    if (m->socket >= 0)
        close(m->socket);
    if (m->file >= 0)
        close(m->file);
    m->socket = m->file = -1;
}

enum status node_memory_open(const char *key, size_t own_bytes, size_t shared_bytes, struct node_memory **out, struct error *err)
{
    struct node_memory *m = mem_alloc(1, sizeof *m);
    if (!m)
        FAIL(err, STATUS_NOMEM, "no memory for %zu bytes", own_bytes + shared_bytes);
    *m = (struct node_memory){.front_bytes = whole_pages(own_bytes), .own_bytes = own_bytes, .shared_bytes = shared_bytes, .socket = -1,
                              .file = -1, .header_bytes = whole_pages(sizeof(struct header)), .fills = true};
    m->region_bytes = m->front_bytes + whole_pages(shared_bytes);
    m->region = mmap(NULL, m->region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->region == MAP_FAILED) {
        mem_free(m);
        FAIL(err, STATUS_NOMEM, "no memory for %zu MiB", (own_bytes + shared_bytes) >> 20);
    }
    if (key && shared_bytes && !share(m, key)) {
        unshare_part(m);
        close_ends(m);
    } else if (!m->fills) {
        close_ends(m);
    }
    madvise(m->region, m->region_bytes, MADV_HUGEPAGE); /* advice only: refusal costs speed, nothing else */
    *out = m;
    return STATUS_OK;
}

void node_memory_close(struct node_memory *m)
{
    if (!m)
        return;
    close_ends(m);
    if (m->header)
        munmap(m->header, m->header_bytes);
    munmap(m->region, m->region_bytes);
    mem_free(m);
}

void *node_memory_base(const struct node_memory *m)
{
    return m->region + m->front_bytes - m->own_bytes;
}

bool node_memory_is_shared(const struct node_memory *m)
{
    return m->header != NULL;
}

void node_memory_wait(struct node_memory *m, int64_t timeout_ms, bool *filled, char note[NODE_NOTE_SIZE])
{
    int64_t deadline = time_ms() + timeout_ms;
    *filled = false;
    while (!m->fills && !*filled) {
        int state = atomic_load_explicit(&m->header->state, memory_order_acquire);
        if (state == FILLED) {
            memcpy(note, m->header->note, NODE_NOTE_SIZE);
            *filled = true;
        } else if (state == GIVEN_UP || (kill(m->filler, 0) && errno == ESRCH) || time_ms() > deadline) {
            unshare_part(m);
        } else {
            usleep(PAUSE_US);
        }
    }
}

void node_memory_publish(struct node_memory *m, const char *note)
{
    if (!m->header)
        return;
    snprintf(m->header->note, NODE_NOTE_SIZE, "%s", note ? note : "");
    atomic_store_explicit(&m->header->state, note ? FILLED : GIVEN_UP, memory_order_release);
}
