/* Allocation: counted, overflow-checked, and able to fail on request so that tests can walk every
 * out-of-memory path. Arenas for data with one lifetime.
 * Must not know: what is stored. */
#ifndef COMMON_MEMORY_H
#define COMMON_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* count * size bytes, zeroed; NULL when memory is short, the product overflows or a fault is armed.
 * A zero-sized request returns a valid pointer. */
void *mem_alloc(size_t count, size_t size);
/* Grows or shrinks; keeps the old block valid when it returns NULL. New bytes are not cleared. */
void *mem_realloc(void *block, size_t count, size_t size);
void mem_free(void *block);
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t size);

/* Zeroed block aligned to 64 bytes (and, from 2 MiB, advised onto huge pages) for vectors and matrices.
 * Released with mem_free_aligned. */
void *mem_alloc_aligned(size_t count, size_t size);
void mem_free_aligned(void *block);

/* Test hooks. mem_fail_after(n): the n-th allocation from now (0 = the next) fails, once or from then on;
 * n < 0 disarms. mem_live() counts blocks not yet freed. */
void mem_fail_after(long n, bool persistent);
long mem_live(void);

/* Bump allocator: blocks live until the arena is reset or freed. Not for use by several threads. */
struct arena_block;
struct arena {
    struct arena_block *head;
    size_t used;        /* bytes handed out since the last reset */
    size_t block_bytes; /* size of a new block; 0 = 1 MiB */
};

/* 64-byte aligned, not cleared; NULL when memory is short. */
void *arena_alloc(struct arena *arena, size_t count, size_t size);
/* Forgets all blocks but keeps the memory (joined into one block) for the next round. */
void arena_reset(struct arena *arena);
void arena_free(struct arena *arena);

#endif
