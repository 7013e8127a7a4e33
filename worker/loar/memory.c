#include "worker/loar/memory.h"

#include <string.h>

#include "common/memory.h"

enum status loar_memory_create(int64_t width, int heads, struct loar_memory *out, struct error *err)
{
    *out = (struct loar_memory){.width = width, .heads = heads};
    out->sum = mem_alloc_aligned((size_t)width, sizeof *out->sum);
    out->on = mem_alloc((size_t)heads, sizeof *out->on);
    out->gate = mem_alloc((size_t)heads, sizeof *out->gate);
    if (out->sum && out->on && out->gate)
        return STATUS_OK;
    loar_memory_free(out);
    FAIL(err, STATUS_NOMEM, "no memory for the routing state of a layer of width %lld", (long long)width);
}

void loar_memory_reset(struct loar_memory *memory)
{
    memset(memory->sum, 0, (size_t)memory->width * sizeof *memory->sum);
    memset(memory->on, 0, (size_t)memory->heads * sizeof *memory->on);
    memset(memory->gate, 0, (size_t)memory->heads * sizeof *memory->gate);
}

void loar_memory_free(struct loar_memory *memory)
{
    mem_free_aligned(memory->sum);
    mem_free(memory->on);
    mem_free(memory->gate);
    *memory = (struct loar_memory){0};
}
