/* Any text at all as config.json: refused with a message, or a configuration whose sizes are sane and that, written out,
 * reads back as itself. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "worker/model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct model_config c, again;
    long live = mem_live();
    enum status st = model_config_parse((const char *)data, size, "fuzz", &c, &err);
    if (st != STATUS_OK) {
        demand(st == STATUS_DATA && err.text[0] && mem_live() == live);
        return 0;
    }
    demand(c.heads > 0 && c.kv_heads > 0 && c.heads % c.kv_heads == 0 && c.head_dim > 0 && c.head_dim % 2 == 0);
    demand(c.width > 0 && c.hidden > 0 && c.layers > 0 && c.vocab > 0 && c.bos < c.vocab);
    struct text first = {0}, second = {0};
    model_config_write(&c, "float32", &first);
    demand(model_config_parse(first.data, first.size, "written", &again, &err) == STATUS_OK);
    model_config_write(&again, "float32", &second);
    demand(first.size == second.size && !memcmp(first.data, second.data, first.size));
    text_free(&first);
    text_free(&second);
    demand(mem_live() == live);
    return 0;
}
