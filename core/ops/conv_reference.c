/* conv_reference.c: convolution by plain loops, in float32 (the oracle of the fast methods and the
 * method for odd shapes) and float64 (for gradient checks). */
#include "core/base/threads.h"
#include "core/ops/conv_call.h"

#define REAL float
#define NAMED(name) name##_f32
#include "core/ops/conv_reference_body.h"
#undef REAL
#undef NAMED

#define REAL double
#define NAMED(name) name##_f64
#include "core/ops/conv_reference_body.h"
#undef REAL
#undef NAMED

resin_status conv_reference_run(resin_context *context, const conv_call *call) {
    reference_f32 r = {call->shape, call->x.pixels, call->dy, call->weights, call->bias, call->result};
    reference_run_f32(context, call->pass, &r);
    return RESIN_OK;
}

resin_status conv_forward_f64(resin_context *context, const conv_shape *shape, const double *x,
                              const double *weights, const double *bias, double *y) {
    reference_f64 r = {.shape = *shape, .x = x, .weights = weights, .bias = bias, .result = y};
    reference_run_f64(context, CONV_FORWARD, &r);
    return RESIN_OK;
}

resin_status conv_backward_data_f64(resin_context *context, const conv_shape *shape,
                                    const double *dy, const double *weights, double *dx) {
    reference_f64 r = {.shape = *shape, .dy = dy, .weights = weights, .result = dx};
    reference_run_f64(context, CONV_BACKWARD_DATA, &r);
    return RESIN_OK;
}

resin_status conv_backward_weights_f64(resin_context *context, const conv_shape *shape,
                                       const double *x, const double *dy, double *dweights,
                                       double *dbias) {
    reference_f64 r = {.shape = *shape, .x = x, .dy = dy, .result = dweights};
    reference_run_f64(context, CONV_BACKWARD_WEIGHTS, &r);
    if (!dbias) return RESIN_OK;
    int64_t pixels = shape->batch * shape->out_h * shape->out_w;
    for (int64_t k = 0; k < shape->out_c; k++) dbias[k] = 0;
    for (int64_t i = 0; i < pixels; i++) {
        for (int64_t k = 0; k < shape->out_c; k++) dbias[k] += dy[i * shape->out_c + k];
    }
    return RESIN_OK;
}
