/* From scores to gate values and back: the two families that policies choose from. A gate value says how much the router
 * wants a head; `scale` makes it 1 where the router is undecided between heads (softmax) or sure (sigmoid), so that soft
 * gates begin near the dense model.
 * One decision at a time, n heads. Must not know: which heads run. */
#ifndef WORKER_LOAR_GATE_H
#define WORKER_LOAR_GATE_H

struct gate_ops {
    float (*scale)(int n);
    /* p[n] of scores z[n]; a threshold per head shifts sigmoids. */
    void (*values)(int n, const float *z, const float *threshold, float *p);
    /* dz[n] = gradient of z from that of p */
    void (*backward)(int n, const float *p, const float *dp, float *dz);
    /* dz[n] = gradient of the loss that fits p to what is wanted */
    void (*fit)(int n, const float *p, const float *wanted, float *dz);
};

/* fit: Kullback-Leibler divergence from the shares that are wanted. */
extern const struct gate_ops gate_softmax;
/* sigmoid(z - threshold); fit: mean binary cross-entropy, 1 wanted of heads that should run, else 0. */
extern const struct gate_ops gate_sigmoid;

#endif
