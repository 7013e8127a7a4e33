#include "proto/launcher.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* Where launchers say how many processes they started, or which one this is. */
static const struct {
    const char *variable, *launcher;
    bool is_rank;
} signs[] = {
    {"SLURM_STEP_NUM_TASKS", "Slurm", false}, {"SLURM_NTASKS", "Slurm", false},
    {"PMI_SIZE", "a PMI launcher", false},    {"OMPI_COMM_WORLD_SIZE", "Open MPI", false},
    {"MPI_LOCALNRANKS", "Hydra", false},      {"MV2_COMM_WORLD_SIZE", "MVAPICH2", false},
    {"PMI_RANK", "a PMI launcher", true},     {"PMIX_RANK", "a PMIx launcher", true},
};

enum status launcher_check(int size, launcher_lookup *lookup, void *context, struct error *err)
{
    if (size > 1)
        return STATUS_OK;
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        const char *value = lookup(context, signs[i].variable);
        long count = value ? strtol(value, NULL, 10) + signs[i].is_rank : 0;
        if (count > 1)
            FAIL(err, STATUS_USAGE,
                 "%s=%s in the environment: %s started %s%ld processes, but MPI sees only this one, so each would train alone "
                 "and write over the others' output. Start with MPICH's own launcher (mpirun -n N, or srun --mpi=pmi2); to "
                 "train in one process on purpose: env -u %s ...",
                 signs[i].variable, value, signs[i].launcher, signs[i].is_rank ? "at least " : "", count, signs[i].variable);
    }
    return STATUS_OK;
}
