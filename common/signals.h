/* Signals as flags that a loop looks at: SIGTERM and SIGINT ask to stop, SIGUSR1 asks for a snapshot. A second SIGINT
 * ends the process at once.
 * Must not know: what stopping or saving means. */
#ifndef COMMON_SIGNALS_H
#define COMMON_SIGNALS_H

#include <stdbool.h>

/* Call after MPI_Init, which may install handlers of its own. Waiting system calls are restarted, sleeps end early. */
void signals_install(void);
/* For a program that talks with a person: SIGINT alone, which asks to stop what goes on now, as often as it comes, and makes
 * a waiting read end with EINTR. */
void signals_install_interrupt(void);
/* True once per request that came since the last call; several of a kind count as one. For any thread. */
bool signals_take_stop(void);
bool signals_take_save(void);

#endif
