/* The built-in chat templates: the DeepSeek families, Alpaca, and bare text. One row each.
 * Must not know: how they are written. */
#include <stdio.h>
#include <string.h>

#include "worker/data/template_internal.h"

#define BOS "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define EOS "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

#define THOUGHT_LINES .open = {NULL, "<think>", "\n"}, .close = {"\n", "</think>", "\n\n"}
#define TALK_IN_WORDS                                                                                                  \
    .bos = BOS, .system_join = "\n\n", .lead = " ", .open = {" ", "<think>", "\n"}, .close = {"\n", "</think>", "\n\n"}, \
    .roles = {[ROLE_SYSTEM] = {"", "\n\n"}, [ROLE_USER] = {"User: ", "\n\n"}, [ROLE_ASSISTANT] = {"Assistant:", NULL}}, \
    .end = EOS, .tokens = {BOS, EOS}
#define TALK_IN_TOKENS                                                                                             \
    .bos = BOS, .system_join = "\n\n",                                                                             \
    .roles = {[ROLE_SYSTEM] = {"", NULL}, [ROLE_USER] = {USER, NULL}, [ROLE_ASSISTANT] = {ASSISTANT, NULL}}, .end = EOS, \
    .tokens = {BOS, EOS, USER, ASSISTANT}

/* DeepSeek-LLM, V2, Coder, V3 and V3.1 as their own templates write them; R1 with the thought kept on supervised turns,
 * which the published template cuts away; V3.1 says with a lone closing tag that there is no thought. Alpaca without its
 * second wording for rows with an input, which rows put below the instruction. */
const struct chat_template template_table[] = {
    {.name = "deepseek-llm", TALK_IN_WORDS},
    {.name = "deepseek-v2", TALK_IN_WORDS},
    {.name = "deepseek-coder", .bos = BOS,
     .default_system =
         "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
         "only answer questions related to computer science. For politically sensitive questions, security and privacy "
         "issues, and other non-computer science questions, you will refuse to answer\n",
     .roles = {[ROLE_SYSTEM] = {"", NULL}, [ROLE_USER] = {"### Instruction:\n", "\n"}, [ROLE_ASSISTANT] = {"### Response:\n", "\n"}},
     THOUGHT_LINES, .end = "<|EOT|>", .end_after = "\n", .tokens = {BOS, "<|EOT|>"}},
    {.name = "deepseek-v3", TALK_IN_TOKENS, THOUGHT_LINES},
    {.name = "deepseek-v3.1", TALK_IN_TOKENS, .no_thought = "</think>", .open = {NULL, "<think>", NULL},
     .close = {NULL, "</think>", NULL}, .tags_needed = true, .open_is_prompt = true},
    {.name = "deepseek-r1", TALK_IN_TOKENS, THOUGHT_LINES, .tags_needed = true, .open_is_prompt = true},
    {.name = "alpaca",
     .default_system = "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
     .system_join = "\n\n",
     .roles = {[ROLE_SYSTEM] = {"", "\n\n"}, [ROLE_USER] = {"### Instruction:\n", "\n\n"}, [ROLE_ASSISTANT] = {"### Response:\n", NULL}},
     THOUGHT_LINES, .end_after = "\n\n"},
    {.name = "plain", .system_join = "\n",
     .roles = {[ROLE_SYSTEM] = {"", "\n"}, [ROLE_USER] = {"", "\n"}, [ROLE_ASSISTANT] = {"", NULL}, [ROLE_TOOL] = {"", "\n"}},
     .open = {NULL, "<think>", NULL}, .close = {NULL, "</think>", NULL}, .open_is_prompt = true},
};
const int template_table_size = sizeof template_table / sizeof *template_table;

const struct chat_template *template_find(const char *name)
{
    for (int i = 0; i < template_table_size; i++)
        if (!strcmp(template_table[i].name, name))
            return &template_table[i];
    return NULL;
}

const char *template_names(void)
{
    static _Thread_local char names[256];
    size_t size = 0;
    for (int i = 0; i < template_table_size; i++)
        size += (size_t)snprintf(names + size, sizeof names - size, "%s%s", i ? ", " : "", template_table[i].name);
    return names;
}
