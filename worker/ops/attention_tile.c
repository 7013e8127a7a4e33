/* Which rows and keys meet: views of heads, masks as ranges, packed keys. */
#include "worker/ops/attention_tile.h"

struct view view_of(const struct attention *a, int segment, int head)
{
    const struct attention_segment *s = &a->segments[segment];
    int past = s->keys - s->queries;
    if (!a->layout) {
        int64_t stride = (int64_t)a->heads * a->head_dim;
        return (struct view){NULL, s->queries, past, s->query_first * stride + (int64_t)head * a->head_dim, stride};
    }
    const struct attention_head *h = &a->layout[head];
    if (!h->rows)
        return (struct view){NULL, s->queries, past, h->offset + s->query_first * h->stride, h->stride};
    int64_t first = h->bounds[segment];
    return (struct view){h->rows + first, (int)(h->bounds[segment + 1] - first), past - (int)s->query_first,
                         h->offset + first * h->stride, h->stride};
}

int view_find(const struct view *v, int begin, int end, int position)
{
    if (!v->rows) {
        int j = position - v->shift;
        return j < begin ? begin : j > end ? end : j;
    }
    while (begin < end) {
        int middle = (begin + end) / 2;
        if (view_position(v, middle) < position)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

struct sight sight_of(const struct attention *a, int position, int key, int columns)
{
    struct sight s = {0, smaller(columns, position + 1 - key), 0, 0};
    int begin = window_begin(a, position) - key;
    if (begin <= 0)
        return s;
    int sinks = larger(0, smaller(a->sinks - key, s.end));
    if (sinks == 0)
        s.first = begin;
    else if (begin >= s.end)
        s.end = sinks;
    else if (sinks < begin) {
        s.gap = sinks;
        s.gap_end = begin;
    }
    return s;
}

struct strip strip_of(const struct attention *a, const struct view *v, int first, int last, int key, int columns)
{
    struct sight see = sight_of(a, view_position(v, first), key, columns);
    struct sight behind = sight_of(a, view_position(v, last - 1), key, columns);
    struct strip s = {first, last, see.first, see.end};
    if (see.first != behind.first || see.end != behind.end || see.gap != behind.gap || see.gap_end != behind.gap_end) {
        s.end = smaller(last, first + STRIP_ROWS);
        for (int r = first + 1; r < s.end; r++) {
            see = sight_of(a, view_position(v, r), key, columns);
            s.from = smaller(s.from, see.first);
            s.to = larger(s.to, see.end);
        }
    }
    s.from = s.from / PANEL * PANEL;
    s.to = smaller(columns, (s.to + STRIP_ROWS - 1) / STRIP_ROWS * STRIP_ROWS);
    return s;
}

int seen_until(const struct attention *a, int keys, int key, int columns)
{
    if (a->window <= 0 || key < a->sinks)
        return keys;
    int64_t until = (int64_t)key + columns - 1 + a->window;
    return until < keys ? (int)until : keys;
}

int64_t packed_at(const struct attention *a, enum packing_form form, int segment, int kv)
{
    const struct attention_segment *s = &a->segments[segment];
    if (form == PACK_ALONG)
        return (s->key_first * a->kv_heads + (int64_t)kv * s->keys) * panel_values(a->head_dim, 1);
    int64_t before = s->key_first + (int64_t)segment * PANEL; /* each segment ends with a full panel */
    return (before * a->kv_heads + kv * panel_values(s->keys, 1)) * a->head_dim;
}

int64_t packed_values(const struct attention *a, enum packing_form form)
{
    if (a->n_segments == 0)
        return 0;
    const struct attention_segment *last = &a->segments[a->n_segments - 1];
    int64_t keys = last->key_first + last->keys;
    return form == PACK_ALONG ? keys * a->kv_heads * panel_values(a->head_dim, 1)
                              : (keys + (int64_t)a->n_segments * PANEL) * a->kv_heads * a->head_dim;
}

struct packing {
    const struct attention *a;
    enum packing_form form;
    int queries;
    const float *x;
    float *out;
};

static void pack_task(void *context, int task, int thread)
{
    (void)thread;
    const struct packing *p = context;
    const struct attention *a = p->a;
    int segment = task / a->kv_heads, kv = task % a->kv_heads;
    const struct attention_segment *s = &a->segments[segment];
    int64_t row = kv_distance(a);
    if (s->queries < p->queries)
        return;
    const float *x = p->x + kv_place(a, s->key_first, kv);
    float *out = p->out + packed_at(a, p->form, segment, kv);
    if (p->form == PACK_ACROSS)
        panel_pack_transposed(s->keys, a->head_dim, x, row, out);
    else
        panel_pack(s->keys, a->head_dim, x, row, NULL, out);
}

void attention_pack(struct threads *pool, const struct attention *a, enum packing_form form, int queries, const float *x,
                    float *out)
{
    struct packing p = {a, form, queries, x, out};
    threads_run(pool, a->n_segments * a->kv_heads, pack_task, &p);
}

/* Keys 0 .. count - 1 that the query at `position` sees. */
static double keys_of(const struct attention *a, int position)
{
    int begin = window_begin(a, position);
    return position + 1 - begin + smaller(begin, a->sinks);
}

double attention_pairs(const struct attention *a)
{
    int different = a->layout ? a->heads : 1; /* without a layout all heads see the same */
    double pairs = 0;
    for (int segment = 0; segment < a->n_segments; segment++)
        for (int head = 0; head < different; head++) {
            struct view v = view_of(a, segment, head);
            for (int j = 0; j < v.count; j++)
                pairs += keys_of(a, view_position(&v, j));
        }
    return pairs * (a->heads / different);
}
