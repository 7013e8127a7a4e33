/* The writing half of safetensors: header first, then every tensor streamed through one small buffer, so that
 * saving a model never needs a second copy of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/text.h"
#include "worker/model/safetensors.h"

enum { PIECE_VALUES = 1 << 18 }; /* converted and written at a time */

static int64_t count_of(const struct safetensors_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        count *= tensor->shape[i];
    return count;
}

static int64_t width_of(const struct safetensors_tensor *tensor)
{
    return tensor->dtype == SAFETENSORS_F32 ? 4 : 2;
}

/* Widest dtype first, then by name. */
static int by_layout(const void *a, const void *b)
{
    const struct safetensors_tensor *x = *(const void *const *)a, *y = *(const void *const *)b;
    if (x->dtype != y->dtype)
        return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The length and the padded header. */
static void write_header(const struct safetensors_tensor *const *order, size_t count, struct text *out)
{
    const uint64_t unknown = 0;
    text_append(out, (const char *)&unknown, sizeof unknown);
    text_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    int64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t end = offset + count_of(order[i]) * width_of(order[i]);
        text_puts(out, ",");
        text_json_string(out, order[i]->name, strlen(order[i]->name));
        text_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", safetensors_dtype_name(order[i]->dtype));
        for (int d = 0; d < order[i]->n_dims; d++)
            text_printf(out, "%s%lld", d ? "," : "", (long long)order[i]->shape[d]);
        text_printf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)offset, (long long)end);
        offset = end;
    }
    text_puts(out, "}");
    while (!out->failed && out->size % 8)
        text_puts(out, " ");
    uint64_t length = out->size - sizeof length;
    if (!out->failed)
        memcpy(out->data, &length, sizeof length);
}

static enum status write_all(int fd, const char *path, const void *data, size_t size, struct error *err)
{
    const char *at = data;
    while (size) {
        ssize_t put = write(fd, at, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            FAIL(err, STATUS_IO, "cannot write '%s': %s", path, strerror(errno));
        at += put;
        size -= (size_t)put;
    }
    return STATUS_OK;
}

/* Upper half of the float, rounded to nearest even; a NaN stays one whatever bits it loses. */
static uint16_t brain_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static enum status write_tensor(int fd, const char *path, const struct safetensors_tensor *tensor, uint16_t *piece,
                                struct error *err)
{
    int64_t count = count_of(tensor);
    for (int64_t done = 0; done < count; done += PIECE_VALUES) {
        size_t n = (size_t)(count - done < PIECE_VALUES ? count - done : PIECE_VALUES);
        const float *values = tensor->values + done;
        if (tensor->dtype == SAFETENSORS_F32) {
            TRY(write_all(fd, path, values, n * sizeof *values, err));
            continue;
        }
        for (size_t i = 0; i < n; i++)
            piece[i] = brain_of_float(values[i]);
        TRY(write_all(fd, path, piece, n * sizeof *piece, err));
    }
    return STATUS_OK;
}

static enum status write_file(const char *path, const struct safetensors_tensor *const *order, size_t count,
                              const struct text *header, uint16_t *piece, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        FAIL(err, STATUS_IO, "cannot create '%s': %s", path, strerror(errno));
    enum status st = write_all(fd, path, header->data, header->size, err);
    for (size_t i = 0; i < count && st == STATUS_OK; i++)
        st = write_tensor(fd, path, order[i], piece, err);
    if (close(fd) && st == STATUS_OK)
        st = error_set(err, STATUS_IO, "cannot close '%s': %s", path, strerror(errno));
    return st;
}

enum status safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (tensors[i].dtype != SAFETENSORS_F32 && tensors[i].dtype != SAFETENSORS_BF16)
            FAIL(err, STATUS_INTERNAL, "tensor '%s' cannot be written as %s, only as F32 or BF16", tensors[i].name,
                 safetensors_dtype_name(tensors[i].dtype));
    struct text header = {0}, temporary = {0};
    const struct safetensors_tensor **order = mem_alloc(count, sizeof *order);
    uint16_t *piece = mem_alloc(PIECE_VALUES, sizeof *piece);
    enum status st = STATUS_OK;
    text_printf(&temporary, "%s.tmp", path);
    if (order) {
        for (size_t i = 0; i < count; i++)
            order[i] = &tensors[i];
        qsort(order, count, sizeof *order, by_layout);
        write_header(order, count, &header);
    }
    if (!order || !piece || temporary.failed || header.failed)
        st = error_set(err, STATUS_NOMEM, "no memory to write '%s'", path);
    if (st == STATUS_OK)
        st = write_file(temporary.data, order, count, &header, piece, err);
    if (st == STATUS_OK)
        st = file_publish(temporary.data, path, err);
    if (st != STATUS_OK && !temporary.failed)
        unlink(temporary.data);
    text_free(&header);
    text_free(&temporary);
    mem_free(order);
    mem_free(piece);
    return st;
}
