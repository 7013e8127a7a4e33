#include "launch/work.h"

#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "common/node_memory.h"
#include "launch/flags.h"
#include "launch/responder.h"
#include "launch/run.h"
#include "worker/train/join.h"
#include "worker/train/loop.h"

enum { SERVER = 0, JOIN_TIMEOUT_MS = 600000, BASE_NAME_SIZE = 64 };

/* What the frozen tensors are, for the ranks of one node that one launcher has started; false: share with nobody. */
static bool name_base(const struct run *run, int ranks_on_node, char name[BASE_NAME_SIZE])
{
    char tensors[DIGEST_HEX_SIZE], all[DIGEST_HEX_SIZE];
    struct digest *digest = run->table.frozen && ranks_on_node > 1 && getppid() > 1 ? digest_new() : NULL;
    if (!digest)
        return false;
    params_fingerprint(&run->table, tensors);
    digest_add_string(digest, tensors);
    digest_add_string(digest, run->options->model_name_or_path);
    digest_finish(digest, all);
    snprintf(name, BASE_NAME_SIZE, "%d-%s", (int)getppid(), all);
    return true;
}

/* Room for all that the worker computes with; frozen tensors are in place, read by one rank for all of its node, the others
 * will come from the server. */
static enum status make_values(struct run *run, int ranks_on_node, struct node_memory **out, struct error *err)
{
    struct import_report report;
    const struct params *table = &run->table;
    char name[BASE_NAME_SIZE], digest[NODE_NOTE_SIZE];
    bool filled;
    TRY(node_memory_open(name_base(run, ranks_on_node, name) ? name : NULL, (size_t)table->values * sizeof(float),
                         (size_t)table->frozen_values * sizeof(float), out, err));
    if (!table->frozen)
        return STATUS_OK;
    node_memory_wait(*out, (int64_t)(run->options->timeout_s * 1e3), &filled, digest);
    if (filled) {
        snprintf(run->table.frozen_digest, sizeof run->table.frozen_digest, "%.*s", DIGEST_HEX_SIZE - 1, digest);
        return STATUS_OK;
    }
    enum status st = run_import(run, true, node_memory_base(*out), &report, err);
    node_memory_publish(*out, st == STATUS_OK ? run->table.frozen_digest : NULL);
    return st;
}

/* From loaded options to the end of the training loop; tells the server when it fails before that. */
static enum status train(struct transport *transport, const struct options *options, const struct welcome *welcome, int ranks_on_node,
                         struct error *err)
{
    struct threads *pool = NULL;
    struct run run = {0};
    struct model *model = NULL;
    struct node_memory *memory = NULL;
    enum status st = threads_create(run_threads(options->threads, ranks_on_node), &pool, err);
    if (st == STATUS_OK)
        st = run_load(options, pool, &run, err);
    if (st == STATUS_OK)
        st = run_plan(&run, welcome->slots, err);
    if (st == STATUS_OK) {
        struct model_options model_options = {.checkpointing = options->gradient_checkpointing,
                                              .label_smoothing = (float)options->label_smoothing_factor,
                                              .noise_alpha = (float)options->neftune_noise_alpha};
        st = model_create(&run.config, &run.table, &model_options, pool, &model, err);
    }
    if (st == STATUS_OK)
        st = make_values(&run, ranks_on_node, &memory, err);
    if (st == STATUS_OK)
        st = responder_create(&run, model, node_memory_base(memory), &run.responder, err);
    if (st != STATUS_OK) {
        worker_fail(transport, SERVER, st, err);
    } else {
        struct loop_config config = {
            .transport = transport,
            .server = SERVER,
            .model = model,
            .values = node_memory_base(memory),
            .table = &run.table,
            .chunks = run.chunks,
            .pool = pool,
            .slots = welcome->slots,
            .range = slots_of_worker(welcome->slots, welcome->workers, welcome->worker),
            .source = run_batches(&run),
            .seed = (uint64_t)options->seed,
            .timeout_ms = (int64_t)(options->timeout_s * 1e3),
            .signals = flags_of_signals,
        };
        st = worker_loop(&config, err);
    }
    node_memory_close(memory);
    responder_free(run.responder);
    model_free(model);
    run_free(&run);
    threads_free(pool);
    return st;
}

int work(struct transport *transport, int ranks_on_node)
{
    struct error err = {0};
    struct welcome welcome = {0};
    struct options options = {0};
    enum status st = worker_join(transport, SERVER, 0, JOIN_TIMEOUT_MS, &welcome, &err);
    if (st == STATUS_OK) {
        st = options_parse_text(welcome.config, welcome.config_size, "the server's options", 0, NULL, &options, NULL, &err);
        options.overwrite_cache = false; /* the server has just seen to it */
        if (st != STATUS_OK)
            worker_fail(transport, SERVER, st, &err);
        else
            st = train(transport, &options, &welcome, ranks_on_node, &err);
    }
    if (st != STATUS_OK)
        log_debug("leaving: %s", err.text);
    options_free(&options);
    mem_free(welcome.config);
    return status_exit_code(st);
}
