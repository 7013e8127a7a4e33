/* Lists of layers as text: a word per option, a short line, and the YAML that loar.layers_file reads.
 * Must not know: where lists come from. */
#ifndef LAUNCH_SEARCH_LIST_H
#define LAUNCH_SEARCH_LIST_H

#include "common/text.h"
#include "worker/loar/search.h"

enum { SEARCH_WORD_SIZE = 32 };

/* "full/1", "256/0.5": window and share of heads. */
const char *search_word(const struct search_option *option, char room[SEARCH_WORD_SIZE]);
/* "0-5 256/0.5, 6-7 full/1" */
void search_list_put(const struct search_space *space, const uint8_t *list, int layers, struct text *out);
/* The same as `loar: {layers: [...]}`, an entry for each range. */
void search_list_put_yaml(const struct search_space *space, const uint8_t *list, int layers, int sinks, struct text *out);

#endif
