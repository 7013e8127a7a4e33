#include "common/memory.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_long live_blocks;
static atomic_long fail_countdown = -1;
static atomic_bool fail_persistent;

void mem_fail_after(long n, bool persistent)
{
    atomic_store(&fail_persistent, persistent);
    atomic_store(&fail_countdown, n);
}

long mem_live(void)
{
    return atomic_load(&live_blocks);
}

/* True when the armed fault hits this allocation. The common case is one relaxed load. */
static bool fault_hits(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0)
        return false;
    long left = atomic_fetch_sub(&fail_countdown, 1);
    if (left > 0)
        return false;
    atomic_store(&fail_countdown, atomic_load(&fail_persistent) ? 0 : -1);
    return left == 0;
}

static bool product_overflows(size_t count, size_t size, size_t *bytes)
{
    return __builtin_mul_overflow(count, size, bytes) || *bytes > PTRDIFF_MAX;
}

void *mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (product_overflows(count, size, &bytes) || fault_hits())
        return NULL;
    void *block = calloc(1, bytes ? bytes : 1);
    if (block)
        atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
    return block;
}

void *mem_realloc(void *block, size_t count, size_t size)
{
    size_t bytes;
    if (product_overflows(count, size, &bytes) || fault_hits())
        return NULL;
    void *grown = realloc(block, bytes ? bytes : 1);
    if (grown && !block)
        atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
    return grown;
}

void mem_free(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    free(block);
}

char *mem_strndup(const char *text, size_t size)
{
    char *copy = mem_alloc(size + 1, 1);
    if (copy && size)
        memcpy(copy, text, size);
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

enum { HUGE_PAGE = 2 << 20, LINE = 64 };

void *mem_alloc_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (product_overflows(count, size, &bytes) || bytes > PTRDIFF_MAX - HUGE_PAGE || fault_hits())
        return NULL;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : LINE;
    size_t rounded = (bytes + align - 1) / align * align;
    void *block = aligned_alloc(align, rounded ? rounded : LINE);
    if (!block)
        return NULL;
    if (align == HUGE_PAGE)
        madvise(block, rounded, MADV_HUGEPAGE); /* advice only: refusal costs speed, nothing else */
    memset(block, 0, rounded);
    atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
    return block;
}

void mem_free_aligned(void *block)
{
    mem_free(block);
}

struct arena_block {
    struct arena_block *next;
    size_t capacity, used; /* bytes after the header */
    char padding[LINE - sizeof(void *) - 2 * sizeof(size_t)];
    char bytes[];
};
_Static_assert(sizeof(struct arena_block) == LINE, "arena data must start on a cache line");

static struct arena_block *block_new(size_t capacity)
{
    struct arena_block *block = mem_alloc_aligned(1, sizeof *block + capacity);
    if (block)
        block->capacity = capacity;
    return block;
}

void *arena_alloc(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (product_overflows(count, size, &bytes) || bytes > PTRDIFF_MAX - 2 * LINE)
        return NULL;
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (!bytes)
        bytes = LINE;
    if (!arena->head || arena->head->capacity - arena->head->used < bytes) {
        size_t capacity = arena->block_bytes ? arena->block_bytes : 1 << 20;
        struct arena_block *block = block_new(bytes > capacity ? bytes : capacity);
        if (!block)
            return NULL;
        block->next = arena->head;
        arena->head = block;
    }
    void *place = arena->head->bytes + arena->head->used;
    arena->head->used += bytes;
    arena->used += bytes;
    return place;
}

void arena_reset(struct arena *arena)
{
    if (arena->head && arena->head->next) {
        size_t total = 0;
        for (struct arena_block *b = arena->head; b; b = b->next)
            total += b->capacity;
        arena_free(arena);
        arena->head = block_new(total); /* on failure the arena simply starts empty */
    }
    if (arena->head)
        arena->head->used = 0;
    arena->used = 0;
}

void arena_free(struct arena *arena)
{
    while (arena->head) {
        struct arena_block *next = arena->head->next;
        mem_free_aligned(arena->head);
        arena->head = next;
    }
    arena->used = 0;
}
