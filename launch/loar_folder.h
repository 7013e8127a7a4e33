/* loar_config.json of a model folder: how its attention is routed, so that the folder alone routes as was trained. The
 * tensors of the routers lie in its weights.
 * Must not know: options, weights, ranks. */
#ifndef LAUNCH_LOAR_FOLDER_H
#define LAUNCH_LOAR_FOLDER_H

#include "common/status.h"
#include "common/text.h"
#include "launch/loar_setup.h"

/* Appends the file. Reading it gives the same routing back. */
void loar_folder_write(const struct loar_setup *setup, struct text *out);

/* Reads the text for a model of this configuration; `where` names it in messages. Every key must be there and none besides.
 * STATUS_DATA names the key, what was found and what is allowed. */
enum status loar_folder_parse(const char *text, size_t size, const char *where, const struct model_config *config,
                              struct loar_setup **out, struct error *err);
/* The same from a model's folder; NULL where the file is absent. */
enum status loar_folder_read(const char *dir, const struct model_config *config, struct loar_setup **out, struct error *err);

#endif
