/* A thin, strict layer over libhdf5, the only place that includes it. Files are written through a file driver of our
 * own that remembers the first refusal of the system, so that a full disk ends in one clear message and a closed
 * file, and read back from memory (a map of the file), so that no lock is ever taken. Only for files that this program
 * wrote: libhdf5 trusts what it parses. One struct is used by one thread at a time.
 * Must not know: what the datasets mean. */
#ifndef COMMON_H5_H
#define COMMON_H5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct h5;

/* Bytes in front of the HDF5 part of files made by h5_create; the caller's to fill after h5_close. */
enum { H5_USER_BLOCK = 512, H5_MAX_DIMS = 8 };

/* Version of the library in use: "1.10.8". */
void h5_version(char out[64]);

/* Makes (or empties) a file for writing. */
enum status h5_create(const char *path, struct h5 **out, struct error *err);
/* Opens a file image for reading; `name` is for messages, the image must stay until h5_close. STATUS_DATA when it is
 * not HDF5. */
enum status h5_open_image(const char *name, const void *image, size_t size, struct h5 **out, struct error *err);
/* Flushes and frees. After h5_create: fails when anything was not written, now or before. NULL is allowed. */
enum status h5_close(struct h5 *file, struct error *err);

/* Writing. Paths are absolute; missing groups on the way are made. */
enum status h5_write_group(struct h5 *file, const char *path, struct error *err);
/* A contiguous float32 dataset. */
enum status h5_write_floats(struct h5 *file, const char *path, int n_dims, const int64_t *shape, const float *values,
                            struct error *err);
/* A UTF-8 text of any size as one string of fixed length, with its length in the attribute `bytes`. */
enum status h5_write_text(struct h5 *file, const char *path, const char *text, size_t size, struct error *err);
/* A table of int64 columns with names: values[rows][columns]. */
enum status h5_write_table(struct h5 *file, const char *path, int columns, const char *const *names, int64_t rows,
                           const int64_t *values, struct error *err);
enum status h5_set_int(struct h5 *file, const char *path, const char *name, int64_t value, struct error *err);
enum status h5_set_real(struct h5 *file, const char *path, const char *name, double value, struct error *err);
enum status h5_set_string(struct h5 *file, const char *path, const char *name, const char *value, struct error *err);

/* Reading. What is missing, of another type or outside the file is STATUS_DATA naming the object. */
enum status h5_get_int(struct h5 *file, const char *path, const char *name, int64_t *out, struct error *err);
/* A float32 dataset, little-endian, contiguous: its shape and where its bytes lie in the image (perhaps not aligned). */
enum status h5_read_floats(struct h5 *file, const char *path, int *n_dims, int64_t shape[H5_MAX_DIMS],
                           const unsigned char **bytes, struct error *err);
/* A text written by h5_write_text, inside the image, without a NUL. */
enum status h5_read_text(struct h5 *file, const char *path, const char **text, size_t *size, struct error *err);

#endif
