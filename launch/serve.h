/* The server's role of a run: from the run file to the end block. */
#ifndef LAUNCH_SERVE_H
#define LAUNCH_SERVE_H

#include "launch/invocation.h"
#include "proto/transport.h"

/* Returns the exit status; everything a person must know was printed. *clean: all ranks said goodbye, so that the
 * transport may be ended in good order. */
int serve(struct transport *transport, const struct invocation *invocation, int ranks_on_node, bool *clean);

#endif
