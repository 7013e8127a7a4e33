/* How fast a snapshot becomes durable, beside a plain write and fsync of as many bytes on the same disk in the same
 * run, how fast the shadow copy is, and what each costs in processor time, which a computing machine pays.
 * usage: bench_snapshot FOLDER [MILLIONS_OF_PARAMETERS] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/memory.h"
#include "ps/snapshot.h"
#include "ps/writer.h"

enum { ROUNDS = 9, ARRAYS = 3, WIDTH = 1024 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor seconds of the process, the kernel's work for it included. */
static double used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Prints all rates and returns the middle one: writes that meet memory the host has to find first are slow. */
static double report(const char *what, double rates[ROUNDS])
{
    printf("%-22s", what);
    for (int i = 0; i < ROUNDS; i++)
        printf(" %6.2f", rates[i]);
    qsort(rates, ROUNDS, sizeof *rates, compare);
    printf("   median %.2f GB/s\n", rates[ROUNDS / 2]);
    return rates[ROUNDS / 2];
}

static void leave(const char *why)
{
    fprintf(stderr, "bench_snapshot: %s\n", why);
    exit(1);
}

static double plain_write(const char *folder, float *const *arrays, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/plain.bin", folder);
    double begin = now();
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
    for (int a = 0; a < ARRAYS; a++)
        for (size_t done = 0; done < bytes;) {
            ssize_t put = write(fd, (char *)arrays[a] + done, bytes - done);
            if (put <= 0)
                leave("cannot write the plain file");
            done += (size_t)put;
        }
    if (fsync(fd) || close(fd))
        leave("cannot flush the plain file");
    double seconds = now() - begin;
    unlink(path);
    return 1e-9 * (double)(ARRAYS * bytes) / seconds;
}

static double snapshot(const char *folder, const struct snapshot_view *view)
{
    struct error err;
    struct snapshot_written written;
    char path[4096], name[SNAPSHOT_STRING_SIZE];
    if (snapshot_write(folder, view, &written, &err) != STATUS_OK)
        leave(err.text);
    snapshot_file_name(view->meta.step, name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
    return 1e-9 * (double)written.bytes / written.seconds;
}

static double shadow_copy(struct shadow *shadow, float *const *arrays, size_t bytes)
{
    const float *states[] = {arrays[1], arrays[2]};
    double begin = now();
    shadow_begin(shadow, arrays[0], states);
    shadow_copy_rest(shadow);
    return 1e-9 * (double)(ARRAYS * bytes) / (now() - begin);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        leave("usage: bench_snapshot FOLDER [MILLIONS_OF_PARAMETERS]");
    int64_t tensors = argc > 2 ? strtoll(argv[2], NULL, 10) : 84;
    struct params table = {0};
    struct error err;
    for (int64_t i = 0; i < tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.weight", (int)i);
        struct param param = {.name = name, .n_dims = 2, .shape = {WIDTH, 1000000 / WIDTH}};
        if (params_add(&table, &param, NULL, &err) != STATUS_OK)
            leave(err.text);
    }
    size_t bytes = (size_t)table.values * sizeof(float);
    float *arrays[ARRAYS];
    for (int a = 0; a < ARRAYS; a++) {
        arrays[a] = mem_alloc_aligned(bytes, 1);
        for (int64_t i = 0; arrays[a] && i < table.values; i++)
            arrays[a][i] = (float)i * 1e-3f + (float)a;
    }
    struct chunks chunks = chunks_make(table.values, 1 << 20);
    struct shadow *shadow;
    if (!arrays[0] || !arrays[1] || !arrays[2] || shadow_create(&chunks, ARRAYS - 1, &shadow, &err) != STATUS_OK)
        leave("not enough memory");
    double copy[ROUNDS], plain[ROUNDS], whole[ROUNDS], cost[2] = {0};
    for (int r = 0; r < ROUNDS; r++)
        copy[r] = shadow_copy(shadow, arrays, bytes);
    struct snapshot_view view = {.table = &table, .values = shadow_values(shadow), .n_states = 2,
                                 .states = {{"exp_avg", shadow_state(shadow, 0)}, {"exp_avg_sq", shadow_state(shadow, 1)}},
                                 .meta = {.step = 1, .optimizer = "adamw", .best_step = -1}};
    for (int r = 0; r < ROUNDS; r++) {
        double before = used();
        plain[r] = plain_write(argv[1], arrays, bytes);
        double between = used();
        whole[r] = snapshot(argv[1], &view);
        cost[0] += (between - before) / ROUNDS;
        cost[1] += (used() - between) / ROUNDS;
    }
    printf("%.3f GB: parameters and two optimizer states\n", 1e-9 * (double)(ARRAYS * bytes));
    report("shadow copy", copy);
    double base = report("plain write and fsync", plain);
    printf("snapshot / plain: %.2f\n", report("snapshot", whole) / base);
    printf("processor seconds each: plain %.2f, snapshot %.2f\n", cost[0], cost[1]);
    shadow_free(shadow);
    for (int a = 0; a < ARRAYS; a++)
        mem_free_aligned(arrays[a]);
    params_free(&table);
    return 0;
}
