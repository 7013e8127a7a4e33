/* Any text at all as a run file: refused with a message, or options whose own lines read back as the same options. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/options.h"
#include "common/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

/* Lines of all options must be options again, and the same. */
static void check_round_trip(const struct options *options)
{
    struct error err;
    struct options again;
    struct text first = {0}, second = {0};
    options_format(options, OPTIONS_ALL, &first);
    demand(options_parse_text(first.data, first.size, "lines", 0, NULL, &again, NULL, &err) == STATUS_OK);
    options_format(&again, OPTIONS_ALL, &second);
    demand(first.size == second.size && !memcmp(first.data, second.data, first.size));
    demand(options_check_resume(options, first.data, first.size, NULL, &err) == STATUS_OK);
    options_free(&again);
    text_free(&first);
    text_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct options options;
    struct text notes = {0}, json = {0};
    struct yaml_document *document;
    long live = mem_live();
    enum status st = options_parse_text((const char *)data, size, "fuzz", 0, NULL, &options, &notes, &err);
    if (st == STATUS_OK) {
        check_round_trip(&options);
        options_free(&options);
    } else {
        demand(st == STATUS_USAGE && err.text[0]);
    }
    if (yaml_parse((const char *)data, size, "fuzz", &document, &err) == STATUS_OK) {
        if (yaml_root(document))
            (void)yaml_to_json(yaml_root(document), "fuzz", &json, &err);
        yaml_close(document);
    }
    text_free(&notes);
    text_free(&json);
    demand(mem_live() == live);
    return 0;
}
