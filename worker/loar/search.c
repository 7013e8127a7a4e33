#include "worker/loar/search.h"

#include <math.h>
#include <string.h>

#include "common/memory.h"
#include "common/rng.h"
#include "worker/loar/loar.h"

/* A dense layer is a whole number of cells, so that the dense list costs exactly 1; rounding up costs a layer half a cell
 * on average. */
enum { LEAST_CELLS = 4096, LEAST_LAYER_CELLS = 64 };
enum { DRAWS = 1000, MOVES_PER_LAYER = 100 };
static const double SLACK = 1e-9; /* of a cell: what sums of doubles are off */

/* ---- options ---- */

/* Puts the number behind larger ones, once. */
static int insert(double *numbers, int count, double number)
{
    int at = 0;
    while (at < count && numbers[at] > number)
        at++;
    if (at < count && numbers[at] == number)
        return count;
    memmove(numbers + at + 1, numbers + at, (size_t)(count - at) * sizeof *numbers);
    numbers[at] = number;
    return count + 1;
}

void search_space_make(const int *windows, int n_windows, const double *shares, int n_shares, int heads, int longest,
                       struct search_space *out)
{
    double kept[SEARCH_MAX_CHOICES + 1] = {INFINITY}, kept_shares[SEARCH_MAX_CHOICES + 1] = {1};
    int n_kept = 1, n_kept_shares = 1;
    for (int i = 0; i < n_windows; i++)
        if (windows[i] > 0 && windows[i] < longest)
            n_kept = insert(kept, n_kept, windows[i]);
    for (int i = 0; i < n_shares; i++) {
        bool known = false;
        for (int k = 0; k < n_kept_shares; k++)
            known = known || loar_heads_of(kept_shares[k], heads) == loar_heads_of(shares[i], heads);
        if (!known)
            n_kept_shares = insert(kept_shares, n_kept_shares, shares[i]);
    }
    out->count = 0;
    for (int i = 0; i < n_kept; i++)
        for (int k = 0; k < n_kept_shares; k++)
            out->items[out->count++] = (struct search_option){isinf(kept[i]) ? 0 : (int)kept[i], kept_shares[k]};
}

double search_cost(const struct search_problem *p, const uint8_t *list)
{
    double sum = 0;
    for (int i = 0; i < p->layers; i++)
        sum += p->cost[list[i]];
    return sum / (p->cost[0] * p->layers);
}

double search_loss(const struct search_problem *p, const uint8_t *list)
{
    double sum = 0;
    for (int i = 0; i < p->layers; i++)
        sum += p->loss[i * p->options + list[i]];
    return sum;
}

/* ---- knapsack ---- */

static int layer_cells(const struct search_problem *p)
{
    int cells = (LEAST_CELLS + p->layers - 1) / p->layers;
    return cells < LEAST_LAYER_CELLS ? LEAST_LAYER_CELLS : cells;
}

int search_cells(const struct search_problem *p)
{
    return p->layers * layer_cells(p);
}

int search_option_cells(const struct search_problem *p, int option)
{
    double cells = ceil(p->cost[option] / p->cost[0] * layer_cells(p) - SLACK);
    int most = search_cells(p) + 1; /* what is dearer than a dense model fits nowhere */
    return cells < most ? (int)cells : most;
}

/* How a list of the first layers ends: the last one's option, and which of the lists before it is meant. */
struct ending {
    uint8_t option, rank;
};

struct knapsack {
    const struct search_problem *problem;
    int keep, cap;          /* lists per cell; the most cells */
    int cells[SEARCH_MAX_OPTIONS];
    double *loss, *before;  /* [cap + 1][keep] of lists that take exactly so many cells, best first */
    int *count, *count_before;
    struct ending *endings; /* [L][cap + 1][keep] */
};

static struct ending *endings_at(const struct knapsack *k, int layer, int cell)
{
    return k->endings + ((size_t)layer * (size_t)(k->cap + 1) + (size_t)cell) * (size_t)k->keep;
}

/* The best lists that take exactly `cell` cells with one more layer: a merge of what each option makes of the lists before. */
static void fill_cell(struct knapsack *k, int layer, int cell)
{
    const struct search_problem *p = k->problem;
    uint8_t next[SEARCH_MAX_OPTIONS] = {0};
    int *count = &k->count[cell];
    for (*count = 0; *count < k->keep; (*count)++) {
        int best = -1;
        double least = INFINITY;
        for (int o = 0; o < p->options; o++) {
            int from = cell - k->cells[o];
            if (from < 0 || next[o] >= k->count_before[from])
                continue;
            double loss = k->before[from * (int64_t)k->keep + next[o]] + p->loss[layer * p->options + o];
            if (best < 0 || loss < least) {
                best = o;
                least = loss;
            }
        }
        if (best < 0)
            return;
        k->loss[cell * (int64_t)k->keep + *count] = least;
        endings_at(k, layer, cell)[*count] = (struct ending){(uint8_t)best, next[best]++};
    }
}

static void fill(struct knapsack *k)
{
    memset(k->count, 0, (size_t)(k->cap + 1) * sizeof *k->count);
    k->count[0] = 1; /* no layers yet: one list, which adds nothing */
    k->loss[0] = 0;
    for (int layer = 0; layer < k->problem->layers; layer++) {
        double *loss = k->before;
        int *count = k->count_before;
        k->before = k->loss, k->count_before = k->count;
        k->loss = loss, k->count = count;
        for (int cell = 0; cell <= k->cap; cell++)
            fill_cell(k, layer, cell);
    }
}

static void trace(const struct knapsack *k, int cell, int rank, uint8_t *list)
{
    for (int layer = k->problem->layers - 1; layer >= 0; layer--) {
        struct ending e = endings_at(k, layer, cell)[rank];
        list[layer] = e.option;
        cell -= k->cells[e.option];
        rank = e.rank;
    }
}

/* The list of rank `wanted` among all of at most `cap` cells. next[cap + 1] is scratch. */
static bool pick(const struct knapsack *k, int cap, int wanted, uint8_t *next, uint8_t *list)
{
    memset(next, 0, (size_t)(cap + 1));
    for (int rank = 0;; rank++) {
        int best = -1;
        double least = INFINITY;
        for (int cell = 0; cell <= cap; cell++) {
            if (next[cell] >= k->count[cell])
                continue;
            double loss = k->loss[cell * (int64_t)k->keep + next[cell]];
            if (best < 0 || loss < least) {
                best = cell;
                least = loss;
            }
        }
        if (best < 0)
            return false;
        if (rank == wanted) {
            trace(k, best, next[best], list);
            return true;
        }
        next[best]++;
    }
}

static int cap_of(const struct search_problem *p, double budget)
{
    int cells = search_cells(p);
    return budget >= 1 ? cells : budget > 0 ? (int)floor(budget * cells + SLACK) : 0;
}

static void collect(const struct knapsack *k, const double *budgets, int n_budgets, int wanted, uint8_t *next, uint8_t *lists,
                    int *found)
{
    size_t layers = (size_t)k->problem->layers;
    *found = 0;
    for (int rank = 0; rank < wanted; rank++)
        for (int b = 0; b < n_budgets && *found < wanted; b++) {
            uint8_t *list = lists + (size_t)*found * layers;
            bool fresh = pick(k, cap_of(k->problem, budgets[b]), rank, next, list);
            for (int i = 0; fresh && i < *found; i++)
                fresh = memcmp(lists + (size_t)i * layers, list, layers) != 0;
            *found += fresh;
        }
}

enum status search_candidates(const struct search_problem *p, const double *budgets, int n_budgets, int wanted, uint8_t *lists,
                              int *found, struct error *err)
{
    struct knapsack k = {.problem = p, .keep = wanted};
    for (int b = 0; b < n_budgets; b++)
        k.cap = cap_of(p, budgets[b]) > k.cap ? cap_of(p, budgets[b]) : k.cap;
    for (int o = 0; o < p->options; o++)
        k.cells[o] = search_option_cells(p, o);
    size_t cells = (size_t)k.cap + 1, room = cells * (size_t)wanted;
    double *losses = mem_alloc(2 * room, sizeof *losses);
    int *counts = mem_alloc(2 * cells, sizeof *counts);
    uint8_t *next = mem_alloc(cells, 1);
    k.endings = mem_alloc((size_t)p->layers * room, sizeof *k.endings);
    enum status st = losses && counts && next && k.endings
                         ? STATUS_OK
                         : error_set(err, STATUS_NOMEM, "no memory for the %d best lists of %d layers", wanted, p->layers);
    if (st == STATUS_OK) {
        k.loss = losses, k.before = losses + room;
        k.count = counts, k.count_before = counts + cells;
        fill(&k);
        collect(&k, budgets, n_budgets, wanted, next, lists, found);
    }
    mem_free(losses);
    mem_free(counts);
    mem_free(next);
    mem_free(k.endings);
    return st;
}

/* ---- random lists ---- */

/* Numbers of one draw, one after the other. */
struct dice {
    uint64_t seed, stream, counter;
};

static int roll(struct dice *d, int bound)
{
    return (int)rng_below(d->seed, d->stream, d->counter++, (uint64_t)bound);
}

/* Any option that is dearer (sign 1) or cheaper (-1) than the layer's; the layer keeps its own where there is none. */
static void move_layer(const struct search_problem *p, struct dice *d, int sign, uint8_t *option)
{
    int fit = 0, now = *option;
    for (int o = 0; o < p->options; o++)
        if (sign * (p->cost[o] - p->cost[now]) > 0 && roll(d, ++fit) == 0)
            *option = (uint8_t)o;
}

bool search_draw(const struct search_problem *p, double budget, double least, uint64_t seed, uint64_t index, uint8_t *list)
{
    struct dice dice = {seed, rng_substream(RNG_SEARCH, index), 0};
    for (int draw = 0; draw < DRAWS; draw++) {
        for (int i = 0; i < p->layers; i++)
            list[i] = (uint8_t)roll(&dice, p->options);
        double cost = search_cost(p, list);
        if (cost <= budget && cost >= least)
            return true;
    }
    for (int64_t move = 0; move < (int64_t)MOVES_PER_LAYER * p->layers; move++) {
        move_layer(p, &dice, search_cost(p, list) > budget ? -1 : 1, &list[roll(&dice, p->layers)]);
        double cost = search_cost(p, list);
        if (cost <= budget && cost >= least)
            return true;
    }
    return false;
}
