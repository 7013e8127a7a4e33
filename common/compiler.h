/* Requests to the compiler that are not C17. */
#ifndef COMMON_COMPILER_H
#define COMMON_COMPILER_H

#include <stdint.h> /* __GLIBC__ */

/* In front of a function whose plain loops shall use the widest vectors of the machine it runs on: several versions
 * are compiled, the loader picks one. All give the same bits, because contraction is off and no sum is reordered. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__GLIBC__) && \
    !defined(LOAR_SANITIZED)
#define MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSION
#endif

#endif
