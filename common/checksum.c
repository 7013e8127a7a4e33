#include "common/checksum.h"

#include <isa-l/crc.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#ifdef LOAR_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* the same values by the widest vectors of this CPU, about twice as fast */
#endif

uint32_t crc32c_more(uint32_t before, const void *data, size_t size)
{
    /* isa-l takes int lengths and leaves the final inversion to the caller. */
    uint32_t crc = before ^ 0xFFFFFFFFu;
    const unsigned char *at = data;
    while (size) {
        size_t part = size < (1u << 30) ? size : 1u << 30;
        crc = crc32_iscsi((unsigned char *)at, (int)part, crc);
        at += part;
        size -= part;
    }
    return crc ^ 0xFFFFFFFFu;
}

uint32_t crc32c(const void *data, size_t size)
{
    return crc32c_more(0, data, size);
}

uint64_t hash64(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

/* The public name stands for the library's state. */
static XXH3_state_t *state_of(struct digest *digest)
{
    return (XXH3_state_t *)digest;
}

struct digest *digest_new(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state)
        XXH3_128bits_reset(state);
    return (struct digest *)state;
}

void digest_add(struct digest *digest, const void *data, size_t size)
{
    XXH3_128bits_update(state_of(digest), data, size);
}

void digest_add_string(struct digest *digest, const char *string)
{
    uint64_t size = strlen(string);
    digest_add(digest, &size, sizeof size);
    digest_add(digest, string, size);
}

void digest_finish(struct digest *digest, char hex[DIGEST_HEX_SIZE])
{
    XXH128_hash_t hash = XXH3_128bits_digest(state_of(digest));
    XXH3_freeState(state_of(digest));
    snprintf(hex, DIGEST_HEX_SIZE, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}
