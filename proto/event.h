/* Records of an event file as TensorBoard reads it: a packed Event between its length and two checksums. event.c is the
 * only includer of the code that is generated from event.proto.
 * Must not know: files, what a run measures, which tags there are. */
#ifndef PROTO_EVENT_H
#define PROTO_EVENT_H

#include <stddef.h>
#include <stdint.h>

#include "common/text.h"

enum event_kind {
    EVENT_FILE_VERSION, /* the first record of every file; has no step */
    EVENT_START,        /* steps from here on are written anew: readers drop what earlier files say of them */
    EVENT_SCALAR,
    EVENT_TEXT,  /* Markdown */
    EVENT_IMAGE, /* a PNG file of RGB */
};

/* Only wall_time, and what the kind needs; borrowed. */
struct event {
    enum event_kind kind;
    double wall_time; /* seconds since 1970 */
    int64_t step;
    const char *tag;
    double scalar; /* travels as a float */
    const void *bytes; /* of text or image */
    size_t size;
    int width, height;
};

/* Appends the whole record; `out` is failed where memory is short. */
void event_put(const struct event *event, struct text *out);

/* Appends the record of any bytes: length, its checksum, bytes, theirs. */
void event_put_record(const void *bytes, size_t size, struct text *out);
/* CRC32C, turned and shifted so that a checksum of data that hold checksums stays a good one. */
uint32_t event_masked_crc(const void *bytes, size_t size);

#endif
