#include "proto/event.h"

#include <event.pb-c.h>

#include "common/checksum.h"
#include "common/memory.h"

enum { SESSION_START = 1, COLORSPACE_RGB = 3, DTYPE_STRING = 7, DATA_CLASS_TENSOR = 2 };

uint32_t event_masked_crc(const void *bytes, size_t size)
{
    uint32_t crc = crc32c(bytes, size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* Little-endian, whatever the machine. */
static void put_number(struct text *out, uint64_t value, int bytes)
{
    char raw[8];
    for (int i = 0; i < bytes; i++)
        raw[i] = (char)(unsigned char)(value >> (8 * i));
    text_append(out, raw, (size_t)bytes);
}

void event_put_record(const void *bytes, size_t size, struct text *out)
{
    size_t before = out->size;
    put_number(out, size, 8);
    if (out->failed)
        return;
    put_number(out, event_masked_crc(out->data + before, 8), 4);
    text_append(out, bytes, size);
    put_number(out, event_masked_crc(bytes, size), 4);
}

static void pack(const Board__Event *event, struct text *out)
{
    size_t size = board__event__get_packed_size(event);
    unsigned char *bytes = mem_alloc(size, 1);
    if (!bytes) {
        out->failed = true;
        return;
    }
    board__event__pack(event, bytes);
    event_put_record(bytes, size, out);
    mem_free(bytes);
}

/* protobuf-c takes pointers that it does not write through when it packs. */
static void put_value(const struct event *e, Board__Event *event, Board__Value *value, struct text *out)
{
    Board__Value *values[] = {value};
    Board__Summary summary = BOARD__SUMMARY__INIT;
    value->tag = (char *)e->tag;
    summary.n_value = 1;
    summary.value = values;
    event->summary = &summary;
    pack(event, out);
}

static void put_text(const struct event *e, Board__Event *event, struct text *out)
{
    Board__Value value = BOARD__VALUE__INIT;
    Board__Tensor tensor = BOARD__TENSOR__INIT;
    Board__Shape shape = BOARD__SHAPE__INIT;
    Board__Dim dim = BOARD__DIM__INIT, *dims[] = {&dim};
    Board__Metadata metadata = BOARD__METADATA__INIT;
    Board__PluginData plugin = BOARD__PLUGIN_DATA__INIT;
    ProtobufCBinaryData string = {e->size, (uint8_t *)e->bytes};
    dim.has_size = true;
    dim.size = 1;
    shape.n_dim = 1;
    shape.dim = dims;
    tensor.has_dtype = true;
    tensor.dtype = DTYPE_STRING;
    tensor.tensor_shape = &shape;
    tensor.n_string_val = 1;
    tensor.string_val = &string;
    plugin.plugin_name = (char *)"text";
    metadata.plugin_data = &plugin;
    metadata.has_data_class = true;
    metadata.data_class = DATA_CLASS_TENSOR;
    value.tensor = &tensor;
    value.metadata = &metadata;
    put_value(e, event, &value, out);
}

static void put_image(const struct event *e, Board__Event *event, struct text *out)
{
    Board__Value value = BOARD__VALUE__INIT;
    Board__Image image = BOARD__IMAGE__INIT;
    image.has_height = image.has_width = image.has_colorspace = image.has_encoded_image_string = true;
    image.height = e->height;
    image.width = e->width;
    image.colorspace = COLORSPACE_RGB;
    image.encoded_image_string = (ProtobufCBinaryData){e->size, (uint8_t *)e->bytes};
    value.image = &image;
    put_value(e, event, &value, out);
}

void event_put(const struct event *e, struct text *out)
{
    Board__Event event = BOARD__EVENT__INIT;
    Board__Value value = BOARD__VALUE__INIT;
    Board__SessionLog session = BOARD__SESSION_LOG__INIT;
    event.has_wall_time = true;
    event.wall_time = e->wall_time;
    event.has_step = e->kind != EVENT_FILE_VERSION;
    event.step = e->step;
    switch (e->kind) {
    case EVENT_FILE_VERSION:
        event.file_version = (char *)"brain.Event:2";
        return pack(&event, out);
    case EVENT_START:
        session.has_status = true;
        session.status = SESSION_START;
        event.session_log = &session;
        return pack(&event, out);
    case EVENT_SCALAR:
        value.has_simple_value = true;
        value.simple_value = (float)e->scalar;
        return put_value(e, &event, &value, out);
    case EVENT_TEXT:
        return put_text(e, &event, out);
    case EVENT_IMAGE:
        return put_image(e, &event, out);
    }
}
