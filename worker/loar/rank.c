#include "worker/loar/rank.h"

#include "common/compiler.h"
#include "worker/loar/loar.h"

/* Comparing all pairs has no branches and beats sorting for the numbers of heads that models have. */
MULTIVERSION void rank_heads(int n, const float *key, int *rank)
{
    for (int i = 0; i < n; i++) {
        int before = 0;
        for (int j = 0; j < n; j++)
            before += (key[j] > key[i]) | ((key[j] == key[i]) & (j < i));
        rank[i] = before;
    }
}

void rank_order(int n, const float *key, int *order)
{
    int rank[LOAR_MAX_HEADS];
    rank_heads(n, key, rank);
    for (int i = 0; i < n; i++)
        order[rank[i]] = i;
}
