/* What the server knows of one worker: who it is, when it last spoke, what it moved, how late its gradients come.
 * Plain data; the caller passes the time in.
 * Must not know: transport, messages, clocks of the machine. */
#ifndef PS_SESSION_H
#define PS_SESSION_H

#include <stddef.h>
#include <stdint.h>

#include "common/slots.h"

enum session_state { SESSION_JOINING, SESSION_READY, SESSION_COMPUTING, SESSION_DONE, SESSION_FAILED };

enum { SESSION_HOST_SIZE = 256, SESSION_SUMMARY_SIZE = 512 };

struct session {
    int rank, threads;
    char host[SESSION_HOST_SIZE];
    struct slot_range slots;
    enum session_state state;
    int64_t seen_ms;              /* last sign of life */
    uint64_t bytes_in, bytes_out; /* as the server sees it */
    int64_t step;                 /* step whose gradients are awaited or came last; -1: none yet */
    int64_t step_began_ms;        /* when the step was opened for this worker */
    int64_t first_push_ms, last_push_ms; /* of this step; -1: none yet */
    double first_lag_ms, last_lag_ms;    /* smoothed over steps: step_began -> first / last push; -1: no step yet */
    int64_t work;                 /* of this step or evaluation, as the worker counts it; 0: not told */
    int64_t steps;                /* steps that went into the smoothing */
};

void session_init(struct session *session, int rank, int64_t now_ms);
/* Keeps as much of `host` as fits. */
void session_identify(struct session *session, const char *host, int threads, struct slot_range slots);
const char *session_state_name(enum session_state state);

/* Something came from the worker. */
void session_touch(struct session *session, int64_t now_ms);
/* Milliseconds since the last sign of life, never negative. */
int64_t session_silent_ms(const struct session *session, int64_t now_ms);
void session_received(struct session *session, size_t bytes, int64_t now_ms); /* touches, too */
void session_sent(struct session *session, size_t bytes);

/* One step: opened when its work may begin, pushes as they arrive, closed when the last one is in. */
void session_step_begin(struct session *session, int64_t step, int64_t now_ms);
void session_step_push(struct session *session, int64_t now_ms);
void session_step_end(struct session *session, int64_t now_ms);

struct session_slowest {
    int index;        /* into the array; -1: no step was measured yet */
    double lag_ms;    /* its smoothed lag of the last push */
    double median_ms; /* over all workers (lower middle for an even number) */
};
/* The worker whose gradients come last, against the median. Ties: the first. */
struct session_slowest sessions_slowest(const struct session *sessions, int count);
/* The living worker that has been silent longest (done and failed ones do not count); -1: none. */
int sessions_most_silent(const struct session *sessions, int count, int64_t now_ms);

/* One line for the log: "rank 3 on node7, 2 threads, slots 8..11, computing, ...". Returns `text`. */
const char *session_summary(const struct session *session, int64_t now_ms, char text[SESSION_SUMMARY_SIZE]);

#endif
