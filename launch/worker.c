/* `worker run.yaml`: rank 0 serves, every other rank works. Without mpirun one process does both, in two threads.
 * Must not know: what a run is made of. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/log.h"
#include "common/options.h"
#include "common/signals.h"
#include "launch/serve.h"
#include "launch/work.h"
#include "proto/launcher.h"
#include "proto/transport_local.h"
#include "proto/transport_mpi.h"

static void print_help(void)
{
    struct text help = {0};
    text_puts(&help, "usage: mpirun -n RANKS worker RUN.yaml [key=value ...]\n"
                     "       worker RUN.yaml [key=value ...]\n\n"
                     "Trains as the run file says. Rank 0 is the parameter server, every other rank a worker; without\n"
                     "mpirun one process is both. Keys may be given as key=value, --key value or --key=value, those of\n"
                     "`ps` as ps.slots=16.\n\n"
                     "SIGTERM and Ctrl-C write a snapshot and leave with status 75; SIGUSR1 writes one and goes on.\n"
                     "Exit status: 0 done, 75 stopped after a snapshot, 2 usage or configuration, 3 data or file\n"
                     "damaged, 4 not-a-number, 5 internal.\n\n");
    options_help(&help);
    fputs(help.failed ? "no memory for the help text\n" : help.data, stdout);
    text_free(&help);
}

struct helper {
    struct transport *transport;
    int status;
};

static void *work_beside(void *context)
{
    struct helper *helper = context;
    helper->status = work(helper->transport, 1);
    return NULL;
}

static struct invocation invocation_of(int ranks, int argc, char **argv)
{
    return (struct invocation){.program = argv[0], .run_file = argv[1], .ranks = ranks, .n_overrides = argc - 2, .overrides = argv + 2};
}

/* Server and worker as two threads of this process. */
static int run_alone(int argc, char **argv)
{
    struct error err;
    struct transport *ends[2];
    if (transport_local_create(2, ends, &err) != STATUS_OK) {
        log_error("%s", err.text);
        return status_exit_code(err.code);
    }
    signals_install();
    log_init(LOG_INFO, -1);
    struct helper helper = {ends[1], 0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, work_beside, &helper)) {
        log_error("cannot start a thread for the worker");
        return status_exit_code(STATUS_NOMEM);
    }
    bool clean;
    struct invocation invocation = invocation_of(0, argc, argv);
    int status = serve(ends[0], &invocation, 1, &clean);
    pthread_join(thread, NULL);
    transport_free(ends[1]);
    transport_free(ends[0]);
    return status;
}

/* Ranks of this job on this node, as the launcher says; 0 if it does not. */
static int ranks_on_node(void)
{
    const char *text = getenv("MPI_LOCALNRANKS");
    return text ? atoi(text) : 0;
}

/* For launch/supervise: mpirun that was sent SIGTERM now and then ends with 0, whatever its ranks ended with. */
static void leave_status(int status)
{
    const char *path = getenv("LOAR_STATUS_FILE");
    struct error err;
    char text[16];
    if (path && *path && file_replace(path, text, (size_t)snprintf(text, sizeof text, "%d\n", status), &err) != STATUS_OK)
        log_warn("LOAR_STATUS_FILE: %s", err.text);
}

static int run_ranks(struct transport *transport, int argc, char **argv)
{
    int size = transport_size(transport), rank = transport_rank(transport);
    int local = ranks_on_node() > 0 ? ranks_on_node() : size;
    bool clean = true;
    signals_install();
    log_init(LOG_INFO, rank);
    struct invocation invocation = invocation_of(size, argc, argv);
    int status = rank == 0 ? serve(transport, &invocation, local, &clean) : work(transport, local);
    if (rank == 0)
        leave_status(status);
    if (clean) {
        transport_free(transport);
        return status;
    }
    _exit(status);
}

/* What MPICH's mpirun gives its ranks. Without it there is no need to start MPI at all. */
static bool under_mpirun(void)
{
    return getenv("PMI_RANK") && (getenv("PMI_FD") || getenv("PMI_PORT"));
}

static const char *environment(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help();
            return 0;
        }
        if (!strcmp(argv[i], "--version")) {
            printf("loar %s\n", LOAR_VERSION);
            return 0;
        }
    }
    if (argc < 2) {
        fputs("worker: no run file given; usage: mpirun -n RANKS worker RUN.yaml [key=value ...], or worker --help\n", stderr);
        return status_exit_code(STATUS_USAGE);
    }
    if (!strcmp(argv[1], "--config")) { /* `worker --config run.yaml` as other trainers have it */
        argv[1] = argv[0];
        argv++;
        argc--;
        if (argc < 2) {
            fputs("worker: --config needs a run file\n", stderr);
            return status_exit_code(STATUS_USAGE);
        }
    }
    if (argv[1][0] == '-') {
        fprintf(stderr, "worker: found the option '%.80s' where the run file belongs; wanted worker RUN.yaml [key=value ...]\n", argv[1]);
        return status_exit_code(STATUS_USAGE);
    }
    struct error err;
    struct transport *transport;
    if (!under_mpirun()) {
        if (launcher_check(1, environment, NULL, &err) != STATUS_OK) {
            log_error("%s", err.text);
            return status_exit_code(err.code);
        }
        return run_alone(argc, argv);
    }
    if (transport_mpi_create(&argc, &argv, &transport, &err) != STATUS_OK) {
        log_error("%s", err.text);
        return status_exit_code(err.code);
    }
    if (transport_size(transport) > 1)
        return run_ranks(transport, argc, argv);
    transport_free(transport);
    return run_alone(argc, argv);
}
