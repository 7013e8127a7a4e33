/* `loar env`: versions and the machine, as a report of a fault needs them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/h5.h"
#include "common/json.h"
#include "common/threads.h"
#include "common/yaml.h"
#include "launch/commands.h"
#include "launch/screen.h"
#include "proto/transport_mpi.h"
#include "worker/ops/gemm.h"
#include "worker/ops/microkernel.h"

extern char **environ;

static const char usage[] =
    "usage: loar env\n"
    "\n"
    "Prints versions, processor, cores, memory and the settings of the environment that\n"
    "matter: what a report of a fault should hold.\n";

static void put(struct text *out, const char *label, const char *value)
{
    text_printf(out, "%-14s %.*s\n", label, (int)strcspn(value, "\n"), *value ? value : "-");
}

/* What stands behind "key :" in a file of /proc, or a whole line where key is ""; "" where there is none. */
static void read_field(const char *path, const char *key, char out[256])
{
    char line[1024];
    FILE *file = fopen(path, "r");
    out[0] = '\0';
    while (file && fgets(line, sizeof line, file)) {
        const char *value = *key ? strchr(line, ':') : line;
        if (strncmp(line, key, strlen(key)) || !value)
            continue;
        value += *key ? 1 + strspn(value + 1, " \t") : 0;
        snprintf(out, 256, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    if (file)
        fclose(file);
}

static void put_system(struct text *out)
{
    struct utsname system;
    char name[256] = "", model[256], line[600];
    FILE *release = fopen("/etc/os-release", "r");
    while (release && fgets(line, sizeof line, release))
        if (sscanf(line, "PRETTY_NAME=\"%255[^\"]", name) == 1)
            break;
    if (release)
        fclose(release);
    if (!uname(&system)) {
        snprintf(line, sizeof line, "%s %s %s%s%s", system.sysname, system.release, system.machine, *name ? ", " : "", name);
        put(out, "system", line);
    }
    read_field("/proc/cpuinfo", "model name", model);
    put(out, "processor", model);
    snprintf(line, sizeof line, "%ld on this machine, %d for this process", sysconf(_SC_NPROCESSORS_ONLN), threads_cores());
    put(out, "cores", line);
}

static void put_memory(struct text *out)
{
    char total[256], available[256], limit[256], line[1024];
    read_field("/proc/meminfo", "MemTotal", total);
    read_field("/proc/meminfo", "MemAvailable", available);
    read_field("/sys/fs/cgroup/memory.max", "", limit);
    bool limited = *limit && strcmp(limit, "max");
    snprintf(line, sizeof line, "%s, of which %s are free%s%s%s", total, available, limited ? "; this control group may use " : "",
             limited ? limit : "", limited ? " bytes" : "");
    put(out, "memory", line);
}

static void put_libraries(struct text *out)
{
    struct error err;
    struct text mpi = {0};
    char version[64], line[512];
    transport_mpi_library(&mpi);
    put(out, "MPI", mpi.failed || !mpi.data ? "" : mpi.data);
    text_free(&mpi);
    if (gemm_init(&err) == STATUS_OK)
        snprintf(line, sizeof line, "%s, kernels for %s, one thread per call", gemm_library(), gemm_kernels());
    else
        snprintf(line, sizeof line, "none: %.480s", err.text);
    put(out, "BLAS", line);
    put(out, "attention", product_kernels());
    h5_version(version);
    put(out, "HDF5", version);
    put(out, "jansson", json_version());
    put(out, "libyaml", yaml_version());
}

/* Of the many variables there are, those of the libraries and of batch systems that change how a run is laid out. */
static void put_environment(struct text *out)
{
    static const char *const prefixes[] = {"OMP_", "OPENBLAS_", "MPICH_", "MPIR_CVAR_", "HYDRA_", "LOAR_", "SLURM_NTASKS", "SLURM_NNODES",
                                           "SLURM_CPUS_PER_TASK", "PBS_NUM_"};
    for (char **variable = environ; *variable; variable++)
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
            /* set by loading OpenBLAS, always the same */
            if (!strncmp(*variable, prefixes[i], strlen(prefixes[i])) && strcmp(*variable, "OPENBLAS_NUM_THREADS=1"))
                put(out, "environment", *variable);
}

/* Programs that may be missing, by where they are found. */
static void put_programs(struct text *out)
{
    static const char *const programs[] = {"mpirun", "gnuplot", "h5dump"};
    const char *path = getenv("PATH");
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        char file[1024] = "";
        bool found = false;
        for (const char *at = path ? path : ""; *at && !found; at += strcspn(at, ":"), at += *at == ':') {
            snprintf(file, sizeof file, "%.*s/%s", (int)strcspn(at, ":"), at, programs[i]);
            found = !access(file, X_OK);
        }
        put(out, programs[i], found ? file : "not installed");
    }
}

int cmd_env(int argc, char **argv)
{
    struct text out = {0};
    struct screen screen;
    bool help = argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    if (help)
        fputs(usage, stdout);
    if (argc > 1 && !help)
        fprintf(stderr, "loar env: takes no argument, found '%s'\n", argv[1]);
    if (argc > 1)
        return status_exit_code(help ? STATUS_OK : STATUS_USAGE);
    put(&out, "LoAR", LOAR_VERSION);
#ifdef __clang__
    put(&out, "compiler", __VERSION__);
#else
    put(&out, "compiler", "GCC " __VERSION__);
#endif
    put_system(&out);
    put_memory(&out);
    put_libraries(&out);
    put_programs(&out);
    put_environment(&out);
    screen_open(&screen, stdout);
    screen_text(&screen, &out);
    screen_close(&screen);
    enum status st = out.failed ? STATUS_NOMEM : STATUS_OK;
    text_free(&out);
    return status_exit_code(st);
}
