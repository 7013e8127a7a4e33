/* What the files of common/h5 share, and the only place that includes hdf5.h: the open file, the library's silence and
 * its message. Must not be included from anywhere else. */
#ifndef COMMON_H5_INTERNAL_H
#define COMMON_H5_INTERNAL_H

#include <hdf5.h>

#include "common/direct_io.h"
#include "common/h5.h"

struct h5 {
    H5FD_t driver; /* first: the library sees the struct as its driver's file */
    haddr_t eoa, eof;
    int fd;                     /* -1 when reading */
    struct direct_io direct;
    const unsigned char *image; /* NULL when writing */
    int refused;                /* errno of the first failed system call; nothing is written after it */
    const char *refused_call;
    hid_t file;
    char *name;
};

/* The library prints errors by default, per thread; every public function says this first. Also registers the driver. */
void h5_quiet(void);
/* "'<file>': cannot <what> '<path>'" and the innermost message of the library, or what the system refused. */
enum status h5_complain(struct h5 *file, struct error *err, const char *what, const char *path);

#endif
