#include "worker/data/tokenizer/write.h"

#include <string.h>

#include "worker/data/tokenizer/parts.h"

/* U+FF5C stands between the bars and U+2581 between words, as in the DeepSeek models. */
static const char *const special_tokens[SPECIAL_TOKENS] = {
    "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<\xEF\xBD\x9CUser\xEF\xBD\x9C>",
    "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>",
    "<think>",
    "</think>",
};
enum { HIDDEN_SPECIALS = 4 }; /* the first ones vanish from decoded text, the thought tags stay */

static void spell(const struct vocabulary *v, size_t token, struct text *out)
{
    byte_map(word_table_bytes(&v->tokens, token), v->tokens.words[token].size, out);
}

static void write_vocabulary(const struct vocabulary *v, struct text *scratch, struct text *out)
{
    text_puts(out, "    \"vocab\": {");
    for (int i = 0; i < SPECIAL_TOKENS; i++) {
        text_puts(out, i ? ", " : "");
        text_json_string(out, special_tokens[i], strlen(special_tokens[i]));
        text_printf(out, ": %d", i);
    }
    for (size_t i = 0; i < v->tokens.count; i++) {
        text_clear(scratch);
        spell(v, i, scratch);
        text_puts(out, ", ");
        text_json_string(out, scratch->data ? scratch->data : "", scratch->size);
        text_printf(out, ": %zu", SPECIAL_TOKENS + i);
    }
    text_puts(out, "},\n    \"merges\": [");
    for (size_t i = 0; i < v->n_merges; i++) {
        text_clear(scratch);
        spell(v, (size_t)v->merges[i].left, scratch);
        text_puts(scratch, " ");
        spell(v, (size_t)v->merges[i].right, scratch);
        text_puts(out, i ? ", " : "");
        text_json_string(out, scratch->data ? scratch->data : "", scratch->size);
    }
    text_puts(out, "]\n  }\n}\n");
    out->failed = out->failed || scratch->failed;
}

static void write_tokenizer(const struct vocabulary *v, const char *pre_tokenizer, struct text *scratch, struct text *out)
{
    text_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [");
    for (int i = 0; i < SPECIAL_TOKENS; i++) {
        text_printf(out, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", i);
        text_json_string(out, special_tokens[i], strlen(special_tokens[i]));
        text_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": %s}",
                    i < HIDDEN_SPECIALS ? "true" : "false");
    }
    text_printf(out,
                "\n  ],\n  \"normalizer\": null,\n"
                "  \"pre_tokenizer\": %s,\n"
                "  \"post_processor\": null,\n"
                "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                "\"use_regex\": true},\n"
                "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
                "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false,\n"
                "    \"byte_fallback\": false, \"ignore_merges\": false,\n", pre_tokenizer);
    write_vocabulary(v, scratch, out);
}

static void write_config(struct text *out)
{
    text_printf(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"bos_token\": \"%s\",\n"
                     "  \"eos_token\": \"%s\",\n  \"pad_token\": \"%s\",\n  \"add_bos_token\": false,\n"
                     "  \"add_eos_token\": false,\n  \"clean_up_tokenization_spaces\": false,\n"
                     "  \"model_max_length\": 1000000\n}\n", special_tokens[0], special_tokens[1], special_tokens[1]);
}

enum status tokenizer_write(const struct vocabulary *vocabulary, const char *pre_tokenizer, struct text *tokenizer,
                            struct text *config, struct error *err)
{
    struct text scratch = {0};
    write_tokenizer(vocabulary, pre_tokenizer, &scratch, tokenizer);
    write_config(config);
    text_free(&scratch);
    if (tokenizer->failed || config->failed)
        FAIL(err, STATUS_NOMEM, "no memory to write a tokenizer");
    return STATUS_OK;
}
