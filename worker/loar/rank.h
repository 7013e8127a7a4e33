/* The order of heads by a value each: largest first, the lower index first among equals. */
#ifndef WORKER_LOAR_RANK_H
#define WORKER_LOAR_RANK_H

/* rank[n]: 0 for the head with the largest key. */
void rank_heads(int n, const float *key, int *rank);
/* order[n]: heads from first to last. */
void rank_order(int n, const float *key, int *order);

#endif
