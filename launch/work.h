/* The worker's role of a run. */
#ifndef LAUNCH_WORK_H
#define LAUNCH_WORK_H

#include "proto/transport.h"

/* Joins the server at rank 0, loads what it names, trains until dismissed. `ranks_on_node` shares out the cores. Returns
 * the exit status; what went wrong was told to the server, which prints it. */
int work(struct transport *transport, int ranks_on_node);

#endif
