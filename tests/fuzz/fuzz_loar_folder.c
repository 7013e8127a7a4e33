/* Any text at all as loar_config.json: refused with a message, or a routing that fits the model and that, written out, reads
 * back as itself. */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "launch/loar_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int truth)
{
    if (!truth)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct model_config model = {.width = 32, .layers = 4, .heads = 4, .head_dim = 8};
    const struct loar_shape shape = model_shape(&model);
    struct error err = {0};
    struct loar_setup *setup, *again;
    long live = mem_live();
    enum status st = loar_folder_parse((const char *)data, size, "fuzz", &model, &setup, &err);
    if (st != STATUS_OK) {
        demand(st == STATUS_DATA && err.text[0] && !setup && mem_live() == live);
        return 0;
    }
    demand(loar_check(&setup->plan.config, &shape, setup->plan.layers, model.layers, &err) == STATUS_OK);
    demand(setup->default_task >= 0 && setup->default_task < setup->plan.config.n_tasks);
    struct text first = {0}, second = {0};
    loar_folder_write(setup, &first);
    demand(loar_folder_parse(first.data, first.size, "written", &model, &again, &err) == STATUS_OK);
    loar_folder_write(again, &second);
    demand(first.size == second.size && !memcmp(first.data, second.data, first.size));
    text_free(&first);
    text_free(&second);
    loar_setup_free(setup);
    loar_setup_free(again);
    demand(mem_live() == live);
    return 0;
}
