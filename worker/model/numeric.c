#include "worker/model/numeric.h"

#include <math.h>

static int64_t first_bad(const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return i;
    return -1;
}

enum status numeric_explain(const struct model *model, const float *values, int64_t n, double loss, bool inputs_kept,
                            struct error *err)
{
    for (int i = 0; i < model->table->count; i++) {
        const struct param *p = &model->table->items[i];
        int64_t place = params_place(model->table, i), at = first_bad(values + place, p->size);
        if (at >= 0)
            FAIL(err, STATUS_NUMERIC, "the loss is %g: tensor '%s' holds %g at index %lld", loss, p->name,
                 (double)values[place + at], (long long)at);
    }
    const struct workspace *w = &model->workspace;
    int64_t width = model->config.width;
    for (int i = 0; inputs_kept && i < model->config.layers; i++) {
        int64_t at = first_bad(w->inputs + i * w->input_stride, n * width);
        if (at >= 0)
            FAIL(err, STATUS_NUMERIC,
                 "the loss is %g: all parameters are finite, but the output of %s %d is %g at token %lld of the batch; "
                 "lower the learning rate",
                 loss, i ? "layer" : "the embedding, layer", i ? i - 1 : 0, (double)w->inputs[i * w->input_stride + at],
                 (long long)(at / width));
    }
    FAIL(err, STATUS_NUMERIC, "the loss is %g: all parameters are finite, but their products overflow in the last layers; "
                              "lower the learning rate", loss);
}

enum status numeric_check_gradient(const struct model *model, const float *gradients, int64_t n, double loss, struct error *err)
{
    if (first_bad(model->workspace.dx, n * model->config.width) < 0)
        return STATUS_OK;
    for (int i = model->table->count - 1; i >= 0; i--) {
        const struct param *p = &model->table->items[i];
        int64_t place = params_place(model->table, i);
        int64_t at = place < model->table->values ? first_bad(gradients + place, p->size) : -1;
        if (at >= 0)
            FAIL(err, STATUS_NUMERIC, "the loss is %g, but the gradient of tensor '%s' is %g at index %lld; lower the learning rate or the "
                 "loss weights", loss, p->name, (double)gradients[place + at], (long long)at);
    }
    FAIL(err, STATUS_NUMERIC, "the loss is %g, but the gradient that reaches the embedding is not finite; lower the learning rate or the "
         "loss weights", loss);
}
