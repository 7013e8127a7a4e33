/* Arbitrary bytes as a snapshot: as they are, which the seal refuses unless every byte is as written, and with the
 * checksums ignored, so that the checks behind them meet every kind of damage too. */
#include <stdint.h>
#include <stdlib.h>

#include "common/memory.h"
#include "ps/snapshot_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_VALUES = 1 << 24 };

/* Goes through all that a resume and an export read. */
static void read_everything(const struct snapshot *snapshot)
{
    char digest[DIGEST_HEX_SIZE], *text;
    struct error err;
    size_t size;
    const struct params *table = snapshot_params(snapshot);
    snapshot_recompute_digest(snapshot, digest, &err);
    for (int i = 0; i < snapshot_files(snapshot); i++)
        if (snapshot_file(snapshot, snapshot_file_at(snapshot, i), &text, &size, &err) == STATUS_OK)
            mem_free(text);
    if (snapshot_text(snapshot, "config", &text, &size, &err) == STATUS_OK)
        mem_free(text);
    float *values = table->values <= MOST_VALUES ? mem_alloc_aligned((size_t)table->values, sizeof *values) : NULL;
    struct snapshot_target target = {snapshot_states(snapshot) ? snapshot_state_name(snapshot, 0) : "exp_avg", values};
    if (values)
        snapshot_load(snapshot, table, values, 1, &target, &err);
    mem_free_aligned(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct snapshot *snapshot;
    long before = mem_live();
    bool whole = snapshot_open_image("input", data, size, true, &snapshot, &err) == STATUS_OK;
    if (whole)
        snapshot_close(snapshot);
    enum status st = snapshot_open_image("input", data, size, false, &snapshot, &err);
    if (st == STATUS_OK) {
        read_everything(snapshot);
        snapshot_close(snapshot);
    } else if (whole || st != STATUS_DATA || !err.text[0])
        abort();
    if (mem_live() != before)
        abort();
    return 0;
}
