/* conv_reference_body.h: convolution by plain loops, the definition that the fast methods are
 * tested against. conv_reference.c includes it twice: REAL is float or double, NAMED(x) gives each
 * function a name of that type. No include guard for that reason. */

typedef struct NAMED(reference) {
    conv_shape shape;
    const REAL *x, *dy, *weights, *bias;
    REAL *result;
} NAMED(reference);

static inline int64_t NAMED(x_at)(const conv_shape *s, int64_t n, int64_t h, int64_t w, int64_t c) {
    return ((n * s->in_h + h) * s->in_w + w) * s->in_c + c;
}
static inline int64_t NAMED(y_at)(const conv_shape *s, int64_t n, int64_t h, int64_t w, int64_t k) {
    return ((n * s->out_h + h) * s->out_w + w) * s->out_c + k;
}
/* c counts within its group. */
static inline int64_t NAMED(weight_at)(const conv_shape *s, int64_t i, int64_t j, int64_t c,
                                       int64_t k) {
    return ((i * s->kernel_w + j) * (s->in_c / s->groups) + c) * s->out_c + k;
}

/* One row of y. */
static void NAMED(forward_piece)(void *argument, int64_t piece, int worker) {
    (void)worker;
    const NAMED(reference) *r = argument;
    const conv_shape *s = &r->shape;
    int64_t n = piece / s->out_h, h = piece % s->out_h, group_in = s->in_c / s->groups;
    for (int64_t w = 0; w < s->out_w; w++) {
        REAL *y = r->result + NAMED(y_at)(s, n, h, w, 0);
        for (int64_t k = 0; k < s->out_c; k++) y[k] = r->bias ? r->bias[k] : 0;
        for (int64_t i = 0; i < s->kernel_h; i++) {
            for (int64_t j = 0; j < s->kernel_w; j++) {
                int64_t from_h = h * s->stride_h - s->pad_top + i * s->dilation_h;
                int64_t from_w = w * s->stride_w - s->pad_left + j * s->dilation_w;
                if (from_h < 0 || from_h >= s->in_h || from_w < 0 || from_w >= s->in_w) continue;
                const REAL *x = r->x + NAMED(x_at)(s, n, from_h, from_w, 0);
                for (int64_t k = 0; k < s->out_c; k++) {
                    int64_t group = k / (s->out_c / s->groups);
                    for (int64_t c = 0; c < group_in; c++) {
                        y[k] += x[group * group_in + c] *
                                r->weights[NAMED(weight_at)(s, i, j, c, k)];
                    }
                }
            }
        }
    }
}

/* One row of dx: what each of its pixels gave to which outputs. */
static void NAMED(backward_data_piece)(void *argument, int64_t piece, int worker) {
    (void)worker;
    const NAMED(reference) *r = argument;
    const conv_shape *s = &r->shape;
    int64_t n = piece / s->in_h, h = piece % s->in_h;
    int64_t group_in = s->in_c / s->groups, group_out = s->out_c / s->groups;
    for (int64_t w = 0; w < s->in_w; w++) {
        REAL *dx = r->result + NAMED(x_at)(s, n, h, w, 0);
        for (int64_t c = 0; c < s->in_c; c++) dx[c] = 0;
        for (int64_t i = 0; i < s->kernel_h; i++) {
            for (int64_t j = 0; j < s->kernel_w; j++) {
                int64_t to_h = h + s->pad_top - i * s->dilation_h;
                int64_t to_w = w + s->pad_left - j * s->dilation_w;
                if (to_h < 0 || to_h % s->stride_h != 0 || to_h / s->stride_h >= s->out_h) continue;
                if (to_w < 0 || to_w % s->stride_w != 0 || to_w / s->stride_w >= s->out_w) continue;
                const REAL *dy =
                    r->dy + NAMED(y_at)(s, n, to_h / s->stride_h, to_w / s->stride_w, 0);
                for (int64_t c = 0; c < s->in_c; c++) {
                    int64_t first = c / group_in * group_out;
                    const REAL *weights =
                        r->weights + NAMED(weight_at)(s, i, j, c % group_in, first);
                    for (int64_t k = 0; k < group_out; k++) dx[c] += dy[first + k] * weights[k];
                }
            }
        }
    }
}

/* One channel of one tap of dweights. */
static void NAMED(backward_weights_piece)(void *argument, int64_t piece, int worker) {
    (void)worker;
    const NAMED(reference) *r = argument;
    const conv_shape *s = &r->shape;
    int64_t group_in = s->in_c / s->groups, group_out = s->out_c / s->groups;
    int64_t c = piece % group_in, j = piece / group_in % s->kernel_w;
    int64_t i = piece / group_in / s->kernel_w;
    REAL *dweights = r->result + NAMED(weight_at)(s, i, j, c, 0);
    for (int64_t k = 0; k < s->out_c; k++) dweights[k] = 0;
    for (int64_t n = 0; n < s->batch; n++) {
        for (int64_t h = 0; h < s->out_h; h++) {
            for (int64_t w = 0; w < s->out_w; w++) {
                int64_t from_h = h * s->stride_h - s->pad_top + i * s->dilation_h;
                int64_t from_w = w * s->stride_w - s->pad_left + j * s->dilation_w;
                if (from_h < 0 || from_h >= s->in_h || from_w < 0 || from_w >= s->in_w) continue;
                const REAL *x = r->x + NAMED(x_at)(s, n, from_h, from_w, 0);
                const REAL *dy = r->dy + NAMED(y_at)(s, n, h, w, 0);
                for (int64_t k = 0; k < s->out_c; k++) {
                    dweights[k] += x[k / group_out * group_in + c] * dy[k];
                }
            }
        }
    }
}

static void NAMED(reference_run)(resin_context *context, conv_pass pass, NAMED(reference) *r) {
    const conv_shape *s = &r->shape;
    if (pass == CONV_FORWARD) {
        resin_parallel(context, s->batch * s->out_h, NAMED(forward_piece), r);
    } else if (pass == CONV_BACKWARD_DATA) {
        resin_parallel(context, s->batch * s->in_h, NAMED(backward_data_piece), r);
    } else {
        resin_parallel(context, s->kernel_h * s->kernel_w * (s->in_c / s->groups),
                       NAMED(backward_weights_piece), r);
    }
}
