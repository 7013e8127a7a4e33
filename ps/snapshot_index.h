/* The index at the end of a snapshot, behind the HDF5 part: a JSON text that repeats the attributes of /run and says
 * where the bytes of every dataset lie. It is made from what libhdf5 reads back after writing, and is all that reading
 * needs: a file from a stranger never meets libhdf5, which trusts what it parses.
 * Must not know: folders, when to write. */
#ifndef PS_SNAPSHOT_INDEX_H
#define PS_SNAPSHOT_INDEX_H

#include "common/text.h"
#include "ps/snapshot.h"

enum { INDEX_MODEL = 0, INDEX_MAX_ARRAYS = 1 + SNAPSHOT_MAX_STATES };

struct index_place {
    int64_t offset; /* in the file */
    uint32_t crc32c;
};

struct index_text {
    char *name;
    int64_t offset, bytes;
};

struct index_texts {
    struct index_text *items;
    int count;
};

struct snapshot_index {
    struct snapshot_meta meta;
    struct params table; /* the saved tensors; all trained */
    int n_arrays;        /* the model, then the states */
    char names[INDEX_MAX_ARRAYS][SNAPSHOT_STRING_SIZE]; /* "model", "exp_avg", ... */
    struct index_place *places[INDEX_MAX_ARRAYS]; /* [table.count] */
    struct snapshot_shard *shards;
    int n_shards;
    struct index_texts texts, files; /* below /run and /run/files */
};

/* Reads the HDF5 image of a written view back through libhdf5, compares every tensor's shape and every text with the view (its
 * shards must be set), and appends the index; verify_content compares the tensors' bytes. STATUS_IO names what reads back
 * differently. */
enum status index_build(const char *path, const unsigned char *image, size_t size, const struct snapshot_view *view,
                        const struct snapshot_meta *meta, struct text *out, struct error *err);
/* The other way, for a file whose datasets lie in bytes [0, limit). STATUS_DATA when anything does not fit. */
enum status index_parse(const char *path, const char *text, size_t size, int64_t limit, struct snapshot_index *out,
                        struct error *err);
void index_free(struct snapshot_index *index);

#endif
