/* Pre-tokenizers: text is cut into the pieces that merges never cross. Most stages only cut; some rewrite.
 * Must not know: the vocabulary. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

/* GPT-2's expression, as the reference's ByteLevel holds it. */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static enum status add_stage(struct pretokenizer *p, enum stage_kind kind, enum behavior behavior, const char *where,
                             struct stage **out, struct error *err)
{
    struct stage *stages = part_grow(p->stages, p->count, sizeof *stages);
    if (!stages)
        FAIL(err, STATUS_NOMEM, "%s: no memory for the pre-tokenizer", where);
    p->stages = stages;
    *out = &stages[p->count++];
    **out = (struct stage){.kind = kind, .behavior = behavior};
    return STATUS_OK;
}

static enum status behavior_read(const struct json *json, const char *where, enum behavior *out, struct error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    TRY(json_get_string(json, "behavior", where, &name, err));
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum behavior)i;
            return STATUS_OK;
        }
    return name ? part_refuse(where, "behavior", name, err) : STATUS_OK;
}

static enum status add_split(struct pretokenizer *p, const struct json *json, const char *where, struct error *err)
{
    struct stage *stage = NULL;
    TRY(add_stage(p, STAGE_SPLIT, BEHAVIOR_ISOLATED, where, &stage, err));
    TRY(pattern_read(json_member(json, "pattern"), where, &stage->pattern, err));
    TRY(behavior_read(json, where, &stage->behavior, err));
    return json_get_bool(json, "invert", where, &stage->invert, err);
}

static enum status add_digits(struct pretokenizer *p, const struct json *json, const char *where, struct error *err)
{
    struct stage *stage = NULL;
    bool individual = false;
    TRY(json_get_bool(json, "individual_digits", where, &individual, err));
    return add_stage(p, STAGE_DIGITS, individual ? BEHAVIOR_ISOLATED : BEHAVIOR_CONTIGUOUS, where, &stage, err);
}

static enum status add_punctuation(struct pretokenizer *p, const struct json *json, const char *where, struct error *err)
{
    struct stage *stage = NULL;
    TRY(add_stage(p, STAGE_PUNCT, BEHAVIOR_ISOLATED, where, &stage, err));
    return behavior_read(json, where, &stage->behavior, err);
}

static enum status add_byte_level(struct pretokenizer *p, const struct json *json, const char *where, struct error *err)
{
    struct stage *stage = NULL;
    bool space = true, use_regex = true;
    TRY(json_get_bool(json, "add_prefix_space", where, &space, err));
    TRY(json_get_bool(json, "use_regex", where, &use_regex, err));
    if (space)
        TRY(add_stage(p, STAGE_SPACE, BEHAVIOR_ISOLATED, where, &stage, err));
    if (use_regex) {
        TRY(add_stage(p, STAGE_SPLIT, BEHAVIOR_ISOLATED, where, &stage, err));
        TRY(regex_compile(gpt2_pattern, sizeof gpt2_pattern - 1, where, &stage->pattern.regex, err));
    }
    return add_stage(p, STAGE_BYTES, BEHAVIOR_ISOLATED, where, &stage, err);
}

static enum status add_metaspace(struct pretokenizer *p, const struct json *json, const char *where, struct error *err)
{
    struct stage *stage = NULL;
    const char *scheme = "always";
    bool split = true, prefix = true;
    size_t size;
    TRY(json_get_string(json, "prepend_scheme", where, &scheme, err));
    TRY(json_get_bool(json, "split", where, &split, err));
    TRY(json_get_bool(json, "add_prefix_space", where, &prefix, err)); /* older files */
    TRY(add_stage(p, STAGE_METASPACE, BEHAVIOR_ISOLATED, where, &stage, err));
    stage->scheme = !prefix || !strcmp(scheme, "never") ? SCHEME_NEVER : !strcmp(scheme, "first") ? SCHEME_FIRST : SCHEME_ALWAYS;
    TRY(part_string(json, "replacement", where, &stage->replacement, &size, err));
    if (!split)
        return STATUS_OK;
    char *replacement = mem_strdup(stage->replacement);
    enum status st = replacement ? add_stage(p, STAGE_SPLIT, BEHAVIOR_NEXT, where, &stage, err)
                                 : error_set(err, STATUS_NOMEM, "%s: no memory for the pre-tokenizer", where);
    if (st == STATUS_OK)
        stage->pattern = (struct pattern){.text = replacement, .size = strlen(replacement)};
    else
        mem_free(replacement);
    return st;
}

static const struct {
    const char *type;
    enum status (*add)(struct pretokenizer *, const struct json *, const char *, struct error *);
} known[] = {
    {"Split", add_split},          {"Digits", add_digits},       {"Punctuation", add_punctuation},
    {"ByteLevel", add_byte_level}, {"Metaspace", add_metaspace},
};

static enum status add_known(void *context, const char *type, const struct json *json, const char *where, struct error *err)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(type, known[i].type))
            return known[i].add(context, json, where, err);
    return part_refuse(where, "pre-tokenizer", type, err);
}

enum status pretokenizer_read(const struct json *json, const char *where, struct pretokenizer *out, struct error *err)
{
    return part_each(json, "pretokenizers", where, "pre-tokenizer", 0, add_known, out, err);
}

/* The piece that is being put together from matches and gaps. */
struct cut {
    const struct pretoken_run *run;
    size_t stage;
    const char *text;
    bool first;
    size_t start, end;
    bool open, is_match;
};

static enum status cut_flush(struct cut *cut, struct error *err)
{
    size_t start = cut->start, end = cut->end;
    bool open = cut->open;
    cut->open = false;
    if (!open || start == end)
        return STATUS_OK;
    return pretokenizer_run(cut->run, cut->stage + 1, cut->text + start, end - start, cut->first && start == 0, err);
}

/* Whether a segment joins the one on its left. */
static bool joins(enum behavior behavior, bool left_is_match, bool is_match)
{
    switch (behavior) {
    case BEHAVIOR_PREVIOUS: return is_match && !left_is_match;
    case BEHAVIOR_NEXT: return left_is_match && !is_match;
    case BEHAVIOR_CONTIGUOUS: return left_is_match == is_match;
    default: return false;
    }
}

static enum status cut_add(struct cut *cut, size_t start, size_t end, bool is_match, struct error *err)
{
    const struct stage *stage = &cut->run->pretokenizer->stages[cut->stage];
    is_match ^= stage->invert;
    if (stage->behavior == BEHAVIOR_REMOVED && is_match)
        return STATUS_OK;
    if (cut->open && joins(stage->behavior, cut->is_match, is_match)) {
        cut->end = end;
    } else {
        TRY(cut_flush(cut, err));
        cut->start = start;
        cut->end = end;
        cut->open = true;
    }
    cut->is_match = is_match;
    return STATUS_OK;
}

static enum status cut_pattern(struct cut *cut, size_t size, struct error *err)
{
    const struct pretoken_run *run = cut->run;
    const struct pattern *pattern = &run->pretokenizer->stages[cut->stage].pattern;
    size_t done = 0, from = 0;
    while (from <= size) {
        size_t start, end, n = 1;
        bool found;
        TRY(pattern_find(pattern, run->scratch, cut->text, size, from, &start, &end, &found, err));
        if (!found)
            break;
        bool repeated = start == end && done && end == done; /* empty, right behind the last match: does not count */
        if (!repeated) {
            if (done < start)
                TRY(cut_add(cut, done, start, false, err));
            TRY(cut_add(cut, start, end, true, err));
            done = end;
        }
        if (start == end && end < size)
            utf8_decode(cut->text + end, &n);
        from = start == end ? end + n : end;
    }
    return done < size ? cut_add(cut, done, size, false, err) : STATUS_OK;
}

static enum status cut_class(struct cut *cut, size_t size, bool (*matches)(uint32_t), struct error *err)
{
    size_t done = 0, n;
    for (size_t at = 0; at < size; at += n) {
        if (!matches(utf8_decode(cut->text + at, &n)))
            continue;
        if (done < at)
            TRY(cut_add(cut, done, at, false, err));
        TRY(cut_add(cut, at, at + n, true, err));
        done = at + n;
    }
    return done < size ? cut_add(cut, done, size, false, err) : STATUS_OK;
}

static enum status run_cut(const struct pretoken_run *run, size_t stage, const char *text, size_t size, bool first,
                           struct error *err)
{
    struct cut cut = {.run = run, .stage = stage, .text = text, .first = first};
    enum stage_kind kind = run->pretokenizer->stages[stage].kind;
    TRY(kind == STAGE_SPLIT ? cut_pattern(&cut, size, err)
                            : cut_class(&cut, size, kind == STAGE_DIGITS ? unicode_is_number : unicode_is_punct, err));
    return cut_flush(&cut, err);
}

static void rewrite(const struct stage *stage, const char *text, size_t size, bool first, struct text *out)
{
    if (stage->kind == STAGE_SPACE) {
        text_append(out, " ", text[0] != ' ');
        text_append(out, text, size);
        return;
    }
    if (stage->kind == STAGE_BYTES) {
        byte_map(text, size, out);
        return;
    }
    size_t n = strlen(stage->replacement);
    bool wanted = stage->scheme == SCHEME_ALWAYS || (stage->scheme == SCHEME_FIRST && first);
    if (wanted && text[0] != ' ' && (n > size || memcmp(text, stage->replacement, n)))
        text_append(out, stage->replacement, n);
    for (size_t i = 0; i < size; i++)
        text_append(out, text[i] == ' ' ? stage->replacement : text + i, text[i] == ' ' ? n : 1);
}

enum status pretokenizer_run(const struct pretoken_run *run, size_t stage, const char *text, size_t size, bool first,
                             struct error *err)
{
    const struct pretokenizer *p = run->pretokenizer;
    if (!size)
        return STATUS_OK;
    if (stage == p->count)
        return run->emit(run->context, text, size, false, err);
    enum stage_kind kind = p->stages[stage].kind;
    if (kind == STAGE_BYTES && stage + 1 == p->count)
        return run->emit(run->context, text, size, true, err);
    if (kind == STAGE_SPLIT || kind == STAGE_DIGITS || kind == STAGE_PUNCT)
        return run_cut(run, stage, text, size, first, err);
    struct text *buffer = &run->buffers[stage];
    text_clear(buffer);
    rewrite(&p->stages[stage], text, size, first, buffer);
    if (buffer->failed)
        FAIL(err, STATUS_NOMEM, "no memory to cut %zu bytes of text", size);
    return pretokenizer_run(run, stage + 1, buffer->data, buffer->size, first, err);
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
    for (size_t i = 0; i < pretokenizer->count; i++) {
        pattern_free(&pretokenizer->stages[i].pattern);
        mem_free(pretokenizer->stages[i].replacement);
    }
    mem_free(pretokenizer->stages);
    *pretokenizer = (struct pretokenizer){0};
}
