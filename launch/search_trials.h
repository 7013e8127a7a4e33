/* The lists that a search tries with all their layers at once: candidates of the knapsack, as many random ones, and the hand
 * rules of the options; which of them is best.
 * Must not know: how losses are computed, what is printed. */
#ifndef LAUNCH_SEARCH_TRIALS_H
#define LAUNCH_SEARCH_TRIALS_H

#include "common/status.h"
#include "worker/loar/search.h"

enum { SEARCH_RULES = 2 };
extern const char *const search_rules[SEARCH_RULES]; /* names of the hand rules */

enum trial_kind { TRIAL_CANDIDATE, TRIAL_RANDOM, TRIAL_RULE };

/* Rows that a loss is taken on: SINGLE those of single layers, CHOICE those that choose among lists, REPORT those that had
 * no say in anything. */
enum search_split { SPLIT_SINGLE, SPLIT_CHOICE, SPLIT_REPORT, SEARCH_SPLITS };

struct search_trial {
    enum trial_kind kind;
    char name[32];
    uint8_t *list; /* [L] */
    double cost;   /* share of the dense one */
    double predicted;           /* what single layers add to the loss, summed */
    double loss[SEARCH_SPLITS]; /* NAN where it was not computed */
};

struct search_trials {
    struct search_trial *items;
    int count;
    uint8_t *lists;
    int missing; /* random lists that could not be drawn */
};

/* `wanted` candidates for a budget (a share of the dense cost) or a little less, as many random lists of 90 to 100 % of the
 * budget, and the layers of `article` and `interleave` with the option that fits the budget and promises most. STATUS_USAGE
 * where no list fits. */
enum status search_trials_make(const struct search_problem *problem, double budget, int wanted, uint64_t seed,
                               struct search_trials *out, struct error *err);
void search_trials_free(struct search_trials *trials);

/* Index of the least loss on SPLIT_CHOICE among those of a kind, or of all with kind < 0; the cheaper one of equals. -1: none. */
int search_trials_best(const struct search_trials *trials, int kind);

/* Whether there is a list of this name. */
bool search_trials_has(const struct search_trials *trials, const char *name);

#endif
