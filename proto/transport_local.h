/* Ranks as threads of one process: runs without mpirun, and tests. A payload is copied once, straight to its place,
 * when both sides have named it. */
#ifndef PROTO_TRANSPORT_LOCAL_H
#define PROTO_TRANSPORT_LOCAL_H

#include "proto/transport.h"

/* Makes `size` connected endpoints, ranks 0..size-1; each is used by one thread at a time and freed with transport_free or
 * transport_abandon, in any order. */
enum status transport_local_create(int size, struct transport **endpoints, struct error *err);

#endif
