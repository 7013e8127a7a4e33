#include "common/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 128 + SIGINT };

/* Lock-free atomics are all that a handler may touch. */
static atomic_int stop, save, interrupts;

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        atomic_store(&save, 1);
        return;
    }
    if (number == SIGINT && atomic_fetch_add(&interrupts, 1))
        _exit(EXIT_INTERRUPTED);
    atomic_store(&stop, 1);
}

void signals_install(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}

static void on_interrupt(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

void signals_install_interrupt(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool signals_take_stop(void)
{
    return atomic_exchange(&stop, 0);
}

bool signals_take_save(void)
{
    return atomic_exchange(&save, 0);
}
