/* Rows as tokens in a file, so that the next run need not make them again. A file is found by a key of everything that
 * shapes its rows, and used only where the key, every length and every checksum fit; else it is made anew. It can make a
 * run faster, never different.
 *
 * The file: a header (struct header in cache.c) with the key, the counts, the statistics, a CRC-32C of each piece and one of
 * itself; then the pieces: starts, the arrays of dataset_arrays, and the first problems. Numbers are in the machine's order,
 * which the header tells, too.
 * Must not know: what shapes rows (the text of the key says it), options, ranks. */
#ifndef WORKER_DATA_CACHE_H
#define WORKER_DATA_CACHE_H

#include "common/checksum.h"
#include "worker/data/dataset.h"

struct dataset_cache {
    const char *folder;
    const char *key; /* all that shapes rows, but for the file of rows and the tokenizer, as text */
    bool renew;      /* do not look, only write */
};

/* Rows as they were read, from either file; they lie behind those of the data set. */
struct dataset_found {
    int64_t rows;         /* of the data set with them */
    const char *format;
    struct dataset_stats stats;
    char *problems, *note; /* or NULL */
    char **label_names;    /* [n_label_names] of rows with a class, which no cache keeps */
    int n_label_names;
};

struct cache_entry {
    char *path; /* NULL: the file of rows cannot be read, and its reader will say why */
    char key[DIGEST_HEX_SIZE];
    bool renew;
};

/* Where the rows of the spec belong. Reads the file of rows for its digest. */
enum status cache_find(const struct dataset_spec *spec, const struct tokenizer *tokenizer, struct cache_entry *out, struct error *err);
void cache_entry_free(struct cache_entry *entry);
/* Puts the rows behind those of the data set where the file can be trusted, *done. Where it cannot, out->note says why. */
enum status cache_read(const struct cache_entry *entry, struct dataset *dataset, struct dataset_found *out, bool *done,
                       struct error *err);
/* Writes the rows [dataset->rows, found->rows). What the system refuses becomes a note. */
enum status cache_write(const struct cache_entry *entry, const struct dataset *dataset, struct dataset_found *found,
                        struct error *err);

#endif
