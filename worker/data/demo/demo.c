#include "worker/data/demo/demo.h"

#include <string.h>

#include "common/checksum.h"
#include "common/memory.h"
#include "common/rng.h"
#include "worker/data/jsonl.h"

enum { HELD_OUT_SHARE = 10, GIVE_UP = 20000 }; /* candidates in a row without a new question */

bool demo_split_parse(const char *name, enum demo_split *out)
{
    static const char *const names[] = {"train", "eval", "all"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(names[i], name)) {
            *out = (enum demo_split)i;
            return true;
        }
    return false;
}

bool demo_in_split(enum demo_split split, const char *question, size_t size)
{
    /* The checksum is linear in the bits of the question; a random function of it is not. */
    bool held_out = rng_below(0, RNG_DATA, crc32c(question, size), HELD_OUT_SHARE) == 0;
    return split == DEMO_ALL || held_out == (split == DEMO_EVAL);
}

/* Open-addressing set of questions, kept as places in one text. */
struct seen {
    struct text questions; /* each with a NUL behind it */
    size_t *slots;         /* place + 1, 0 = empty */
    size_t capacity, count;
};

static size_t *seen_slot(const struct seen *seen, const char *question)
{
    size_t at = crc32c(question, strlen(question)) % seen->capacity;
    while (seen->slots[at] && strcmp(seen->questions.data + seen->slots[at] - 1, question))
        at = (at + 1) % seen->capacity;
    return &seen->slots[at];
}

static bool seen_grow(struct seen *seen)
{
    struct seen larger = {.questions = seen->questions, .capacity = seen->capacity ? seen->capacity * 2 : 1024};
    larger.slots = mem_alloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < seen->capacity; i++)
        if (seen->slots[i])
            *seen_slot(&larger, seen->questions.data + seen->slots[i] - 1) = seen->slots[i];
    mem_free(seen->slots);
    seen->slots = larger.slots;
    seen->capacity = larger.capacity;
    return true;
}

/* *fresh tells whether the question is new. */
static enum status seen_add(struct seen *seen, const char *question, bool *fresh, struct error *err)
{
    if (seen->count * 2 >= seen->capacity && !seen_grow(seen))
        FAIL(err, STATUS_NOMEM, "no memory for the list of questions");
    size_t *slot = seen_slot(seen, question);
    *fresh = !*slot;
    if (!*fresh)
        return STATUS_OK;
    size_t place = seen->questions.size;
    text_append(&seen->questions, question, strlen(question) + 1);
    if (seen->questions.failed)
        FAIL(err, STATUS_NOMEM, "no memory for the list of questions");
    *slot = place + 1;
    seen->count++;
    return STATUS_OK;
}

static void seen_free(struct seen *seen)
{
    text_free(&seen->questions);
    mem_free(seen->slots);
}

static enum status exclude_row(const struct jsonl *reader, const struct jsonl_record *record, struct seen *seen,
                               struct error *err)
{
    struct json *row;
    TRY(jsonl_parse(reader, record, &row, err));
    const char *question = json_to_string(json_member(row, "question"), NULL);
    bool fresh;
    enum status st = question ? seen_add(seen, question, &fresh, err)
                              : error_set(err, STATUS_DATA, "%s:%lld: a row to exclude needs the column question",
                                          reader->path, (long long)record->line);
    json_free(row);
    return st;
}

static enum status exclude_file(const char *path, struct seen *seen, struct error *err)
{
    struct jsonl reader;
    TRY(jsonl_open(path, &reader, err));
    struct jsonl_record record;
    bool found = false;
    enum status st;
    while ((st = jsonl_next(&reader, &record, &found, err)) == STATUS_OK && found)
        TRY_OR(done, st, exclude_row(&reader, &record, seen, err));
done:
    jsonl_close(&reader);
    return st;
}

static void print_row(const struct demo_row *row, struct text *out)
{
    text_puts(out, "{\"question\": ");
    text_json_string(out, row->question.data, row->question.size);
    text_puts(out, ", \"thought\": ");
    text_json_string(out, row->thought.data, row->thought.size);
    text_puts(out, ", \"answer\": ");
    text_json_string(out, row->answer.data, row->answer.size);
    if (row->columns.size)
        text_printf(out, ", %s", row->columns.data);
    text_puts(out, "}\n");
}

static void print_plain(const struct demo_row *row, struct text *out)
{
    text_append(out, row->question.data, row->question.size);
    text_puts(out, "\n");
    text_append(out, row->thought.data, row->thought.size);
    text_puts(out, "\n");
    text_append(out, row->answer.data, row->answer.size);
    text_puts(out, "\n");
}

/* Walks the candidates until there are enough rows. Excluded questions never come; where new ones run out, old ones of
 * this set come again. */
static enum status write_rows(const struct demo_request *request, struct seen *excluded, struct seen *used,
                              struct demo_row *row, struct text *lines, struct text *plain, int64_t *repeated,
                              struct error *err)
{
    int64_t written = 0;
    long stale = 0;
    for (uint64_t number = 0; written < request->rows; number++) {
        TRY(demo_make(request->task, &request->settings, request->seed, number, row, err));
        bool fresh = false, allowed = demo_in_split(request->split, row->question.data, row->question.size) &&
                                      !(excluded->count && *seen_slot(excluded, row->question.data));
        if (allowed)
            TRY(seen_add(used, row->question.data, &fresh, err));
        stale = fresh ? 0 : stale + 1;
        if (stale > GIVE_UP && !used->count)
            FAIL(err, STATUS_USAGE,
                 "the task is too small: none of %d questions is in the wanted split and outside the excluded file; give it "
                 "larger numbers", GIVE_UP);
        if (fresh || (allowed && stale > GIVE_UP)) {
            *repeated += !fresh;
            written++;
            print_row(row, lines);
            if (plain)
                print_plain(row, plain);
            if (lines->failed || (plain && plain->failed))
                FAIL(err, STATUS_NOMEM, "no memory for %lld demo rows", (long long)request->rows);
        }
    }
    return STATUS_OK;
}

enum status demo_write(const struct demo_request *request, struct text *lines, struct text *plain, int64_t *repeated,
                       struct error *err)
{
    struct seen excluded = {0}, used = {0};
    struct demo_row row = {0};
    struct demo_request checked = *request;
    *repeated = 0;
    enum status st;
    TRY_OR(done, st, demo_check(request->task, &checked.settings, err));
    if (request->exclude)
        TRY_OR(done, st, exclude_file(request->exclude, &excluded, err));
    st = write_rows(&checked, &excluded, &used, &row, lines, plain, repeated, err);
done:
    seen_free(&excluded);
    seen_free(&used);
    demo_row_free(&row);
    return st;
}
