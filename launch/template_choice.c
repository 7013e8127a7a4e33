#include "launch/template_choice.h"

#include <string.h>

#include "common/files.h"
#include "common/memory.h"

enum status template_choose(const struct options *o, struct chat_template **out, struct error *err)
{
    bool file = path_is_yaml(o->chat_template);
    struct template_settings settings = {.name = o->chat_template, .text = file ? o->chat_template_text : NULL, .thought_open = o->thought_open,
                                         .thought_close = o->thought_close, .default_system = o->default_system,
                                         .ignore_empty_thought = o->ignore_empty_thought};
    template_choice_parse(o->prompt_opens_thought, &settings.prompt_opens_thought);
    template_choice_parse(o->enable_thinking, &settings.enable_thinking);
    train_on_eos_parse(o->train_on_eos, &settings.train_on_eos);
    if (file && !o->chat_template_text)
        FAIL(err, STATUS_USAGE, "chat_template: '%s' could not be read, and there is no snapshot that holds its text", o->chat_template);
    return template_create(&settings, out, err);
}

enum status template_choice_set(struct options *options, const char *value, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    if (path_is_yaml(value))
        TRY(file_read(value, &text, &size, err));
    enum status st = text && (!size || strlen(text) != size)
                         ? error_set(err, STATUS_DATA, "chat_template: '%s' is empty or no text", value)
                         : options_set(options, "chat_template", value, err);
    if (st == STATUS_OK)
        st = options_set(options, "chat_template_text", text ? text : "", err);
    mem_free(text);
    return st;
}

enum status template_choice_hash(const struct options *o, char out[TEMPLATE_HASH_SIZE], struct error *err)
{
    struct chat_template *made = NULL;
    TRY(template_choose(o, &made, err));
    enum status st = template_hash(made, out, err);
    template_free(made);
    return st;
}

enum status template_choice_check(const char *trained, const struct options *options, const char *path, struct error *err)
{
    char asked[TEMPLATE_HASH_SIZE];
    TRY(template_choice_hash(options, asked, err));
    if (!strcmp(trained, asked))
        return STATUS_OK;
    FAIL(err, STATUS_USAGE, "'%s' was trained with another chat template (%s) than the one asked for, %s (%s): its answers would be worse than "
         "what it has learnt; leave the template's keys out, or give --force-template", path, trained, options->chat_template, asked);
}
