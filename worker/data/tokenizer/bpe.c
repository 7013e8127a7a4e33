/* Byte-pair encoding of one pre-token: characters become symbols, neighbours merge by rank (Sennrich et al. 2016).
 * Words that come often are remembered.
 * Must not know: how text is cut, what is added round it. */
#include <string.h>

#include "worker/data/tokenizer/parts.h"

enum { WORD_BYTES = 22, WORD_IDS = 8, WORD_PLACES = 1 << 14 };

/* One remembered word; two words with one place push each other out. */
struct word {
    uint8_t size, n_ids;
    char text[WORD_BYTES];
    int32_t ids[WORD_IDS];
    uint64_t hash;
};

struct symbol {
    int32_t id; /* -1: merged into the one before */
    int32_t previous, next;
};

struct bpe_work {
    struct word *words; /* [WORD_PLACES] */
    struct symbol *symbols;
    uint64_t *heap; /* rank << 32 | position of the left symbol: the smallest is the next merge */
    size_t n_symbols, capacity, n_heap, heap_capacity;
    struct text mapped;
};

struct bpe_work *bpe_work_new(void)
{
    struct bpe_work *work = mem_alloc(1, sizeof *work);
    if (!work)
        return NULL;
    work->words = mem_alloc(WORD_PLACES, sizeof *work->words);
    if (work->words)
        return work;
    mem_free(work);
    return NULL;
}

void bpe_work_free(struct bpe_work *work)
{
    if (!work)
        return;
    mem_free(work->words);
    mem_free(work->symbols);
    mem_free(work->heap);
    text_free(&work->mapped);
    mem_free(work);
}

/* Makes room for a word of `count` symbols: each symbol enters the heap at most once on its own account, and each
 * merge adds at most two. */
static bool reserve(struct bpe_work *work, size_t count)
{
    if (count > work->capacity) {
        struct symbol *symbols = mem_realloc(work->symbols, count * 2, sizeof *symbols);
        if (!symbols)
            return false;
        work->symbols = symbols;
        work->capacity = count * 2;
    }
    if (count * 3 > work->heap_capacity) {
        uint64_t *heap = mem_realloc(work->heap, count * 6, sizeof *heap);
        if (!heap)
            return false;
        work->heap = heap;
        work->heap_capacity = count * 6;
    }
    return true;
}

static void heap_push(struct bpe_work *work, uint64_t entry)
{
    size_t at = work->n_heap++;
    while (at && work->heap[(at - 1) / 2] > entry) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = entry;
}

static uint64_t heap_pop(struct bpe_work *work)
{
    uint64_t top = work->heap[0], last = work->heap[--work->n_heap];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < work->n_heap; at = child) {
        child += child + 1 < work->n_heap && work->heap[child + 1] < work->heap[child];
        if (work->heap[child] >= last)
            break;
        work->heap[at] = work->heap[child];
    }
    work->heap[at] = last;
    return top;
}

static const struct merge *merge_at(const struct bpe *bpe, const struct bpe_work *work, int32_t at)
{
    const struct symbol *left = &work->symbols[at];
    return left->next < 0 ? NULL : merge_table_find(&bpe->merges, left->id, work->symbols[left->next].id);
}

static void propose(const struct bpe *bpe, struct bpe_work *work, int32_t at)
{
    const struct merge *merge = at < 0 ? NULL : merge_at(bpe, work, at);
    if (merge)
        heap_push(work, (uint64_t)merge->rank << 32 | (uint32_t)at);
}

static void merge_all(const struct bpe *bpe, struct bpe_work *work)
{
    work->n_heap = 0;
    for (size_t i = 0; i < work->n_symbols; i++) {
        work->symbols[i].previous = (int32_t)i - 1;
        work->symbols[i].next = i + 1 < work->n_symbols ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < work->n_symbols; i++)
        propose(bpe, work, (int32_t)i);
    while (work->n_heap) {
        uint64_t entry = heap_pop(work);
        int32_t at = (int32_t)(uint32_t)entry;
        struct symbol *left = &work->symbols[at];
        if (left->id < 0)
            continue;
        const struct merge *merge = merge_at(bpe, work, at);
        if (!merge || (uint64_t)merge->rank != entry >> 32)
            continue; /* its neighbour has become another symbol since */
        struct symbol *right = &work->symbols[left->next];
        left->id = merge->joined;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0)
            work->symbols[left->next].previous = at;
        propose(bpe, work, at);
        propose(bpe, work, left->previous);
    }
}

static void add_symbol(struct bpe_work *work, int32_t id)
{
    work->symbols[work->n_symbols++].id = id;
}

/* True if every byte of the character has a token <0xNN>; they become its symbols. */
static bool fall_back(const struct bpe *bpe, struct bpe_work *work, const char *character, size_t size)
{
    if (!bpe->byte_fallback)
        return false;
    for (size_t i = 0; i < size; i++)
        if (bpe->fallback_ids[(unsigned char)character[i]] < 0)
            return false;
    for (size_t i = 0; i < size; i++)
        add_symbol(work, bpe->fallback_ids[(unsigned char)character[i]]);
    return true;
}

/* One symbol per character. An unknown one falls back to its bytes, or to the unknown token, or vanishes. The pending
 * unknown token is written when a known character follows, as in the reference. */
static void symbols_of_characters(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t size)
{
    bool pending = false;
    work->n_symbols = 0;
    for (size_t at = 0, n; at < size; at += n) {
        utf8_decode(text + at, &n);
        int32_t id = name_table_find(&bpe->vocab, text + at, n);
        if (id >= 0) {
            if (pending)
                add_symbol(work, bpe->unk);
            pending = false;
            add_symbol(work, id);
        } else if (!fall_back(bpe, work, text + at, n) && bpe->unk >= 0) {
            if (pending && !bpe->fuse_unk)
                add_symbol(work, bpe->unk);
            pending = true;
        }
    }
    if (pending)
        add_symbol(work, bpe->unk);
}

static bool symbols_of_bytes(const struct bpe *bpe, struct bpe_work *work, const char *bytes, size_t size)
{
    work->n_symbols = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->byte_ids[(unsigned char)bytes[i]];
        if (id < 0)
            return false;
        add_symbol(work, id);
    }
    return true;
}

/* The whole word may be a token by itself; then, or where a byte has no symbol, its characters are needed. */
static bool make_symbols(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t size, bool bytes)
{
    bool simple = bytes && !bpe->ignore_merges;
    if (simple && symbols_of_bytes(bpe, work, text, size)) {
        merge_all(bpe, work);
        return true;
    }
    text_clear(&work->mapped);
    if (bytes)
        byte_map(text, size, &work->mapped);
    if (work->mapped.failed)
        return false;
    const char *characters = bytes ? work->mapped.data : text;
    size_t n = bytes ? work->mapped.size : size;
    int32_t whole = bpe->ignore_merges ? name_table_find(&bpe->vocab, characters, n) : -1;
    if (whole >= 0) {
        work->n_symbols = 0;
        add_symbol(work, whole);
        return true;
    }
    symbols_of_characters(bpe, work, characters, n);
    merge_all(bpe, work);
    return true;
}

static void remember(struct word *word, uint64_t hash, const char *text, size_t size, const int32_t *ids, size_t n_ids)
{
    if (n_ids > WORD_IDS)
        return;
    *word = (struct word){.hash = hash, .size = (uint8_t)size, .n_ids = (uint8_t)n_ids};
    memcpy(word->text, text, size);
    memcpy(word->ids, ids, n_ids * sizeof *ids);
}

enum status bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t size, bool bytes,
                       struct token_list *out, struct error *err)
{
    struct word *word = NULL;
    uint64_t hash = 0;
    if (size <= WORD_BYTES) {
        hash = bytes_hash(text, size);
        word = &work->words[hash % WORD_PLACES];
        if (word->hash == hash && word->size == size && !memcmp(word->text, text, size))
            return token_list_add(out, word->ids, word->n_ids, err);
    }
    /* Mapped bytes take up to two bytes each and unknown characters one symbol per byte. */
    if (size > INT32_MAX / 4 || !reserve(work, size * 2 + 1) || !make_symbols(bpe, work, text, size, bytes))
        FAIL(err, STATUS_NOMEM, "no memory for a word of %zu bytes", size);
    size_t first = out->count;
    for (size_t i = 0; i < work->n_symbols; i++)
        if (work->symbols[i].id >= 0)
            TRY(token_list_add(out, &work->symbols[i].id, 1, err));
    if (word && out->count > first)
        remember(word, hash, text, size, out->ids + first, out->count - first);
    return STATUS_OK;
}
