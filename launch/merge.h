/* `loar export` of an adapter's folder: the model it belongs to with the adapters merged, as a folder of its own.
 * Must not know: snapshots, runs. */
#ifndef LAUNCH_MERGE_H
#define LAUNCH_MERGE_H

#include "common/text.h"
#include "worker/model/export.h"

/* base: folder of the model; NULL: the one that adapter_config.json names. said: one line for people, in the end. */
enum status merge_adapter(const char *adapter, const char *base, const char *dir, const struct export_options *options, struct text *said,
                          struct error *err);

#endif
