/* Any bytes at all: refused with a message, or a set of tensors that tile the bytes after the header exactly. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void check_entry(const struct safetensors *set, const struct safetensors_entry *e, const uint8_t *data, size_t size)
{
    struct error err;
    demand(safetensors_find(set, e->name) == e);
    demand(e->data >= data + 8 && e->data <= data + size && e->size <= (size_t)(data + size - e->data));
    demand(e->count >= 0 && e->n_dims >= 0);
    float *out = mem_alloc((size_t)e->count <= size ? (size_t)e->count : 0, sizeof *out);
    demand(out != NULL);
    bool readable = e->dtype == SAFETENSORS_F32 || e->dtype == SAFETENSORS_F16 || e->dtype == SAFETENSORS_BF16;
    demand(safetensors_to_float(e, out, &err) == (readable ? STATUS_OK : STATUS_DATA));
    mem_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct safetensors *set;
    long live = mem_live();
    enum status st = safetensors_open_memory(data, size, "fuzz", &set, &err);
    if (st != STATUS_OK) {
        demand(st == STATUS_DATA && err.text[0]);
        demand(mem_live() == live);
        return 0;
    }
    uint64_t header;
    memcpy(&header, data, 8);
    size_t total = 0;
    for (size_t i = 0; i < safetensors_count(set); i++) {
        check_entry(set, safetensors_at(set, i), data, size);
        total += safetensors_at(set, i)->size;
    }
    demand(8 + header + total == size);
    safetensors_close(set);
    demand(mem_live() == live);
    return 0;
}
