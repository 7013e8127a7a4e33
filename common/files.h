/* Files: whole reads, read-only maps, durable atomic replacement, folders.
 * Errors name the path and what the system said. */
#ifndef COMMON_FILES_H
#define COMMON_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct file_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;
};

/* Maps a regular file read-only; ranks of a node share the pages. A missing file is STATUS_DATA. */
enum status file_map_open(const char *path, struct file_map *out, struct error *err);
void file_map_close(struct file_map *map);

/* Reads a whole file into memory with a NUL after it; the caller frees with mem_free. */
enum status file_read(const char *path, char **out, size_t *size, struct error *err);

/* Writes path.tmp, fsyncs it, renames it over path and fsyncs the folder. */
enum status file_replace(const char *path, const void *data, size_t size, struct error *err);
/* The same for pieces laid end to end, written to `temporary` first, which must lie in the same folder and be nobody else's. */
struct file_piece {
    const void *data;
    size_t size;
};
enum status file_replace_pieces(const char *path, const char *temporary, const struct file_piece *pieces, int count,
                                struct error *err);
/* The second half of the above for a file that was written by other means: fsync, rename, fsync folder. */
enum status file_publish(const char *temporary, const char *path, struct error *err);
/* Lets the system drop its cached pages of a flushed file that nobody is about to read. Advice: it cannot fail. */
void file_forget(const char *path);

bool file_exists(const char *path);
/* file_replace of dir/name. */
enum status file_replace_in(const char *dir, const char *name, const void *data, size_t size, struct error *err);
/* Removes dir/name if it is there. */
void file_remove_in(const char *dir, const char *name);
/* By its ending, .yaml or .yml. */
bool path_is_yaml(const char *path);
bool folder_exists(const char *path);
/* True when the folder is absent or holds nothing. */
bool folder_is_empty(const char *path);
/* Makes the folder and its parents. */
enum status folder_make(const char *path, struct error *err);
/* dir + "/" + name in a new string (mem_free), NULL when memory is short. */
char *path_join(const char *dir, const char *name);

#endif
