#include "worker/data/tokenizer/train.h"

#include <string.h>

#include "worker/data/records.h"
#include "worker/data/rows.h"
#include "worker/data/tokenizer/learn.h"
#include "worker/data/tokenizer/parts.h"
#include "worker/data/tokenizer/write.h"

/* Qwen2's expression. No normalizer goes with it, so every text comes back as it was. A sign and a letter never share a
 * word but for one sign in front, so no word spells <think> or another special token. */
static const char pre_tokenizer[] =
    "{\"type\": \"Sequence\", \"pretokenizers\": [\n"
    "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
    "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
    "\"behavior\": \"Isolated\", \"invert\": false},\n"
    "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, \"use_regex\": false}\n"
    "  ]}";

enum { TASK_ROWS = 64, STAGES_MAX = 4 };

/* What one thread counts. */
struct counter {
    struct word_table words;
    int64_t n_words, text_bytes;
    struct regex_scratch *scratch;
    struct text buffers[STAGES_MAX];
    struct arena arena;
    enum status status; /* of the row `failed`, the first one of this thread that cannot be read */
    int64_t failed;
    struct error err;
};

/* The file that is being read. */
struct source {
    const char *path;
    struct records reader;
    struct jsonl_record *rows;
    int64_t count, capacity;
    const struct row_format *format; /* NULL: plain text */
};

struct training {
    const struct train_request *request;
    struct pretokenizer pretokenizer;
    struct counter *counters; /* one per thread */
    int n_counters;
    struct source source;
    int64_t rows;
};

static enum status count_word(void *context, const char *text, size_t size, bool bytes, struct error *err)
{
    (void)bytes;
    struct counter *counter = context;
    counter->n_words++;
    return word_table_add(&counter->words, text, size, 1, NULL, err);
}

static enum status count_text(const struct training *t, struct counter *counter, const char *text, size_t size,
                              struct error *err)
{
    struct pretoken_run run = {&t->pretokenizer, counter->scratch, counter->buffers, count_word, counter};
    counter->text_bytes += (int64_t)size;
    return pretokenizer_run(&run, 0, text, size, true, err);
}

static enum status count_line(const struct training *t, struct counter *counter, const struct jsonl_record *line,
                              struct error *err)
{
    size_t valid = utf8_valid(line->text, line->size);
    if (valid != line->size)
        FAIL(err, STATUS_DATA, "%s:%lld:%zu: invalid UTF-8 (0x%02x); store the text as UTF-8", t->source.path,
             (long long)line->line, valid + 1, (unsigned)(unsigned char)line->text[valid]);
    return count_text(t, counter, line->text, line->size, err);
}

static enum status count_conversation(const struct training *t, struct counter *counter, const struct json *row,
                                      int64_t line, struct error *err)
{
    struct row_options options = {.keep_calculator_marks = t->request->keep_calculator_marks, .columns = t->request->columns};
    struct conversation conversation;
    TRY(row_read(t->source.format, row, t->source.path, line, &options, &counter->arena, &conversation, err));
    for (int i = 0; i < conversation.count; i++) {
        const struct message *m = &conversation.messages[i];
        TRY(count_text(t, counter, m->content, m->content_size, err));
        if (m->thought)
            TRY(count_text(t, counter, m->thought, m->thought_size, err));
    }
    return STATUS_OK;
}

static enum status count_row(const struct training *t, struct counter *counter, const struct jsonl_record *record,
                             struct error *err)
{
    if (!t->source.format)
        return count_line(t, counter, record, err);
    struct json *row;
    TRY(records_parse(&t->source.reader, record, &row, err));
    enum status st = count_conversation(t, counter, row, record->line, err);
    json_free(row);
    arena_reset(&counter->arena);
    return st;
}

/* Tasks are handed out in order, so the first failure of a thread is its earliest one. */
static void count_rows(void *context, int task, int thread)
{
    const struct training *t = context;
    struct counter *counter = &t->counters[thread];
    int64_t end = ((int64_t)task + 1) * TASK_ROWS;
    end = end < t->source.count ? end : t->source.count;
    for (int64_t i = (int64_t)task * TASK_ROWS; i < end && counter->status == STATUS_OK; i++) {
        counter->status = count_row(t, counter, &t->source.rows[i], &counter->err);
        counter->failed = i;
    }
}

static enum status first_failure(const struct training *t, struct error *err)
{
    const struct counter *first = NULL;
    for (int i = 0; i < t->n_counters; i++)
        if (t->counters[i].status != STATUS_OK && (!first || t->counters[i].failed < first->failed))
            first = &t->counters[i];
    if (!first)
        return STATUS_OK;
    return error_set(err, first->status, "%s", first->err.text);
}

/* A line with its end. */
static bool next_line(struct jsonl *reader, struct jsonl_record *out)
{
    size_t left = reader->size - reader->at;
    const char *start = reader->text + reader->at, *end = left ? memchr(start, '\n', left) : NULL;
    *out = (struct jsonl_record){start, end ? (size_t)(end - start) + 1 : left, reader->line++};
    reader->at += out->size;
    return left;
}

static enum status find_rows(struct source *s, bool plain, struct error *err)
{
    for (bool found;; s->count++) {
        struct jsonl_record record;
        if (plain)
            found = next_line(&s->reader.jsonl, &record);
        else
            TRY(records_next(&s->reader, &record, &found, err));
        if (!found)
            break;
        if (s->count == s->capacity) {
            size_t capacity = s->capacity ? (size_t)s->capacity * 2 : 256;
            struct jsonl_record *grown = mem_realloc(s->rows, capacity, sizeof *grown);
            if (!grown)
                FAIL(err, STATUS_NOMEM, "no memory for the list of rows of '%s'", s->path);
            s->rows = grown;
            s->capacity = (int64_t)capacity;
        }
        s->rows[s->count] = record;
    }
    if (!s->count)
        FAIL(err, STATUS_DATA, "'%s' holds no rows; %s%s", s->path, plain ? "it is empty" : records_wanted(&s->reader),
             plain || s->reader.is_table ? "" : ", or be read with the format text");
    return STATUS_OK;
}

/* Is the first row an object with a text in it, so that `text` means that column and not the lines of the file? */
static bool has_text_column(const struct source *s, const char *name)
{
    struct jsonl ahead = s->reader.jsonl;
    struct jsonl_record record;
    struct json *row;
    struct error unused;
    bool found;
    if (jsonl_next(&ahead, &record, &found, &unused) != STATUS_OK || !found ||
        jsonl_parse(&ahead, &record, &row, &unused) != STATUS_OK)
        return false;
    found = json_kind(row) == JSON_KIND_OBJECT && json_kind(json_member(row, name && *name ? name : "text")) == JSON_KIND_STRING;
    json_free(row);
    return found;
}

static enum status detect_format(struct source *s, const struct row_columns *columns, struct error *err)
{
    const struct row_options options = {.columns = *columns};
    struct json *row;
    struct error why;
    enum status st = records_parse(&s->reader, &s->rows[0], &row, &why);
    if (st != STATUS_OK)
        FAIL(err, st, "%s%s", why.text, st == STATUS_DATA ? "; plain text needs the format text" : "");
    st = row_format_detect(row, s->path, s->rows[0].line, &options, &s->format, err);
    json_free(row);
    return st;
}

static enum status count_source(struct training *t, struct threads *pool, struct error *err)
{
    struct source *s = &t->source;
    const char *format = t->request->format;
    const struct row_columns *columns = &t->request->columns;
    TRY(records_open(s->path, &t->request->table, &s->reader, err));
    bool detect = !format || !strcmp(format, "auto");
    bool plain = !detect && !strcmp(format, "text") && !s->reader.is_table && !has_text_column(s, columns->names[ROW_TEXT]);
    TRY(find_rows(s, plain, err));
    if (detect)
        TRY(detect_format(s, columns, err));
    else if (!plain)
        TRY(row_format_find(format, &s->format, err));
    if (s->format)
        TRY(row_format_check(s->format, columns, err));
    threads_run(pool, (int)((s->count + TASK_ROWS - 1) / TASK_ROWS), count_rows, t);
    t->rows += s->count;
    return first_failure(t, err);
}

static enum status open_counters(struct training *t, struct threads *pool, struct error *err)
{
    t->n_counters = threads_count(pool);
    t->counters = mem_alloc((size_t)t->n_counters, sizeof *t->counters);
    bool opened = t->counters;
    for (int i = 0; opened && i < t->n_counters; i++) {
        t->counters[i].arena.block_bytes = 1 << 14;
        t->counters[i].scratch = regex_scratch_new();
        opened = t->counters[i].scratch;
    }
    if (!opened)
        FAIL(err, STATUS_NOMEM, "no memory to read rows on %d threads", t->n_counters);
    struct json *json;
    TRY(json_parse(pre_tokenizer, sizeof pre_tokenizer - 1, "the pre-tokenizer", &json, err));
    enum status st = pretokenizer_read(json, "the pre-tokenizer", &t->pretokenizer, err);
    json_free(json);
    return st;
}

/* All words in the first counter's table. */
static enum status count_all(struct training *t, struct threads *pool, struct train_report *report, struct error *err)
{
    TRY(open_counters(t, pool, err));
    for (int i = 0; i < t->request->n_paths; i++) {
        t->source = (struct source){.path = t->request->paths[i]};
        enum status st = count_source(t, pool, err);
        mem_free(t->source.rows);
        records_close(&t->source.reader);
        TRY(st);
    }
    for (int i = 0; i < t->n_counters; i++) {
        report->words += t->counters[i].n_words;
        report->text_bytes += t->counters[i].text_bytes;
        if (i)
            TRY(word_table_join(&t->counters[0].words, &t->counters[i].words, err));
    }
    report->rows = t->rows;
    report->different = (int64_t)t->counters[0].words.count;
    return STATUS_OK;
}

static void training_free(struct training *t)
{
    for (int i = 0; t->counters && i < t->n_counters; i++) {
        word_table_free(&t->counters[i].words);
        regex_scratch_free(t->counters[i].scratch);
        arena_free(&t->counters[i].arena);
        for (int b = 0; b < STAGES_MAX; b++)
            text_free(&t->counters[i].buffers[b]);
    }
    mem_free(t->counters);
    pretokenizer_free(&t->pretokenizer);
}

/* GPT-2's order, which Hugging Face's trainer has too: by the characters that stand for the bytes. */
static void byte_order(unsigned char alphabet[BYTE_TOKENS])
{
    int n = 0;
    for (uint32_t c = 0; n < BYTE_TOKENS; c++) {
        int byte = character_byte(c);
        if (byte >= 0)
            alphabet[n++] = (unsigned char)byte;
    }
}

enum status tokenizer_train(const struct train_request *request, struct threads *pool, struct text *tokenizer,
                            struct text *config, struct train_report *report, struct error *err)
{
    struct training training = {.request = request};
    struct vocabulary vocabulary = {0};
    unsigned char alphabet[BYTE_TOKENS];
    enum status st;
    *report = (struct train_report){0};
    byte_order(alphabet);
    TRY_OR(done, st, count_all(&training, pool, report, err));
    TRY_OR(done, st, vocabulary_learn(&training.counters[0].words, alphabet, request->size - SPECIAL_TOKENS,
                                      request->min_count, &vocabulary, err));
    st = tokenizer_write(&vocabulary, pre_tokenizer, tokenizer, config, err);
    report->size = SPECIAL_TOKENS + (int32_t)vocabulary.tokens.count;
    report->learnt = (int32_t)vocabulary.tokens.count - BYTE_TOKENS;
    report->tokens = vocabulary.symbols;
    report->last_count = vocabulary.last_count;
done:
    vocabulary_free(&vocabulary);
    training_free(&training);
    return st;
}
