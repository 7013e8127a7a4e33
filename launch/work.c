#include "launch/work.h"

#include "common/log.h"
#include "common/memory.h"
#include "launch/flags.h"
#include "launch/run.h"
#include "worker/train/join.h"
#include "worker/train/loop.h"

enum { SERVER = 0, JOIN_TIMEOUT_MS = 600000 };

/* Room for all that the worker computes with; frozen tensors are in place, the others will come from the server. */
static enum status make_values(struct run *run, float **out, struct error *err)
{
    struct import_report report;
    int64_t room = params_room(&run->table);
    if (!(*out = mem_alloc_aligned((size_t)room, sizeof **out)))
        FAIL(err, STATUS_NOMEM, "no memory for %lld parameters", (long long)room);
    return run->table.frozen ? run_import(run, true, *out, &report, err) : STATUS_OK;
}

/* From loaded options to the end of the training loop; tells the server when it fails before that. */
static enum status train(struct transport *transport, const struct options *options, const struct welcome *welcome, int ranks_on_node,
                         struct error *err)
{
    struct threads *pool = NULL;
    struct run run = {0};
    struct model *model = NULL;
    float *values = NULL;
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
        st = make_values(&run, &values, err);
    if (st != STATUS_OK) {
        mem_free_aligned(values);
        worker_fail(transport, SERVER, st, err);
    } else {
        struct loop_config config = {
            .transport = transport,
            .server = SERVER,
            .model = model,
            .values = values,
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
