/* conv_method.c: the methods' names, what each can do, and the choice between them. */
#include "core/ops/conv.h"
#include "core/ops/conv_call.h"

const char *conv_method_name(conv_method method) {
    static const char *const names[CONV_METHOD_COUNT] = {
        [CONV_REFERENCE] = "reference", [CONV_WINOGRAD] = "winograd", [CONV_DIRECT] = "direct",
        [CONV_PRODUCT] = "product",     [CONV_GROUPED] = "grouped"};
    return method >= 0 && method < CONV_METHOD_COUNT ? names[method] : "unknown";
}

bool conv_method_fits(const conv_shape *s, conv_pass pass, conv_method method) {
    (void)pass;
    switch (method) {
    case CONV_REFERENCE:
    case CONV_PRODUCT: return true;
    case CONV_WINOGRAD:
        return s->groups == 1 && s->kernel_h == 3 && s->kernel_w == 3 && s->stride_h == 1 &&
               s->stride_w == 1 && s->dilation_h == 1 && s->dilation_w == 1;
    case CONV_DIRECT: return s->dilation_w == 1;
    case CONV_GROUPED: return s->groups > 1 && s->dilation_w == 1;
    default: return false;
    }
}

conv_method conv_choose(const conv_shape *shape, conv_pass pass, bool exact) {
    if (!exact && conv_method_fits(shape, pass, CONV_WINOGRAD) && shape->in_c >= 8 &&
        shape->out_c >= 8) {
        return CONV_WINOGRAD;
    }
    return CONV_PRODUCT;
}
