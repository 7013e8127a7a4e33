#include "ps/clock.h"

#include "common/memory.h"

enum status clock_init(struct clock *clock, int workers, int64_t staleness, int64_t first_step, struct error *err)
{
    *clock = (struct clock){.workers = workers, .staleness = staleness};
    if (workers < 1)
        FAIL(err, STATUS_USAGE, "there are no workers; start at least one rank beside the server's");
    clock->done = mem_alloc((size_t)workers, sizeof *clock->done);
    if (!clock->done)
        FAIL(err, STATUS_NOMEM, "no memory for the clocks of %d workers", workers);
    for (int w = 0; w < workers; w++)
        clock->done[w] = first_step;
    return STATUS_OK;
}

void clock_free(struct clock *clock)
{
    mem_free(clock->done);
    *clock = (struct clock){0};
}

void clock_advance(struct clock *clock, int worker)
{
    clock->done[worker]++;
}

int64_t clock_of(const struct clock *clock, int worker)
{
    return clock->done[worker];
}

int64_t clock_min(const struct clock *clock)
{
    return clock->done[clock_slowest(clock)];
}

bool clock_may_pull(const struct clock *clock, int worker, int64_t step)
{
    if (step > clock->done[worker])
        return false;
    return clock->staleness < 0 || step - clock_min(clock) <= clock->staleness;
}

int clock_slowest(const struct clock *clock)
{
    int slowest = 0;
    for (int w = 1; w < clock->workers; w++)
        if (clock->done[w] < clock->done[slowest])
            slowest = w;
    return slowest;
}
