/* Any bytes at all as a tokenizer.json, a NUL, and a text: the file is refused with its name, or the text becomes ids that
 * exist and decode the same at once and as a stream. Nothing is kept. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/data/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

static void check_decoding(const struct tokenizer *t, const struct token_list *ids, bool skip)
{
    struct text whole = {0}, streamed = {0};
    struct tokenizer_stream stream;
    struct error err;
    enum status st = tokenizer_decode(t, ids->ids, ids->count, skip, &whole, &err);
    demand(tokenizer_stream_init(&stream, t, skip, &err) == STATUS_OK);
    for (size_t i = 0; i < ids->count && st == STATUS_OK; i++)
        st = tokenizer_stream_push(&stream, ids->ids[i], &streamed, &err);
    if (st == STATUS_OK)
        st = tokenizer_stream_finish(&stream, &streamed, &err);
    demand(st == STATUS_OK ? whole.size == streamed.size && (!whole.size || !memcmp(whole.data, streamed.data, whole.size))
                           : st == STATUS_DATA);
    tokenizer_stream_free(&stream);
    text_free(&whole);
    text_free(&streamed);
}

static void check_text(const struct tokenizer *t, const char *text, size_t size, unsigned flags)
{
    struct token_list ids = {0}, again = {0};
    struct error err;
    enum status st = tokenizer_encode(t, text, size, flags, &ids, &err);
    demand(st == STATUS_OK || (st == STATUS_DATA && !ids.count));
    for (size_t i = 0; i < ids.count; i++) {
        size_t length;
        demand(tokenizer_token(t, ids.ids[i], &length) != NULL);
    }
    demand(tokenizer_encode(t, text, size, flags, &again, &err) == st && again.count == ids.count);
    demand(!ids.count || !memcmp(ids.ids, again.ids, ids.count * sizeof *ids.ids)); /* words are remembered rightly */
    check_decoding(t, &ids, flags & TOKENIZE_SPECIALS);
    tokenizer_has_special(t, text, size);
    token_list_free(&ids);
    token_list_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data, *end = size ? memchr(data, '\0', size) : NULL;
    size_t json_size = end ? (size_t)(end - json) : size;
    struct tokenizer *t = NULL;
    struct error err = {0};
    long live = mem_live();
    enum status st = tokenizer_load_text(json, json_size, NULL, 0, "fuzz", &t, &err);
    if (st == STATUS_OK) {
        const char *text = end ? end + 1 : "";
        size_t text_size = end ? size - json_size - 1 : 0;
        for (unsigned flags = 0; flags <= (TOKENIZE_ADDED | TOKENIZE_SPECIALS); flags++)
            check_text(t, text, text_size, flags);
        tokenizer_free(t);
    } else {
        demand(st == STATUS_DATA && !strncmp(err.text, "fuzz", 4));
    }
    demand(mem_live() == live);
    return 0;
}
