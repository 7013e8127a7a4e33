/* What a run does with its rows between reading them and training: leave repeated ones out, hold some out for evaluation,
 * mix the sets; and what a person should know about rows that are the same.
 * Must not know: ranks, messages. */
#ifndef LAUNCH_SIFT_H
#define LAUNCH_SIFT_H

#include "launch/run.h"

/* What a data set's rows are kept by in dataset_cache_dir, as text: the options that shape them, the vocabulary, the chat
 * template's file where it is one. */
enum status sift_cache_key(const struct run *run, const struct dataset_options *set, struct text *out, struct error *err);
/* dataset_exact_deduplication and val_size. Held-out rows become evaluation rows, one set per training set. */
enum status sift_rows(struct run *run, struct error *err);
/* The order of the training rows over steps and slots, as shuffle_dataset and mix_strategy say. */
enum status sift_order(struct run *run, int slots, struct error *err);
/* Times that an epoch goes through a training set; after sift_order. */
double sift_passes(const struct run *run, int part);
/* One line each: rows that repeat, rows that are in training and evaluation, the shares of mixed sets (after sift_order). */
enum status sift_notes(const struct run *run, struct text *notes, struct error *err);

#endif
