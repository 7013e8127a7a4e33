#include "ps/session.h"

#include <stdio.h>

/* Share of the newest step in a smoothed lag: about the last five steps count. */
static const double newest_share = 0.2;

void session_init(struct session *session, int rank, int64_t now_ms)
{
    *session = (struct session){
        .rank = rank,
        .state = SESSION_JOINING,
        .seen_ms = now_ms,
        .step = -1,
        .first_push_ms = -1,
        .last_push_ms = -1,
        .first_lag_ms = -1,
        .last_lag_ms = -1,
    };
}

void session_identify(struct session *session, const char *host, int threads, struct slot_range slots)
{
    snprintf(session->host, sizeof session->host, "%s", host);
    session->threads = threads;
    session->slots = slots;
}

const char *session_state_name(enum session_state state)
{
    static const char *const names[] = {
        [SESSION_JOINING] = "joining", [SESSION_READY] = "ready",   [SESSION_COMPUTING] = "computing",
        [SESSION_DONE] = "done",       [SESSION_FAILED] = "failed",
    };
    return names[state];
}

void session_touch(struct session *session, int64_t now_ms)
{
    if (now_ms > session->seen_ms)
        session->seen_ms = now_ms;
}

int64_t session_silent_ms(const struct session *session, int64_t now_ms)
{
    return now_ms > session->seen_ms ? now_ms - session->seen_ms : 0;
}

void session_received(struct session *session, size_t bytes, int64_t now_ms)
{
    session->bytes_in += bytes;
    session_touch(session, now_ms);
}

void session_sent(struct session *session, size_t bytes)
{
    session->bytes_out += bytes;
}

void session_step_begin(struct session *session, int64_t step, int64_t now_ms)
{
    session->step = step;
    session->step_began_ms = now_ms;
    session->first_push_ms = -1;
    session->last_push_ms = -1;
}

void session_step_push(struct session *session, int64_t now_ms)
{
    if (session->first_push_ms < 0)
        session->first_push_ms = now_ms;
    session->last_push_ms = now_ms;
    session_touch(session, now_ms);
}

static void smooth(double *mean, int64_t lag_ms)
{
    *mean = *mean < 0 ? (double)lag_ms : *mean + newest_share * ((double)lag_ms - *mean);
}

void session_step_end(struct session *session, int64_t now_ms)
{
    /* A worker without slots pushes nothing; it is never late. */
    if (session->first_push_ms < 0)
        return;
    smooth(&session->first_lag_ms, session->first_push_ms - session->step_began_ms);
    smooth(&session->last_lag_ms, session->last_push_ms - session->step_began_ms);
    session->steps++;
    session_touch(session, now_ms);
}

/* Workers measured and before `candidate` in order of lag (ties: by index). */
static int count_before(const struct session *sessions, int count, int candidate)
{
    double lag = sessions[candidate].last_lag_ms;
    int before = 0;
    for (int i = 0; i < count; i++)
        if (sessions[i].steps > 0)
            before += sessions[i].last_lag_ms < lag || (sessions[i].last_lag_ms == lag && i < candidate);
    return before;
}

struct session_slowest sessions_slowest(const struct session *sessions, int count)
{
    struct session_slowest result = {.index = -1};
    int measured = 0;
    for (int i = 0; i < count; i++) {
        if (sessions[i].steps == 0)
            continue;
        measured++;
        if (result.index < 0 || sessions[i].last_lag_ms > result.lag_ms)
            result = (struct session_slowest){.index = i, .lag_ms = sessions[i].last_lag_ms};
    }
    for (int i = 0; i < count; i++)
        if (sessions[i].steps > 0 && count_before(sessions, count, i) == (measured - 1) / 2)
            result.median_ms = sessions[i].last_lag_ms;
    return result;
}

int sessions_most_silent(const struct session *sessions, int count, int64_t now_ms)
{
    int found = -1;
    for (int i = 0; i < count; i++) {
        if (sessions[i].state == SESSION_DONE || sessions[i].state == SESSION_FAILED)
            continue;
        if (found < 0 || session_silent_ms(&sessions[i], now_ms) > session_silent_ms(&sessions[found], now_ms))
            found = i;
    }
    return found;
}

const char *session_summary(const struct session *s, int64_t now_ms, char text[SESSION_SUMMARY_SIZE])
{
    char lag[64] = "no step yet";
    if (s->steps > 0)
        snprintf(lag, sizeof lag, "gradients after %.0f..%.0f ms", s->first_lag_ms, s->last_lag_ms);
    snprintf(text, SESSION_SUMMARY_SIZE,
             "rank %d on %s, %d thread%s, slots %d..%d, %s, %s, %.1f MiB in, %.1f MiB out, silent for %.1f s", s->rank,
             s->host[0] ? s->host : "an unknown host", s->threads, s->threads == 1 ? "" : "s", s->slots.first,
             s->slots.first + s->slots.count - 1, session_state_name(s->state), lag, (double)s->bytes_in / (1 << 20),
             (double)s->bytes_out / (1 << 20), (double)session_silent_ms(s, now_ms) / 1000);
    return text;
}
