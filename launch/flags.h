/* Signals of this process as the bits that workers and server exchange. */
#ifndef LAUNCH_FLAGS_H
#define LAUNCH_FLAGS_H

/* SERVER_SIGNAL_* seen since the last call. */
int flags_of_signals(void);

#endif
