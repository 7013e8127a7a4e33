#include "ps/optimizer/track.h"

#include "ps/optimizer/optimizer.h"

static const float *sum_at(const struct chunks *chunks, const float *const *sums, int64_t position)
{
    return sums[position / chunks->chunk_values] + position % chunks->chunk_values;
}

int64_t track_update(const struct param *tensor, const struct chunks *chunks, const float *const *sums, int64_t begin,
                     int64_t end, float *parameters)
{
    int64_t width = tensor->shape[tensor->n_dims - 1];
    const float *sum = sum_at(chunks, sums, begin);
    for (int64_t i = begin, last; i < end; i = last + 1) {
        last = tensor->offset + ((i - tensor->offset) / width + 1) * width - 1; /* the row's count */
        int64_t stop = last < end ? last : end;
        double n = *sum_at(chunks, sums, last);
        if (n > 0)
            for (double weight = tensor->rate / n; i < stop; i++)
                parameters[i] = (float)(parameters[i] + weight * sum[i - begin]);
        if (last < end)
            parameters[last] += (float)n;
    }
    int64_t bad = first_non_finite(parameters + begin, end - begin);
    return bad < 0 ? -1 : begin + bad;
}
