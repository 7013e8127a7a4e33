/* CRC32C for every payload and dataset, a 64-bit hash to find equal things by, and the 128-bit digest that decides
 * whether two runs are "the same". */
#ifndef COMMON_CHECKSUM_H
#define COMMON_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli) of the bytes; crc32c("123456789") = 0xE3069283. */
uint32_t crc32c(const void *data, size_t size);
/* Checksum of bytes whose beginning has checksum `before` and whose rest is `data`; crc32c is crc32c_more(0, ...). */
uint32_t crc32c_more(uint32_t before, const void *data, size_t size);

/* XXH3-64: fast and well spread, for finding equal things. */
uint64_t hash64(const void *data, size_t size);

/* Streaming XXH3-128. */
struct digest;
struct digest *digest_new(void); /* NULL when memory is short */
void digest_add(struct digest *digest, const void *data, size_t size);
/* Adds a string with its length, so that neighbouring strings cannot run into each other. */
void digest_add_string(struct digest *digest, const char *string);
enum { DIGEST_HEX_SIZE = 33 };
/* Writes 32 lower-case hex digits and a NUL, and frees the digest. */
void digest_finish(struct digest *digest, char hex[DIGEST_HEX_SIZE]);

#endif
