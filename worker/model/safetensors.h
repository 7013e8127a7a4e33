/* safetensors files: a strict reader over read-only maps, for one file or a sharded set, and a streaming
 * writer. Sharing maps lets the ranks of a node keep one copy of the weights.
 * Must not know: which tensors a model wants. */
#ifndef WORKER_MODEL_SAFETENSORS_H
#define WORKER_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* Element types of the format, in its own order of alignment (the writer lays out the last ones first). */
enum safetensors_dtype {
    SAFETENSORS_BOOL,
    SAFETENSORS_F4,
    SAFETENSORS_F6_E2M3,
    SAFETENSORS_F6_E3M2,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_F8_E8M0,
    SAFETENSORS_F8_E4M3FNUZ,
    SAFETENSORS_F8_E5M2FNUZ,
    SAFETENSORS_I16,
    SAFETENSORS_U16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I32,
    SAFETENSORS_U32,
    SAFETENSORS_F32,
    SAFETENSORS_C64,
    SAFETENSORS_F64,
    SAFETENSORS_I64,
    SAFETENSORS_U64,
    SAFETENSORS_DTYPE_COUNT
};
/* The name in the file: "F32", "BF16", ... */
const char *safetensors_dtype_name(enum safetensors_dtype dtype);

struct safetensors_entry {
    char *name;
    enum safetensors_dtype dtype;
    int n_dims;                /* 0 for a scalar */
    const int64_t *shape;      /* [n_dims] */
    int64_t count;             /* product of shape */
    const unsigned char *data; /* [size] row-major, little-endian, at any alignment */
    size_t size;               /* bytes */
    const char *file;          /* path of the file that holds it, for messages */
    int64_t *owned_shape;      /* private */
};

struct safetensors; /* one file or a sharded set; tensors in order of their names */

/* path: a file, or a folder with model.safetensors or with model.safetensors.index.json and its shards.
 * Everything the format forbids is refused with STATUS_DATA naming file and tensor: header length, JSON,
 * fields, unknown dtype, holes, overlaps, sizes, missing or extra bytes, a shard that is absent, a tensor that
 * is not in the shard it is mapped to. Tensors of a shard that the index does not list are left out. */
enum status safetensors_open(const char *path, struct safetensors **out, struct error *err);
/* The same over bytes in memory that stay the caller's; `where` names them in messages. */
enum status safetensors_open_memory(const void *data, size_t size, const char *where, struct safetensors **out,
                                    struct error *err);
void safetensors_close(struct safetensors *set);

size_t safetensors_count(const struct safetensors *set);
const struct safetensors_entry *safetensors_at(const struct safetensors *set, size_t index);
/* NULL where there is no tensor of that name. */
const struct safetensors_entry *safetensors_find(const struct safetensors *set, const char *name);

/* Converts a tensor to out[entry->count]. F32, F16 and BF16 (exact); other dtypes are refused by name. */
enum status safetensors_to_float(const struct safetensors_entry *entry, float *out, struct error *err);

/* "[2, 3]" for messages, cut short if it does not fit. */
void safetensors_shape_text(const int64_t *shape, int n_dims, char *out, size_t size);

/* A tensor to write: values[product of shape] become `dtype`, F32 or BF16 (round to nearest even, NaN kept). */
struct safetensors_tensor {
    const char *name;
    enum safetensors_dtype dtype;
    int n_dims;
    const int64_t *shape;
    const float *values;
};

/* Writes the tensors with {"format":"pt"} as metadata, in the layout of the reference writer: widest dtype
 * first, then by name; header padded with spaces to a multiple of 8. Streams into path.tmp, flushes it to disk
 * and renames it, so the file is whole or absent; nothing stays behind on failure. */
enum status safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count,
                              struct error *err);

#endif
