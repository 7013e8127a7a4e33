/* A thin, strict reader over libyaml, the only place that includes it. The text becomes a tree whose every node
 * knows its line and column. Refused: duplicate keys, anchors and aliases, tags, several documents, tabs as
 * indentation, anything deep or large. Scalars stay text; their reader decides what they are.
 * Must not know: what the keys mean. */
#ifndef COMMON_YAML_H
#define COMMON_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/text.h"

enum { YAML_MAX_BYTES = 1 << 20, YAML_MAX_DEPTH = 16, YAML_MAX_NODES = 100000, YAML_MAX_KEYS = 1000 };

struct yaml_document;
struct yaml; /* one node, owned by its document */

enum yaml_kind { YAML_KIND_SCALAR, YAML_KIND_LIST, YAML_KIND_MAP };

/* `name` stands for the text in messages ("run.yaml:3:7: ..."). STATUS_DATA: broken or refused. */
enum status yaml_parse(const char *text, size_t size, const char *name, struct yaml_document **out, struct error *err);
void yaml_close(struct yaml_document *document);
/* NULL for a text without content. */
const struct yaml *yaml_root(const struct yaml_document *document);

/* Of libyaml: "0.2.5". */
const char *yaml_version(void);

enum yaml_kind yaml_kind(const struct yaml *node);
/* "text", "list", "mapping" */
const char *yaml_kind_name(enum yaml_kind kind);
int yaml_line(const struct yaml *node); /* from 1 */
int yaml_column(const struct yaml *node);
/* Scalars: text without quotes, NUL-terminated, without other NULs. */
const char *yaml_text(const struct yaml *node);
/* True for a scalar without quotes, which may be a number, a truth value or null. */
bool yaml_plain(const struct yaml *node);

/* Entries of a list or mapping in file order: for (e = yaml_first(n); e; e = yaml_next(e)). */
const struct yaml *yaml_first(const struct yaml *node);
const struct yaml *yaml_next(const struct yaml *entry);
size_t yaml_count(const struct yaml *node);
/* The key (a scalar) of an entry of a mapping. */
const struct yaml *yaml_key(const struct yaml *entry);

/* Appends the node as JSON: plain scalars become numbers (1e-5 too), true, false or null where they read as such,
 * strings otherwise. STATUS_DATA: a number that JSON does not have (.inf, .nan). */
enum status yaml_to_json(const struct yaml *node, const char *name, struct text *out, struct error *err);
/* A file whose root is a mapping, as the text of a JSON object; for architecture files with the keys of config.json. */
enum status yaml_file_to_json_text(const char *path, struct text *out, struct error *err);

#endif
