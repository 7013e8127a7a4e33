/* A transport that misbehaves as told, around another one, for tests: late, lost and damaged bytes, completions out of
 * order, sudden death. The same seed gives the same faults. */
#ifndef PROTO_TRANSPORT_FAULTY_H
#define PROTO_TRANSPORT_FAULTY_H

#include "proto/transport.h"

struct faults {
    uint64_t seed;
    double drop;          /* share of posted frames that vanish */
    double corrupt_frame; /* share of posted frames with one flipped bit */
    double corrupt_data;  /* share of received payloads with one flipped bit */
    int delay_polls;      /* frames leave, and completions show, after up to so many polls; completions out of order */
    long die_at;          /* this call (post, send, receive, poll; from 1) and all later ones fail with STATUS_INTERNAL; 0 = never */
};

/* Takes `inner` over in every case; it is closed with the wrapper. */
enum status transport_faulty_create(struct transport *inner, const struct faults *faults, struct transport **out,
                                    struct error *err);
/* Faults done so far, of any sort. */
long transport_faulty_count(const struct transport *t);

#endif
