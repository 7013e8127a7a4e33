/* Templates that are made: from a declaration in YAML, a small form of our own without a language in it, and from the
 * settings of a run. The keys of a declaration stand in one table, which reads and writes them.
 *
 *   name: chatml                         # for messages; default: the file's name
 *   tokens: ["<|im_start|>", "<|im_end|>"]  # that the texts below hold as tokens; the tokenizer must have them
 *   bos: ""                              # "": none; left out: the tokenizer's own
 *   default_system: "Be helpful."        # where a conversation has no system message
 *   system: {prefix: "<|im_start|>system\n", suffix: "<|im_end|>\n", join: "\n\n"}
 *   user: {prefix: "<|im_start|>user\n", suffix: "<|im_end|>\n"}
 *   tool: {prefix: ..., suffix: ...}     # a role that is left out is refused in rows
 *   assistant: {prefix: "<|im_start|>assistant\n"}   # prefix: what the model continues; also suffix, lead
 *   end: "<|im_end|>"                    # ends a turn; left out: the tokenizer's EOS
 *   after_end: "\n"                      # only where something follows
 *   thought_open: "<think>\n"            # tags with the white space round them
 *   thought_close: "\n</think>\n\n"
 *   no_thought: ""                       # stands in the prompt of a turn without a thought
 *   prompt_opens_thought: true           # the prompt holds the opening tag, the model does not write it
 *
 * Must not know: rows, options. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/checksum.h"
#include "common/files.h"
#include "common/scalar.h"
#include "common/yaml.h"
#include "worker/data/template_internal.h"

bool template_choice_parse(const char *word, enum template_choice *out)
{
    static const char *const words[] = {"auto", "true", "false"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(word, words[i])) {
            *out = (enum template_choice)i;
            return true;
        }
    return false;
}

bool train_on_eos_parse(const char *word, enum train_on_eos *out)
{
    static const char *const words[] = {"turn", "last", "none"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(word, words[i])) {
            *out = (enum train_on_eos)i;
            return true;
        }
    return false;
}

/* Keys with a text, in the order of a declaration; those with a dot lie in a mapping. */
static const struct key {
    const char *name;
    size_t offset;
} keys[] = {
#define KEY(name, field) {name, offsetof(struct chat_template, field)}
    KEY("bos", bos), KEY("default_system", default_system), KEY("system.prefix", roles[ROLE_SYSTEM].prefix),
    KEY("system.join", system_join), KEY("system.suffix", roles[ROLE_SYSTEM].suffix), KEY("user.prefix", roles[ROLE_USER].prefix),
    KEY("user.suffix", roles[ROLE_USER].suffix), KEY("tool.prefix", roles[ROLE_TOOL].prefix),
    KEY("tool.suffix", roles[ROLE_TOOL].suffix), KEY("assistant.prefix", roles[ROLE_ASSISTANT].prefix),
    KEY("assistant.lead", lead), KEY("assistant.suffix", roles[ROLE_ASSISTANT].suffix), KEY("end", end),
    KEY("after_end", end_after), KEY("no_thought", no_thought),
};
enum { KEYS = sizeof keys / sizeof *keys };

static const char **field_of(struct chat_template *t, const struct key *key)
{
    return (const char **)((char *)t + key->offset);
}

static const char *text_of(const struct chat_template *t, const struct key *key)
{
    return *(const char *const *)((const char *)t + key->offset);
}

/* ---- making ---- */

static enum status copy(struct chat_template *t, const char *from, size_t size, const char **out, struct error *err)
{
    char *made = arena_alloc(&t->arena, size + 1, 1);
    if (!made)
        FAIL(err, STATUS_NOMEM, "no memory for a chat template");
    memcpy(made, from, size);
    made[size] = '\0';
    *out = made;
    return STATUS_OK;
}

/* White space, tag, white space. */
static enum status split_tag(struct chat_template *t, const char *text, struct piece *out, struct error *err)
{
    static const char blanks[] = " \t\r\n";
    size_t before = strspn(text, blanks), end = strlen(text);
    while (end > before && strchr(blanks, text[end - 1]))
        end--;
    TRY(copy(t, text, before, &out->before, err));
    TRY(copy(t, text + before, end - before, &out->tag, err));
    TRY(copy(t, text + end, strlen(text) - end, &out->after, err));
    if (!*out->tag)
        FAIL(err, STATUS_DATA, "a tag of thoughts must be more than white space");
    return STATUS_OK;
}

/* A declaration on its way in. */
struct declaration {
    struct chat_template *t;
    const char *where;
    struct error *err;
};

static enum status bad(const struct declaration *d, const struct yaml *at, const char *what, const char *name)
{
    FAIL(d->err, STATUS_DATA, "%s:%d: %s%s%s%s", d->where, at ? yaml_line(at) : 1, name ? "'" : "", name ? name : "", name ? "': " : "", what);
}

static enum status read_tokens(const struct declaration *d, const struct yaml *node)
{
    int count = 0;
    if (yaml_kind(node) != YAML_KIND_LIST)
        return bad(d, node, "wanted a list of tokens", "tokens");
    for (const struct yaml *e = yaml_first(node); e; e = yaml_next(e)) {
        if (yaml_kind(e) != YAML_KIND_SCALAR || !*yaml_text(e))
            return bad(d, e, "wanted a list of tokens, each a text", "tokens");
        if (count == TEMPLATE_TOKENS)
            return bad(d, e, "at most 16 tokens can be named", "tokens");
        TRY(copy(d->t, yaml_text(e), strlen(yaml_text(e)), &d->t->tokens[count++], d->err));
    }
    return STATUS_OK;
}

/* STATUS_OK with *known = false for a key that is not one of the table. */
static enum status read_text(const struct declaration *d, const char *name, const struct yaml *node, bool *known)
{
    struct piece *tag = !strcmp(name, "thought_open") ? &d->t->open : !strcmp(name, "thought_close") ? &d->t->close : NULL;
    *known = true;
    if (tag && yaml_kind(node) == YAML_KIND_SCALAR) {
        if (split_tag(d->t, yaml_text(node), tag, d->err) == STATUS_NOMEM)
            return STATUS_NOMEM;
        return *tag->tag ? STATUS_OK : bad(d, node, "a tag of thoughts must be more than white space", name);
    }
    for (int i = 0; i < KEYS; i++)
        if (!strcmp(name, keys[i].name)) {
            if (yaml_kind(node) != YAML_KIND_SCALAR)
                return bad(d, node, "wanted a text", name);
            return copy(d->t, yaml_text(node), strlen(yaml_text(node)), field_of(d->t, &keys[i]), d->err);
        }
    *known = false;
    return STATUS_OK;
}

static enum status unknown_key(const struct declaration *d, const struct yaml *at, const char *name)
{
    return bad(d, at, "unknown key; known are name, tokens, bos, default_system, system, user, tool and assistant (each with prefix and "
               "suffix; system also with join, assistant with lead), end, after_end, thought_open, thought_close, no_thought and "
               "prompt_opens_thought", name);
}

/* system, user, assistant, tool: a mapping, whose being there makes the role known. */
static enum status read_role(const struct declaration *d, enum role role, const struct yaml *node)
{
    if (yaml_kind(node) != YAML_KIND_MAP)
        return bad(d, node, "wanted a mapping such as {prefix: \"...\", suffix: \"...\"}", role_name(role));
    for (const struct yaml *e = yaml_first(node); e; e = yaml_next(e)) {
        char name[64];
        bool known;
        snprintf(name, sizeof name, "%s.%.40s", role_name(role), yaml_text(yaml_key(e)));
        TRY(read_text(d, name, e, &known));
        if (!known)
            return unknown_key(d, yaml_key(e), name);
    }
    if (!d->t->roles[role].prefix)
        d->t->roles[role].prefix = "";
    return STATUS_OK;
}

static enum status read_entry(const struct declaration *d, const struct yaml *e)
{
    const char *name = yaml_text(yaml_key(e));
    bool known;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (!strcmp(name, role_name((enum role)role)))
            return read_role(d, (enum role)role, e);
    if (!strcmp(name, "tokens"))
        return read_tokens(d, e);
    if (!strcmp(name, "name") && yaml_kind(e) == YAML_KIND_SCALAR && *yaml_text(e))
        return copy(d->t, yaml_text(e), strlen(yaml_text(e)), &d->t->name, d->err);
    if (!strcmp(name, "prompt_opens_thought")) {
        if (yaml_kind(e) != YAML_KIND_SCALAR || !scalar_to_bool(yaml_text(e), &d->t->open_is_prompt))
            return bad(d, e, "wanted true or false", name);
        d->t->model_opens = !d->t->open_is_prompt;
        return STATUS_OK;
    }
    if (strchr(name, '.'))
        return unknown_key(d, yaml_key(e), name);
    TRY(read_text(d, name, e, &known));
    return known ? STATUS_OK : unknown_key(d, yaml_key(e), name);
}

/* What the keys must be to each other. */
static enum status check_whole(const struct declaration *d, const struct yaml *root)
{
    struct chat_template *t = d->t;
    for (int role = ROLE_USER; role <= ROLE_ASSISTANT; role++)
        if (!t->roles[role].prefix)
            return bad(d, root, "a template must say how this role is written", role_name((enum role)role));
    if (!t->open.tag != !t->close.tag)
        return bad(d, root, "thought_open and thought_close belong together; give both or none", NULL);
    if (t->end && !*t->end)
        return bad(d, root, "an empty end would never end a turn; leave the key out for the tokenizer's EOS", "end");
    if (t->default_system && *t->default_system && !t->roles[ROLE_SYSTEM].prefix)
        return bad(d, root, "needs a key `system` that says how a system message is written", "default_system");
    const char *singles[] = {t->bos, t->end};
    for (int i = 0; i < 2; i++) {
        int at = 0;
        while (t->tokens[at] && singles[i] && strcmp(t->tokens[at], singles[i]))
            at++;
        if (!singles[i] || !*singles[i] || t->tokens[at])
            continue;
        if (at == TEMPLATE_TOKENS)
            return bad(d, root, "at most 16 tokens can be named", "tokens");
        t->tokens[at] = singles[i];
    }
    return STATUS_OK;
}

static enum status read_declaration(struct chat_template *t, const char *text, const char *where, struct error *err)
{
    struct declaration d = {t, where, err};
    struct yaml_document *document;
    TRY(yaml_parse(text, strlen(text), where, &document, err));
    const struct yaml *root = yaml_root(document);
    enum status st = STATUS_OK;
    if (!root || yaml_kind(root) != YAML_KIND_MAP)
        st = bad(&d, root, "a chat template is a mapping of keys such as user, assistant and end", NULL);
    for (const struct yaml *e = st == STATUS_OK ? yaml_first(root) : NULL; e && st == STATUS_OK; e = yaml_next(e))
        st = read_entry(&d, e);
    if (st == STATUS_OK)
        st = check_whole(&d, root);
    yaml_close(document);
    if (st == STATUS_OK && !t->open.tag) {
        t->open = (struct piece){NULL, "<think>", "\n"};
        t->close = (struct piece){"\n", "</think>", "\n\n"};
    }
    return st;
}

static enum status apply(struct chat_template *t, const struct template_settings *s, struct error *err)
{
    if (s->thought_open && *s->thought_open && split_tag(t, s->thought_open, &t->open, err) != STATUS_OK)
        return error_prefix(err, "thought_open");
    if (s->thought_close && *s->thought_close && split_tag(t, s->thought_close, &t->close, err) != STATUS_OK)
        return error_prefix(err, "thought_close");
    if (s->default_system && *s->default_system) {
        if (!t->roles[ROLE_SYSTEM].prefix)
            FAIL(err, STATUS_USAGE, "default_system is given, but chat_template '%s' cannot write a system message", t->name);
        TRY(copy(t, s->default_system, strlen(s->default_system), &t->default_system, err));
    }
    if (s->prompt_opens_thought != TEMPLATE_AUTO) {
        t->open_is_prompt = s->prompt_opens_thought == TEMPLATE_YES;
        t->model_opens = !t->open_is_prompt;
    }
    t->thinking = s->enable_thinking;
    t->ignore_empty = s->ignore_empty_thought;
    t->train_on_eos = s->train_on_eos;
    return STATUS_OK;
}

/* A file is called what it is called without its folder and ending. */
static enum status name_after(struct chat_template *t, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    return copy(t, base, dot && dot > base ? (size_t)(dot - base) : strlen(base), &t->name, err);
}

enum status template_create(const struct template_settings *settings, struct chat_template **out, struct error *err)
{
    bool declared = settings->text && *settings->text;
    const struct chat_template *built_in = declared ? NULL : template_find(settings->name);
    if (!declared && !built_in)
        FAIL(err, STATUS_USAGE, "chat_template '%s' is not known; known are %s, or a file (.yaml) that declares one", settings->name,
             template_names());
    struct chat_template *t = mem_alloc(1, sizeof *t);
    if (!t)
        FAIL(err, STATUS_NOMEM, "no memory for a chat template");
    if (built_in)
        *t = *built_in;
    t->arena.block_bytes = 4096;
    t->declared = declared;
    enum status st = STATUS_OK;
    if (declared) {
        st = name_after(t, settings->name, err);
        if (st == STATUS_OK)
            st = read_declaration(t, settings->text, settings->name, err);
    }
    if (st == STATUS_OK)
        st = apply(t, settings, err);
    if (st != STATUS_OK) {
        template_free(t);
        return st;
    }
    *out = t;
    return STATUS_OK;
}

enum status template_open(const char *name_or_file, struct chat_template **out, struct error *err)
{
    struct template_settings settings = {.name = name_or_file};
    char *text = NULL;
    size_t size;
    if (path_is_yaml(name_or_file)) {
        TRY(file_read(name_or_file, &text, &size, err));
        settings.text = text;
    }
    enum status st = text && !*text ? error_set(err, STATUS_DATA, "%s:1: the file is empty", name_or_file)
                                    : template_create(&settings, out, err);
    mem_free(text);
    return st;
}

void template_free(struct chat_template *t)
{
    if (t)
        arena_free(&t->arena);
    mem_free(t);
}

/* ---- writing ---- */

static void put_string(struct text *out, const char *key, const char *text)
{
    text_printf(out, "%s: ", key);
    scalar_put_string(out, text);
}

static void put_tag_key(struct text *out, const char *key, const struct piece *piece)
{
    struct text whole = {0};
    text_printf(&whole, "%s%s%s", piece->before ? piece->before : "", piece->tag, piece->after ? piece->after : "");
    if (whole.failed)
        out->failed = true;
    else
        put_string(out, key, whole.data);
    text_puts(out, "\n");
    text_free(&whole);
}

static void put_roles(const struct chat_template *t, struct text *out)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        const char *name = role_name((enum role)role), *comma = "";
        if (!t->roles[role].prefix)
            continue;
        text_printf(out, "%s: {", name);
        for (int i = 0; i < KEYS; i++) {
            const char *dot = strchr(keys[i].name, '.'), *text = text_of(t, &keys[i]);
            if (!dot || !text || !*text || strncmp(keys[i].name, name, (size_t)(dot - keys[i].name)) || name[dot - keys[i].name])
                continue;
            text_puts(out, comma);
            put_string(out, dot + 1, text);
            comma = ", ";
        }
        text_puts(out, "}\n");
    }
}

static void put_body(const struct chat_template *t, struct text *out)
{
    text_puts(out, "tokens: [");
    for (int i = 0; t->tokens[i]; i++) {
        text_puts(out, i ? ", " : "");
        scalar_put_string(out, t->tokens[i]);
    }
    text_puts(out, "]\n");
    put_roles(t, out);
    for (int i = 0; i < KEYS; i++) {
        const char *text = text_of(t, &keys[i]);
        if (strchr(keys[i].name, '.') || !text || (!*text && text != t->bos))
            continue;
        put_string(out, keys[i].name, text);
        text_puts(out, "\n");
    }
    put_tag_key(out, "thought_open", &t->open);
    put_tag_key(out, "thought_close", &t->close);
    if (t->open_is_prompt || t->model_opens) /* where neither is said, the tag is learnt and given */
        text_printf(out, "prompt_opens_thought: %s\n", t->open_is_prompt ? "true" : "false");
}

void template_declare(const struct chat_template *t, struct text *out)
{
    put_string(out, "name", t->name);
    text_puts(out, "\n");
    put_body(t, out);
}

enum status template_hash(const struct chat_template *t, char out[TEMPLATE_HASH_SIZE], struct error *err)
{
    struct text body = {0};
    char hex[DIGEST_HEX_SIZE];
    put_body(t, &body);
    struct digest *digest = body.failed ? NULL : digest_new();
    if (digest) {
        digest_add(digest, body.data, body.size);
        digest_finish(digest, hex);
        memcpy(out, hex, TEMPLATE_HASH_SIZE - 1);
        out[TEMPLATE_HASH_SIZE - 1] = '\0';
    }
    text_free(&body);
    if (!digest)
        FAIL(err, STATUS_NOMEM, "no memory for the digest of a chat template");
    return STATUS_OK;
}
