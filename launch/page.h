/* A run as one HTML page that needs no network, no other file and no script: plan against outcome, curves, evaluations, routing,
 * samples, ranks, warnings and the options. The page is well-formed XML, too.
 * Must not know: command lines, how metrics.jsonl is written. */
#ifndef LAUNCH_PAGE_H
#define LAUNCH_PAGE_H

#include <stdint.h>

#include "common/status.h"
#include "common/text.h"
#include "launch/history.h"

struct page_request {
    const char *folder; /* of the run; its name where the run has none */
    const struct history *history;
    int64_t written; /* when its last line was, seconds of the epoch; 0: not known */
};

/* Appends the page. STATUS_NOMEM. */
enum status page_put(const struct page_request *request, struct text *out, struct error *err);

/* ---- parts of the page; a part without anything to show puts nothing ---- */

/* Evaluation sets by name, from the plan and from the keys of the metrics. */
enum { PAGE_SETS_MAX = 64 };
struct page_sets {
    char *names[PAGE_SETS_MAX];
    int count;
};
/* False where memory is short; release it all the same. */
bool page_sets_find(const struct history *history, struct page_sets *out);
void page_sets_free(struct page_sets *sets);
/* The set a key eval_<set>_<metric> is of, and where its metric begins; -1 if it is of none. */
int page_sets_of(const struct page_sets *sets, const char *key, const char **metric);

/* page_charts.c */
void page_put_losses(struct text *out, const struct history *history, const struct page_sets *sets);
void page_put_scores(struct text *out, const struct history *history, const struct page_sets *sets);
void page_put_optimisation(struct text *out, const struct history *history);
void page_put_routing(struct text *out, const struct history *history);
/* page_tables.c */
void page_put_evaluation(struct text *out, const struct history *history, const struct page_sets *sets);
void page_put_samples(struct text *out, const struct history *history);
void page_put_ranks(struct text *out, const struct history *history);
void page_put_warnings(struct text *out, const struct history *history);
/* page_plan.c: the head of the page, and the table of plan and outcome. */
void page_put_head(struct text *out, const struct page_request *request);
void page_put_plan(struct text *out, const struct page_request *request);

/* The style sheet; page_style.c. */
extern const char page_style[];

#endif
