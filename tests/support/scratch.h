/* Folders and files of a test's own, under TMPDIR or else in /tmp.
 * Must not know: what is written there. */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCRATCH_SIZE = 64 }; /* of a path, with its end */

/* A template for mkdtemp: "PARENT/loar-NAME-" and the six letters that it asks for. false: PARENT is too long. */
static inline bool scratch_template(char out[SCRATCH_SIZE], const char *parent, const char *name)
{
    enum { LETTERS_ASKED = 6 };
    size_t size = (size_t)snprintf(out, SCRATCH_SIZE, "%s/loar-%s-", parent, name);
    if (size + LETTERS_ASKED >= SCRATCH_SIZE)
        return false;
    memset(out + size, 'X', LETTERS_ASKED);
    out[size + LETTERS_ASKED] = '\0';
    return true;
}

/* What TMPDIR says, where that leaves room for a name. */
static inline void scratch_place(char out[SCRATCH_SIZE], const char *name)
{
    const char *parent = getenv("TMPDIR");
    if (!parent || !*parent || !scratch_template(out, parent, name))
        scratch_template(out, "/tmp", name);
}

/* A new, empty folder; NULL if there can be none. */
static inline char *scratch_folder_in(const char *parent, char out[SCRATCH_SIZE], const char *name)
{
    return scratch_template(out, parent, name) ? mkdtemp(out) : NULL;
}

static inline char *scratch_folder(char out[SCRATCH_SIZE], const char *name)
{
    scratch_place(out, name);
    return mkdtemp(out);
}

/* A new, empty file. */
static inline char *scratch_file(char out[SCRATCH_SIZE], const char *name)
{
    scratch_place(out, name);
    int fd = mkstemp(out);
    return fd >= 0 && !close(fd) ? out : NULL;
}

static inline int scratch_remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status, (void)kind, (void)walk;
    return remove(path);
}

/* With all that is in it. 0: done. */
static inline int scratch_remove(const char *path)
{
    return nftw(path, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
