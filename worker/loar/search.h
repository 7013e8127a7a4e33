/* Which option each layer takes: the best lists within a budget, as if what single layers cost in loss added up
 * (multiple-choice knapsack), and random lists of about the same cost to compare with. Pure functions of tables.
 * Glossary: L layers, O options of a layer, a list: the option of each layer, [L].
 * Must not know: models, how losses and costs were found. */
#ifndef WORKER_LOAR_SEARCH_H
#define WORKER_LOAR_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { SEARCH_MAX_CHOICES = 10, SEARCH_MAX_OPTIONS = 121, SEARCH_MAX_LISTS = 64 };

/* What a layer may see and compute. */
struct search_option {
    int window;   /* 0: all keys */
    double share; /* of heads */
};

struct search_space {
    int count; /* O */
    struct search_option items[SEARCH_MAX_OPTIONS]; /* the first one is the dense layer; falling windows, then shares */
};

/* Every window with every share, at most SEARCH_MAX_CHOICES of each; all keys and all heads are always among them. Windows
 * that are not shorter than the `longest` row see all keys, and shares that buy the same number of heads are one. */
void search_space_make(const int *windows, int n_windows, const double *shares, int n_shares, int heads, int longest,
                       struct search_space *out);

struct search_problem {
    int layers, options; /* L, O */
    const double *loss;  /* [L][O] what the loss grows by when this layer alone takes the option; 0 for the first one */
    const double *cost;  /* [O] above 0, in any unit */
};

/* Cost of a list as a share of the dense one's. */
double search_cost(const struct search_problem *problem, const uint8_t *list);
/* Sum of what its layers add to the loss, in their order. */
double search_loss(const struct search_problem *problem, const uint8_t *list);

/* The grid that costs are rounded up to: cells of the dense list's cost, and how many of them an option takes. */
int search_cells(const struct search_problem *problem);
int search_option_cells(const struct search_problem *problem, int option);

/* Up to `wanted` different lists, lists[wanted][L]: the best one within each budget (a share of the dense cost, at most 1),
 * then the second of each, and so on. Exact on the grid, so that no list is dearer than its budget; lists that add the same
 * to the loss come cheaper ones first. found: how many there were. STATUS_NOMEM is the only failure. */
enum status search_candidates(const struct search_problem *problem, const double *budgets, int n_budgets, int wanted,
                              uint8_t *lists, int *found, struct error *err);

/* A list drawn at random whose cost is at most `budget` and at least `least`: each layer takes any option, until the sum
 * fits; where that is rare, layers drawn at random then become dearer or cheaper until it does. False where that leads to
 * none. `index` numbers the draws of a seed. */
bool search_draw(const struct search_problem *problem, double budget, double least, uint64_t seed, uint64_t index, uint8_t *list);

#endif
