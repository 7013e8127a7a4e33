/* chat_template: a name that is known, or a file whose text becomes a key of its own when options are loaded, so that the
 * other ranks, a resumed run and whoever reads a snapshot need no file.
 * Must not know: what a template's text means. */
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/options_read.h"
#include "common/scalar.h"

static const char *const known[] = {"deepseek-llm", "deepseek-v2", "deepseek-coder", "deepseek-v3", "deepseek-v3.1",
                                    "deepseek-r1",  "alpaca",      "plain"};
enum { KNOWN = sizeof known / sizeof *known, TEXT_MAX = 1 << 16 };

static void check_name(struct option_reader *reader, const struct option_source *at, const char *name)
{
    struct text all = {0};
    const char *near = nearest_name(name, known, KNOWN);
    for (int i = 0; i < KNOWN; i++) {
        if (!strcmp(name, known[i])) {
            text_free(&all);
            return;
        }
        text_printf(&all, "%s%s", i ? ", " : "", known[i]);
    }
    option_problem(reader, at, option_name(OPTION_chat_template), "found '%.80s', wanted one of %s, or a file (.yaml) that declares one%s%s%s",
                   name, all.failed ? "the names of worker --help" : all.data, near ? "; did you mean '" : "", near ? near : "",
                   near ? "'?" : "");
    text_free(&all);
}

/* Takes the text over, or says what is wrong with it. */
static void take_text(struct option_reader *reader, const struct option_source *at, char *text, size_t size)
{
    struct options *o = reader->options;
    const char *key = option_name(OPTION_chat_template);
    if (!size)
        option_problem(reader, at, key, "'%.200s' is empty; see README.md for what declares a template", o->chat_template);
    else if (size > TEXT_MAX)
        option_problem(reader, at, key, "'%.200s' has %zu bytes; a template has at most %d", o->chat_template, size, TEXT_MAX);
    else if (strlen(text) != size || !scalar_is_utf8(text))
        option_problem(reader, at, key, "'%.200s' is not UTF-8 text", o->chat_template);
    else {
        o->chat_template_text = text;
        o->sources[OPTION_chat_template_text] = *at;
        return;
    }
    mem_free(text);
}

enum status option_read_template(struct option_reader *reader, struct error *err)
{
    struct options *o = reader->options;
    const struct option_source *at = &o->sources[OPTION_chat_template];
    const char *key = option_name(OPTION_chat_template);
    char *text = NULL;
    size_t size;
    if (reader->bad[OPTION_chat_template])
        return STATUS_OK;
    if (!path_is_yaml(o->chat_template)) {
        check_name(reader, at, o->chat_template);
        if (o->chat_template_text)
            option_problem(reader, &o->sources[OPTION_chat_template_text], option_name(OPTION_chat_template_text),
                           "not used by the template '%.80s'; leave it out, and let chat_template name a file", o->chat_template);
        return STATUS_OK;
    }
    if (o->chat_template_text)
        return STATUS_OK;
    enum status st = file_read(o->chat_template, &text, &size, err);
    if (st == STATUS_OK) {
        take_text(reader, at, text, size);
    } else if (st == STATUS_DATA || st == STATUS_IO) {
        if (strcmp(o->resume_from_checkpoint, "false"))
            option_note(reader, at, key, "%s; the snapshot's template is used", err->text);
        else
            option_problem(reader, at, key, "%s", err->text);
        st = STATUS_OK;
    }
    return st;
}
