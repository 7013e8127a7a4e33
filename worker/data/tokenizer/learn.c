/* Every place where two symbols meet stands in the list of its pair, and every pair that comes often enough in a heap. A
 * join visits the places of its pair, takes them and their neighbours out of their lists and puts the new pairs into
 * theirs: counts are exact at any time.
 * A string becomes a token in one way only: what stands between two borders that are still there does not depend on what
 * lies outside. So a join always makes a token that is new, the pairs it makes are new too, and the count of an older pair
 * only shrinks, which the heap finds out when the pair comes to its top. Nor do places ever enter a list out of order, so
 * joins in a run such as aaaa begin at its start, as they do when text is encoded. */
#include "worker/data/tokenizer/learn.h"

#include <stdbool.h>
#include <string.h>

#include "common/memory.h"

enum { PLACES_MAX = 1 << 29 };

/* One symbol of a word. */
struct place {
    int32_t symbol;                   /* -1: joined to the one before */
    int32_t previous, next;           /* in the word, -1: none */
    int32_t word;
    int32_t pair;                     /* that it begins with its neighbour, if it has one */
    int32_t pair_previous, pair_next; /* other places that begin the same pair */
};

struct pair {
    struct token_pair tokens;
    int32_t first, last; /* places that begin it, -1: none */
    int64_t count;
};

struct candidate {
    int64_t count; /* when it was looked at last */
    struct token_pair tokens;
    int32_t pair;
};

struct learner {
    const struct word_table *words;
    int64_t min_count;
    struct vocabulary *vocabulary;
    struct text scratch;
    struct place *places;
    size_t n_places;
    struct pair *pairs;     /* [capacity] */
    struct candidate *heap; /* [capacity] */
    int32_t *index;         /* [mask + 1] number of a pair + 1, 0: free */
    size_t n_pairs, n_heap, capacity, mask;
};

static enum status no_memory(struct error *err)
{
    FAIL(err, STATUS_NOMEM, "no memory to learn a tokenizer; give fewer rows or a smaller size");
}

static size_t home_of(struct token_pair pair)
{
    uint64_t hash = ((uint64_t)(uint32_t)pair.left << 32 | (uint32_t)pair.right) * 0x9e3779b97f4a7c15u;
    return (size_t)(hash ^ hash >> 32);
}

static enum status grow_pairs(struct learner *l, struct error *err)
{
    size_t capacity = l->capacity ? l->capacity * 2 : 1024;
    struct pair *pairs = mem_realloc(l->pairs, capacity, sizeof *pairs);
    l->pairs = pairs ? pairs : l->pairs;
    struct candidate *heap = mem_realloc(l->heap, capacity, sizeof *heap);
    l->heap = heap ? heap : l->heap;
    int32_t *index = mem_alloc(capacity * 2, sizeof *index);
    if (!pairs || !heap || !index) {
        mem_free(index);
        return no_memory(err);
    }
    mem_free(l->index);
    l->index = index;
    l->mask = capacity * 2 - 1;
    l->capacity = capacity;
    for (size_t i = 0; i < l->n_pairs; i++) {
        size_t at = home_of(l->pairs[i].tokens) & l->mask;
        while (index[at])
            at = (at + 1) & l->mask;
        index[at] = (int32_t)i + 1;
    }
    return STATUS_OK;
}

static enum status find_pair(struct learner *l, struct token_pair tokens, int32_t *out, struct error *err)
{
    if (l->n_pairs == l->capacity)
        TRY(grow_pairs(l, err));
    size_t at = home_of(tokens) & l->mask;
    for (; l->index[at]; at = (at + 1) & l->mask) {
        *out = l->index[at] - 1;
        if (l->pairs[*out].tokens.left == tokens.left && l->pairs[*out].tokens.right == tokens.right)
            return STATUS_OK;
    }
    *out = (int32_t)l->n_pairs;
    l->pairs[l->n_pairs++] = (struct pair){.tokens = tokens, .first = -1, .last = -1};
    l->index[at] = *out + 1;
    return STATUS_OK;
}

static int64_t weight_of(const struct learner *l, const struct place *place)
{
    return l->words->words[place->word].count;
}

/* Puts a place into the list of the pair that it begins. */
static enum status link_place(struct learner *l, int32_t at, struct error *err)
{
    struct place *place = &l->places[at];
    TRY(find_pair(l, (struct token_pair){place->symbol, l->places[place->next].symbol}, &place->pair, err));
    struct pair *pair = &l->pairs[place->pair];
    place->pair_previous = pair->last;
    place->pair_next = -1;
    *(pair->last < 0 ? &pair->first : &l->places[pair->last].pair_next) = at;
    pair->last = at;
    pair->count += weight_of(l, place);
    return STATUS_OK;
}

static void unlink_place(struct learner *l, int32_t at)
{
    struct place *place = &l->places[at];
    struct pair *pair = &l->pairs[place->pair];
    int32_t before = place->pair_previous, behind = place->pair_next;
    *(before < 0 ? &pair->first : &l->places[before].pair_next) = behind;
    *(behind < 0 ? &pair->last : &l->places[behind].pair_previous) = before;
    pair->count -= weight_of(l, place);
}

static bool precedes(const struct candidate *a, const struct candidate *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->tokens.left != b->tokens.left ? a->tokens.left < b->tokens.left : a->tokens.right < b->tokens.right;
}

/* From place 0, which is free, down to where it belongs. */
static void heap_sink(struct learner *l, struct candidate candidate)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < l->n_heap; at = child) {
        child += child + 1 < l->n_heap && precedes(&l->heap[child + 1], &l->heap[child]);
        if (!precedes(&l->heap[child], &candidate))
            break;
        l->heap[at] = l->heap[child];
    }
    l->heap[at] = candidate;
}

/* Pairs from number `first` on become candidates. */
static void heap_add(struct learner *l, size_t first)
{
    for (; first < l->n_pairs; first++) {
        struct candidate candidate = {l->pairs[first].count, l->pairs[first].tokens, (int32_t)first};
        if (candidate.count < l->min_count)
            continue;
        size_t at = l->n_heap++;
        for (; at && precedes(&candidate, &l->heap[(at - 1) / 2]); at = (at - 1) / 2)
            l->heap[at] = l->heap[(at - 1) / 2];
        l->heap[at] = candidate;
    }
}

/* The pair that comes most often, or -1 where none comes often enough. */
static int32_t best_pair(struct learner *l)
{
    while (l->n_heap) {
        struct candidate top = l->heap[0];
        int64_t count = l->pairs[top.pair].count;
        if (count == top.count)
            return top.pair;
        top.count = count;
        if (count < l->min_count)
            top = l->heap[--l->n_heap];
        heap_sink(l, top);
    }
    return -1;
}

static enum status join_place(struct learner *l, int32_t at, int32_t joined, struct error *err)
{
    struct place *left = &l->places[at], *right = &l->places[left->next];
    unlink_place(l, at);
    if (left->previous >= 0)
        unlink_place(l, left->previous);
    if (right->next >= 0) {
        unlink_place(l, left->next);
        l->places[right->next].previous = at;
    }
    left->symbol = joined;
    left->next = right->next;
    right->symbol = -1;
    if (left->previous >= 0)
        TRY(link_place(l, left->previous, err));
    return left->next < 0 ? STATUS_OK : link_place(l, at, err);
}

/* Makes the pair a token and writes the merge down. */
static enum status add_token(struct learner *l, struct token_pair pair, int32_t *out, struct error *err)
{
    struct vocabulary *v = l->vocabulary;
    const int32_t parts[] = {pair.left, pair.right};
    if (v->n_merges == v->merge_capacity) {
        size_t capacity = v->merge_capacity ? v->merge_capacity * 2 : 256;
        struct token_pair *merges = mem_realloc(v->merges, capacity, sizeof *merges);
        if (!merges)
            return no_memory(err);
        v->merges = merges;
        v->merge_capacity = capacity;
    }
    v->merges[v->n_merges++] = pair;
    text_clear(&l->scratch);
    for (int i = 0; i < 2; i++)
        text_append(&l->scratch, word_table_bytes(&v->tokens, (size_t)parts[i]), v->tokens.words[parts[i]].size);
    if (l->scratch.failed)
        return no_memory(err);
    return word_table_add(&v->tokens, l->scratch.data, l->scratch.size, 0, out, err);
}

static enum status join_pair(struct learner *l, int32_t pair, struct error *err)
{
    size_t n_pairs = l->n_pairs;
    int32_t joined;
    l->vocabulary->last_count = l->pairs[pair].count;
    TRY(add_token(l, l->pairs[pair].tokens, &joined, err));
    for (int32_t at; (at = l->pairs[pair].first) >= 0;)
        TRY(join_place(l, at, joined, err));
    heap_add(l, n_pairs);
    return STATUS_OK;
}

static enum status set_out(struct learner *l, const int32_t symbols[BYTE_TOKENS], struct error *err)
{
    size_t at = 0, total = l->words->bytes.size;
    if (total > PLACES_MAX)
        FAIL(err, STATUS_DATA, "the different words are %zu bytes long together, at most %d are allowed; give fewer rows",
             total, PLACES_MAX);
    l->places = mem_alloc(total, sizeof *l->places);
    if (!l->places)
        return no_memory(err);
    l->n_places = total;
    for (size_t word = 0; word < l->words->count; word++) {
        const char *bytes = word_table_bytes(l->words, word);
        size_t size = l->words->words[word].size;
        for (size_t i = 0; i < size; i++, at++)
            l->places[at] = (struct place){.symbol = symbols[(unsigned char)bytes[i]], .word = (int32_t)word,
                                           .previous = i ? (int32_t)at - 1 : -1,
                                           .next = i + 1 < size ? (int32_t)at + 1 : -1};
    }
    for (at = 0; at < total; at++)
        if (l->places[at].next >= 0)
            TRY(link_place(l, (int32_t)at, err));
    heap_add(l, 0);
    return STATUS_OK;
}

static enum status learn(struct learner *l, const unsigned char alphabet[BYTE_TOKENS], int32_t size, struct error *err)
{
    struct vocabulary *v = l->vocabulary;
    int32_t symbols[BYTE_TOKENS], pair;
    for (int i = 0; i < BYTE_TOKENS; i++)
        TRY(word_table_add(&v->tokens, (const char *)&alphabet[i], 1, 0, &symbols[alphabet[i]], err));
    TRY(set_out(l, symbols, err));
    while (v->tokens.count < (size_t)size && (pair = best_pair(l)) >= 0)
        TRY(join_pair(l, pair, err));
    for (size_t at = 0; at < l->n_places; at++)
        v->symbols += l->places[at].symbol < 0 ? 0 : weight_of(l, &l->places[at]);
    return STATUS_OK;
}

enum status vocabulary_learn(const struct word_table *words, const unsigned char alphabet[BYTE_TOKENS], int32_t size,
                             int64_t min_count, struct vocabulary *out, struct error *err)
{
    *out = (struct vocabulary){0};
    struct learner l = {.words = words, .min_count = min_count, .vocabulary = out};
    enum status st = learn(&l, alphabet, size, err);
    text_free(&l.scratch);
    mem_free(l.places);
    mem_free(l.pairs);
    mem_free(l.heap);
    mem_free(l.index);
    if (st != STATUS_OK)
        vocabulary_free(out);
    return st;
}

void vocabulary_free(struct vocabulary *vocabulary)
{
    word_table_free(&vocabulary->tokens);
    mem_free(vocabulary->merges);
    *vocabulary = (struct vocabulary){0};
}
