#include "launch/search_report.h"

#include <math.h>
#include <stdio.h>

#include "launch/search_list.h"

void search_report_costs(const struct search_space *space, const double *cost, const char *origin)
{
    printf("\nmilliseconds of a layer's attention in a batch, forward and backward (%s)\n", origin);
    printf("  %-12s %10s %10s\n", "window/heads", "ms", "of dense");
    for (int o = 0; o < space->count; o++) {
        char room[SEARCH_WORD_SIZE];
        printf("  %-12s %10.4f %10.3f\n", search_word(&space->items[o], room), cost[o], cost[o] / cost[0]);
    }
}

void search_report_single(const struct search_space *space, const struct search_problem *p, double dense)
{
    printf("\nloss with one layer changed, less that of the dense model (%.6f); columns: window/heads\n  layer", dense);
    for (int o = 1; o < space->count; o++) {
        char room[SEARCH_WORD_SIZE];
        printf(" %10s", search_word(&space->items[o], room));
    }
    printf("\n");
    for (int i = 0; i < p->layers; i++) {
        printf("  %5d", i);
        for (int o = 1; o < space->count; o++)
            printf(" %+10.6f", p->loss[i * p->options + o]);
        printf("\n");
    }
}

static void put_difference(double loss, double dense)
{
    if (isnan(loss))
        printf(" %10s", "");
    else
        printf(" %+10.6f", loss - dense);
}

static void put_list(const struct search_space *space, const struct search_problem *p, const struct search_trial *t)
{
    struct text text = {0};
    search_list_put(space, t->list, p->layers, &text);
    printf("   %s\n", text.failed || !text.data ? "" : text.data);
    text_free(&text);
}

static void put_trial(const struct search_space *space, const struct search_problem *p, const struct search_trial *t,
                      const double dense[SEARCH_SPLITS])
{
    printf("  %-13s %6.3f %+10.6f", t->name, t->cost, t->predicted);
    put_difference(t->loss[SPLIT_SINGLE], dense[SPLIT_SINGLE]);
    put_difference(t->loss[SPLIT_SINGLE] - t->predicted, dense[SPLIT_SINGLE]);
    put_difference(t->loss[SPLIT_CHOICE], dense[SPLIT_CHOICE]);
    put_list(space, p, t);
}

void search_report_trials(const struct search_space *space, const struct search_problem *p, const struct search_trials *trials,
                          double budget, const double dense[SEARCH_SPLITS])
{
    printf("\nlists within %g of the dense milliseconds; losses less the dense model's (%.6f on the rows of single layers, %.6f on "
           "the second rows)\n", budget, dense[SPLIT_SINGLE], dense[SPLIT_CHOICE]);
    printf("  %-13s %6s %10s %10s %10s %10s\n", "list", "cost", "predicted", "joint", "error", "second");
    int random = search_trials_best(trials, TRIAL_RANDOM), draws = 0;
    for (int i = 0; i < trials->count; i++) {
        draws += trials->items[i].kind == TRIAL_RANDOM;
        if (trials->items[i].kind != TRIAL_RANDOM || i == random)
            put_trial(space, p, &trials->items[i], dense);
    }
    if (random >= 0)
        printf("  %s is the best of %d random lists\n", trials->items[random].name, draws);
    if (trials->missing)
        printf("  %d random lists of 90 to 100 %% of the budget could not be drawn\n", trials->missing);
    for (int i = 0; i < SEARCH_RULES; i++)
        if (!search_trials_has(trials, search_rules[i]))
            printf("  %s: does not fit the budget with any option\n", search_rules[i]);
}

void search_report_end(const struct search_space *space, const struct search_problem *p, const struct search_trials *trials,
                       const double dense[SEARCH_SPLITS])
{
    static const char *const kinds[] = {[TRIAL_CANDIDATE] = "best candidate", [TRIAL_RANDOM] = "best random list",
                                        [TRIAL_RULE] = "best hand rule"};
    const struct search_trial *winner = &trials->items[search_trials_best(trials, -1)];
    printf("\nloss on the third rows, which had no say: dense %.6f\n", dense[SPLIT_REPORT]);
    printf("  %-17s %-13s %.6f (%+.6f), %.3f of the dense milliseconds", "winner", winner->name, winner->loss[SPLIT_REPORT],
           winner->loss[SPLIT_REPORT] - dense[SPLIT_REPORT], winner->cost);
    put_list(space, p, winner);
    for (int kind = TRIAL_CANDIDATE; kind <= TRIAL_RULE; kind++) {
        int best = search_trials_best(trials, kind);
        const struct search_trial *t = best < 0 ? NULL : &trials->items[best];
        if (t && t != winner)
            printf("  %-17s %-13s %.6f (%+.6f)\n", kinds[kind], t->name, t->loss[SPLIT_REPORT], t->loss[SPLIT_REPORT] - dense[SPLIT_REPORT]);
    }
}
