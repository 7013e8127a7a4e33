#include "common/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/scalar.h"

struct yaml {
    enum yaml_kind kind;
    bool plain;
    int line, column;
    const char *text;
    const struct yaml *key;
    struct yaml *first, *last, *next;
    size_t count;
};

struct yaml_document {
    struct arena arena;
    struct yaml *root;
};

/* Where the reader stands: the open lists and mappings, each with a key that waits for its value. */
struct builder {
    const char *name;
    struct yaml_document *document;
    struct yaml *open[YAML_MAX_DEPTH];
    struct yaml *key[YAML_MAX_DEPTH];
    int depth;
    size_t nodes;
    bool begun; /* a document was opened */
};

#define REFUSE(b, node, ...) return refuse((b)->name, (node)->line, (node)->column, err, __VA_ARGS__)

static enum status __attribute__((format(printf, 5, 6)))
refuse(const char *name, int line, int column, struct error *err, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    FAIL(err, STATUS_DATA, "%s:%d:%d: %s", name, line, column, what);
}

static enum status parser_error(const yaml_parser_t *parser, const struct builder *b, const char *text, struct error *err)
{
    const char *problem = parser->problem ? parser->problem : "not YAML";
    if (parser->error == YAML_MEMORY_ERROR)
        FAIL(err, STATUS_NOMEM, "%s: no memory to read the YAML", b->name);
    if (parser->error == YAML_READER_ERROR) {
        int line = 1;
        for (size_t i = 0; i < parser->problem_offset; i++)
            line += text[i] == '\n';
        FAIL(err, STATUS_DATA, "%s:%d: %s (byte %zu); the file must be UTF-8 text", b->name, line, problem, parser->problem_offset);
    }
    FAIL(err, STATUS_DATA, "%s:%zu:%zu: %s%s%s", b->name, parser->problem_mark.line + 1, parser->problem_mark.column + 1, problem,
         parser->context ? ", " : "", parser->context ? parser->context : "");
}

/* libyaml lets tabs pass where they do no harm and is hard to understand where they do. */
static enum status check_tabs(const char *text, size_t size, const char *name, struct error *err)
{
    int line = 1;
    for (size_t i = 0; i < size; line++) {
        size_t start = i;
        while (i < size && (text[i] == ' ' || text[i] == '\t'))
            i++;
        const char *tab = memchr(text + start, '\t', i - start);
        if (tab && i < size && text[i] != '\n' && text[i] != '\r' && text[i] != '#')
            return refuse(name, line, (int)(tab - text - (ptrdiff_t)start) + 1, err, "a tab as indentation; use spaces");
        const char *end = i < size ? memchr(text + i, '\n', size - i) : NULL;
        i = end ? (size_t)(end - text) + 1 : size;
    }
    return STATUS_OK;
}

static enum status node_new(struct builder *b, const yaml_event_t *event, enum yaml_kind kind, const yaml_char_t *anchor,
                            const yaml_char_t *tag, struct yaml **out, struct error *err)
{
    struct yaml at = {.kind = kind, .line = (int)event->start_mark.line + 1, .column = (int)event->start_mark.column + 1};
    if (anchor)
        REFUSE(b, &at, "anchor '&%.60s': anchors and aliases are not supported; write the value out", (const char *)anchor);
    if (tag)
        REFUSE(b, &at, "tag '%.60s': tags are not supported; leave it out", (const char *)tag);
    if (++b->nodes > YAML_MAX_NODES)
        REFUSE(b, &at, "more than %d values", YAML_MAX_NODES);
    struct yaml *node = arena_alloc(&b->document->arena, 1, sizeof *node);
    if (!node)
        FAIL(err, STATUS_NOMEM, "%s: no memory to read the YAML", b->name);
    *node = at;
    *out = node;
    return STATUS_OK;
}

static enum status scalar_new(struct builder *b, const yaml_event_t *event, struct yaml **out, struct error *err)
{
    struct yaml *node;
    const char *value = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    TRY(node_new(b, event, YAML_KIND_SCALAR, event->data.scalar.anchor, event->data.scalar.tag, &node, err));
    if (memchr(value, '\0', length))
        REFUSE(b, node, "a NUL character inside a text");
    char *copy = arena_alloc(&b->document->arena, length + 1, 1);
    if (!copy)
        FAIL(err, STATUS_NOMEM, "%s: no memory to read the YAML", b->name);
    memcpy(copy, value, length + 1);
    node->text = copy;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *out = node;
    return STATUS_OK;
}

/* Hangs the node into what is open; the first scalar of a pair becomes its key. */
static enum status attach(struct builder *b, struct yaml *node, struct error *err)
{
    if (!b->depth) {
        b->document->root = node;
        return STATUS_OK;
    }
    struct yaml *parent = b->open[b->depth - 1], **key = &b->key[b->depth - 1];
    if (parent->kind == YAML_KIND_MAP && !*key) {
        if (node->kind != YAML_KIND_SCALAR)
            REFUSE(b, node, "a %s as a key; keys are words", yaml_kind_name(node->kind));
        if (parent->count >= YAML_MAX_KEYS)
            REFUSE(b, node, "more than %d keys in one mapping", YAML_MAX_KEYS);
        for (const struct yaml *e = parent->first; e; e = e->next)
            if (!strcmp(e->key->text, node->text))
                REFUSE(b, node, "%.100s: given twice, first in line %d; keep one", node->text, e->key->line);
        *key = node;
        return STATUS_OK;
    }
    if (parent->kind == YAML_KIND_MAP) {
        node->key = *key;
        *key = NULL;
    }
    if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    parent->last = node;
    parent->count++;
    return STATUS_OK;
}

static enum status open_node(struct builder *b, struct yaml *node, struct error *err)
{
    TRY(attach(b, node, err));
    if (b->depth == YAML_MAX_DEPTH)
        REFUSE(b, node, "nested deeper than %d", YAML_MAX_DEPTH);
    b->open[b->depth] = node;
    b->key[b->depth++] = NULL;
    return STATUS_OK;
}

static enum status take(struct builder *b, const yaml_event_t *event, struct error *err)
{
    struct yaml *node = NULL;
    struct yaml at = {.line = (int)event->start_mark.line + 1, .column = (int)event->start_mark.column + 1};
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->begun)
            REFUSE(b, &at, "a second document; put one document into a file");
        b->begun = true;
        return STATUS_OK;
    case YAML_ALIAS_EVENT:
        REFUSE(b, &at, "alias '*%.60s': anchors and aliases are not supported; write the value out",
               (const char *)event->data.alias.anchor);
    case YAML_SCALAR_EVENT:
        TRY(scalar_new(b, event, &node, err));
        return attach(b, node, err);
    case YAML_SEQUENCE_START_EVENT:
        TRY(node_new(b, event, YAML_KIND_LIST, event->data.sequence_start.anchor, event->data.sequence_start.tag, &node, err));
        return open_node(b, node, err);
    case YAML_MAPPING_START_EVENT:
        TRY(node_new(b, event, YAML_KIND_MAP, event->data.mapping_start.anchor, event->data.mapping_start.tag, &node, err));
        return open_node(b, node, err);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return STATUS_OK;
    default:
        return STATUS_OK;
    }
}

static enum status read_events(yaml_parser_t *parser, struct builder *b, const char *text, struct error *err)
{
    for (bool more = true; more;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event))
            return parser_error(parser, b, text, err);
        enum status st = take(b, &event, err);
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status yaml_parse(const char *text, size_t size, const char *name, struct yaml_document **out, struct error *err)
{
    if (size > YAML_MAX_BYTES)
        FAIL(err, STATUS_DATA, "%s: %zu bytes; a YAML file may have %d", name, size, YAML_MAX_BYTES);
    TRY(check_tabs(text, size, name, err));
    struct builder b = {.name = name, .document = mem_alloc(1, sizeof *b.document)};
    if (!b.document)
        FAIL(err, STATUS_NOMEM, "%s: no memory to read the YAML", name);
    b.document->arena.block_bytes = 1 << 16;
    yaml_parser_t parser;
    enum status st;
    if (yaml_parser_initialize(&parser)) {
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
        yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
        st = read_events(&parser, &b, text, err);
        yaml_parser_delete(&parser);
    } else {
        st = error_set(err, STATUS_NOMEM, "%s: no memory to read the YAML", name);
    }
    if (st != STATUS_OK) {
        yaml_close(b.document);
        return st;
    }
    *out = b.document;
    return STATUS_OK;
}

void yaml_close(struct yaml_document *document)
{
    if (!document)
        return;
    arena_free(&document->arena);
    mem_free(document);
}

const struct yaml *yaml_root(const struct yaml_document *document)
{
    return document->root;
}

enum yaml_kind yaml_kind(const struct yaml *node)
{
    return node->kind;
}

const char *yaml_kind_name(enum yaml_kind kind)
{
    static const char *const names[] = {"text", "list", "mapping"};
    return names[kind];
}

int yaml_line(const struct yaml *node)
{
    return node->line;
}

int yaml_column(const struct yaml *node)
{
    return node->column;
}

const char *yaml_text(const struct yaml *node)
{
    return node->text;
}

bool yaml_plain(const struct yaml *node)
{
    return node->plain;
}

const struct yaml *yaml_first(const struct yaml *node)
{
    return node->first;
}

const struct yaml *yaml_next(const struct yaml *entry)
{
    return entry->next;
}

size_t yaml_count(const struct yaml *node)
{
    return node->count;
}

const struct yaml *yaml_key(const struct yaml *entry)
{
    return entry->key;
}

static void put_number(struct text *out, const char *text, double value)
{
    /* JSON has no leading '+' or '.', no trailing '.'. Otherwise the number stays as it was written. */
    const char *first = text + (*text == '-'), *point = strchr(text, '.');
    bool json = *text != '+' && *first != '.' && (!point || (point[1] >= '0' && point[1] <= '9'));
    if (json)
        text_puts(out, text);
    else
        scalar_put_real(out, value);
}

static enum status scalar_to_json(const struct yaml *node, const char *name, struct text *out, struct error *err)
{
    static const char *const not_json[] = {".inf", "-.inf", "+.inf", ".nan", ".Inf", "-.Inf", "+.Inf", ".NaN", ".INF", "-.INF", "+.INF", ".NAN"};
    const char *text = node->text;
    double number;
    if (!node->plain) {
        text_json_string(out, text, strlen(text));
        return STATUS_OK;
    }
    for (size_t i = 0; i < sizeof not_json / sizeof not_json[0]; i++)
        if (!strcmp(text, not_json[i]))
            return refuse(name, node->line, node->column, err, "%s: found '%s', wanted a finite number",
                          node->key ? node->key->text : "value", text);
    if (scalar_is_null(text))
        text_puts(out, "null");
    else if (!strcmp(text, "true") || !strcmp(text, "True") || !strcmp(text, "TRUE"))
        text_puts(out, "true");
    else if (!strcmp(text, "false") || !strcmp(text, "False") || !strcmp(text, "FALSE"))
        text_puts(out, "false");
    else if (scalar_to_real(text, &number))
        put_number(out, text, number);
    else
        text_json_string(out, text, strlen(text));
    return STATUS_OK;
}

enum status yaml_to_json(const struct yaml *node, const char *name, struct text *out, struct error *err)
{
    if (node->kind == YAML_KIND_SCALAR)
        return scalar_to_json(node, name, out, err);
    bool map = node->kind == YAML_KIND_MAP;
    text_puts(out, map ? "{" : "[");
    for (const struct yaml *e = node->first; e; e = e->next) {
        if (e != node->first)
            text_puts(out, ", ");
        if (map) {
            text_json_string(out, e->key->text, strlen(e->key->text));
            text_puts(out, ": ");
        }
        TRY(yaml_to_json(e, name, out, err)); /* no deeper than YAML_MAX_DEPTH */
    }
    text_puts(out, map ? "}" : "]");
    if (out->failed)
        FAIL(err, STATUS_NOMEM, "%s: no memory for the JSON", name);
    return STATUS_OK;
}

enum status yaml_file_to_json_text(const char *path, struct text *out, struct error *err)
{
    char *text;
    size_t size;
    struct yaml_document *document = NULL;
    TRY(file_read(path, &text, &size, err));
    enum status st = yaml_parse(text, size, path, &document, err);
    mem_free(text);
    if (st != STATUS_OK)
        return st;
    const struct yaml *root = yaml_root(document);
    if (root && root->kind == YAML_KIND_MAP)
        st = yaml_to_json(root, path, out, err);
    else
        st = error_set(err, STATUS_DATA, "%s: %s; wanted a mapping of the keys of config.json", path,
                       root ? "found no mapping at the top" : "the file is empty");
    yaml_close(document);
    return st;
}

const char *yaml_version(void)
{
    return yaml_get_version_string();
}
