/* How the program was called, and from that the commands a person may type next.
 * Must not know: what a run is. */
#ifndef LAUNCH_INVOCATION_H
#define LAUNCH_INVOCATION_H

#include "common/text.h"

struct invocation {
    const char *program, *run_file; /* program: as it was typed */
    int ranks;                      /* 0: without mpirun */
    int n_overrides;
    char *const *overrides;
};

/* A word as a shell reads it: quoted where it must be. */
void invocation_put_word(const char *word, struct text *out);
/* Another program of the same folder: "build/bin/loar". */
void invocation_put_sibling(const struct invocation *invocation, const char *name, struct text *out);
/* The same command, going on from the newest snapshot. */
void invocation_put_resume(const struct invocation *invocation, struct text *out);

#endif
