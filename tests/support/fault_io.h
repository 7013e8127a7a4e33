/* System calls that fail on request. A test program that links fault_io.c calls these wrappers instead of libc's
 * functions, and so do the shared libraries it loads (the program must be linked with exported symbols). */
#ifndef TESTS_SUPPORT_FAULT_IO_H
#define TESTS_SUPPORT_FAULT_IO_H

#include <stdbool.h>

/* The n-th counted call from now (0 = the next) fails with `error`: once, or from then on. Counted are open,
 * write, pwrite, ftruncate, fsync, fdatasync, close and rename, of files other than 0, 1 and 2.
 * With `cut`, a write first takes half of its bytes, as a disk that fills up does, and the error comes with the next
 * call if `persistent`. n < 0 disarms. */
void fault_io_arm(long n, int error, bool cut, bool persistent);
/* Calls counted since the last fault_io_arm. */
long fault_io_calls(void);
/* How many of them were writes of any kind. */
long fault_io_writes(void);
/* Name of the call that failed, or NULL while none did. */
const char *fault_io_hit(void);

#endif
