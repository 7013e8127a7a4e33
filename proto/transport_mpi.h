/* Ranks as MPI processes; transport_mpi.c is the only includer of mpi.h. */
#ifndef PROTO_TRANSPORT_MPI_H
#define PROTO_TRANSPORT_MPI_H

#include "common/text.h"
#include "proto/transport.h"

/* Starts MPI (funneled: this thread makes all calls from now on) and joins the world of all ranks. Refuses processes that a
 * launcher of another MPI started as N worlds of one rank each (STATUS_USAGE). MPI takes SIGUSR1 for itself: install
 * signal handlers afterwards. Collective; the only collective calls are in here. */
enum status transport_mpi_create(int *argc, char ***argv, struct transport **out, struct error *err);

/* Name and version of the MPI library, a line; may be called without any transport. */
void transport_mpi_library(struct text *out);

/* For the bench: what MPI itself needs for the same bytes. Sends `count` messages of `bytes` from each of `out` to rank
 * `peer`, or receives as many into `in` (the other one is NULL), all posted at once and awaited together. */
enum status transport_mpi_raw_exchange(struct transport *t, int peer, void *const *in, const void *const *out, int count,
                                       size_t bytes, struct error *err);

#endif
