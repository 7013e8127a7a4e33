#include "launch/search_trials.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/memory.h"
#include "launch/loar_block.h"

static const double budget_shares[] = {1, 0.975, 0.95, 0.925}; /* of the budget: sums of losses are not what adds up */
enum { BUDGETS = sizeof budget_shares / sizeof *budget_shares };
static const double LEAST_OF_BUDGET = 0.9;
const char *const search_rules[SEARCH_RULES] = {"article", "interleave"};

/* Takes over what lies behind the last list. */
static struct search_trial *add(const struct search_problem *p, struct search_trials *t, enum trial_kind kind)
{
    struct search_trial *trial = &t->items[t->count];
    *trial = (struct search_trial){.kind = kind, .list = t->lists + (size_t)t->count * (size_t)p->layers};
    t->count++;
    trial->cost = search_cost(p, trial->list);
    trial->predicted = search_loss(p, trial->list);
    for (int s = 0; s < SEARCH_SPLITS; s++)
        trial->loss[s] = NAN;
    return trial;
}

static enum status add_candidates(const struct search_problem *p, double budget, int wanted, struct search_trials *t,
                                  struct error *err)
{
    double budgets[BUDGETS], least = p->cost[0];
    int found;
    for (int i = 0; i < BUDGETS; i++)
        budgets[i] = budget * budget_shares[i];
    TRY(search_candidates(p, budgets, BUDGETS, wanted, t->lists, &found, err));
    for (int o = 0; o < p->options; o++)
        least = p->cost[o] < least ? p->cost[o] : least;
    if (!found)
        FAIL(err, STATUS_USAGE, "--budget is %g, but the cheapest option in every layer still costs %.4f of the dense attention; raise "
             "the budget, or allow shorter --windows or smaller --shares", budget, least / p->cost[0]);
    for (int i = 0; i < found; i++)
        snprintf(add(p, t, TRIAL_CANDIDATE)->name, sizeof t->items->name, "candidate %d", i + 1);
    return STATUS_OK;
}

static void add_random(const struct search_problem *p, double budget, uint64_t seed, struct search_trials *t)
{
    int wanted = t->count;
    for (int i = 0; i < wanted; i++) {
        uint8_t *list = t->lists + (size_t)t->count * (size_t)p->layers;
        if (search_draw(p, budget, LEAST_OF_BUDGET * budget, seed, (uint64_t)i, list))
            snprintf(add(p, t, TRIAL_RANDOM)->name, sizeof t->items->name, "random %d", i + 1);
        else
            t->missing++;
    }
}

static void lay_rule(const struct search_problem *p, const char *rule, int option, uint8_t *list)
{
    for (int i = 0; i < p->layers; i++)
        list[i] = loar_block_stays_dense(rule, i, p->layers) ? 0 : (uint8_t)option;
}

static void add_rule(const struct search_problem *p, double budget, const char *rule, struct search_trials *t)
{
    uint8_t *list = t->lists + (size_t)t->count * (size_t)p->layers;
    int best = -1;
    double least = INFINITY;
    for (int o = 1; o < p->options; o++) {
        lay_rule(p, rule, o, list);
        double loss = search_loss(p, list);
        if (search_cost(p, list) <= budget && loss < least) {
            best = o;
            least = loss;
        }
    }
    if (best < 0)
        return;
    lay_rule(p, rule, best, list);
    snprintf(add(p, t, TRIAL_RULE)->name, sizeof t->items->name, "%s", rule);
}

enum status search_trials_make(const struct search_problem *p, double budget, int wanted, uint64_t seed, struct search_trials *out,
                               struct error *err)
{
    size_t most = 2 * (size_t)wanted + SEARCH_RULES + 1; /* one more: a draw that failed leaves its list behind the last */
    *out = (struct search_trials){.items = mem_alloc(most, sizeof *out->items), .lists = mem_alloc(most, (size_t)p->layers)};
    enum status st = out->items && out->lists ? add_candidates(p, budget, wanted, out, err)
                                              : error_set(err, STATUS_NOMEM, "no memory for %zu lists of %d layers", most, p->layers);
    if (st != STATUS_OK) {
        search_trials_free(out);
        return st;
    }
    add_random(p, budget, seed, out);
    for (int r = 0; r < SEARCH_RULES; r++)
        add_rule(p, budget, search_rules[r], out);
    return STATUS_OK;
}

void search_trials_free(struct search_trials *t)
{
    mem_free(t->items);
    mem_free(t->lists);
    *t = (struct search_trials){0};
}

int search_trials_best(const struct search_trials *t, int kind)
{
    int best = -1;
    for (int i = 0; i < t->count; i++) {
        const struct search_trial *now = &t->items[i], *so_far = best < 0 ? NULL : &t->items[best];
        if (kind >= 0 && (int)now->kind != kind)
            continue;
        double loss = now->loss[SPLIT_CHOICE];
        if (!so_far || loss < so_far->loss[SPLIT_CHOICE] || (loss == so_far->loss[SPLIT_CHOICE] && now->cost < so_far->cost))
            best = i;
    }
    return best;
}

bool search_trials_has(const struct search_trials *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (!strcmp(t->items[i].name, name))
            return true;
    return false;
}
