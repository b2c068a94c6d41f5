/* conv_method.c: the methods' names, what each can do, and the choice between them. */
#include "core/ops/conv.h"
#include "core/ops/conv_call.h"
#include "core/ops/conv_scatter.h"

#include <math.h>

const char *conv_method_name(conv_method method) {
    static const char *const names[CONV_METHOD_COUNT] = {
        [CONV_REFERENCE] = "reference", [CONV_WINOGRAD] = "winograd", [CONV_DIRECT] = "direct",
        [CONV_PRODUCT] = "product",     [CONV_GROUPED] = "grouped",
        [CONV_PHASES] = "phases",       [CONV_STRIDED] = "strided"};
    return method >= 0 && method < CONV_METHOD_COUNT ? names[method] : "unknown";
}

const char *conv_pass_name(conv_pass pass) {
    static const char *const names[] = {[CONV_FORWARD] = "forward", [CONV_BACKWARD_DATA] = "data",
                                        [CONV_BACKWARD_WEIGHTS] = "weights"};
    return names[pass];
}

bool conv_method_is_exact(conv_method method) {
    return method != CONV_WINOGRAD && method != CONV_PHASES && method != CONV_STRIDED;
}

/* From more channels the transformed weights would not stay in a core's cache. */
enum { PHASES_CHANNELS = 16 };
/* The phases of smaller kernels would be mostly zeros. */
static bool phases_fit(int64_t kernel, int64_t stride, int64_t dilation) {
    return (kernel == 7 || kernel == 8) && stride == 2 && dilation == 1;
}

bool conv_method_fits(const conv_shape *s, conv_pass pass, conv_method method) {
    switch (method) {
    case CONV_REFERENCE:
    case CONV_PRODUCT: return true;
    case CONV_WINOGRAD:
        return (s->kernel_h == 3 || s->kernel_h == 5) && s->kernel_w == s->kernel_h &&
               s->stride_h == 1 && s->stride_w == 1 &&
               s->dilation_h == 1 && s->dilation_w == 1;
    case CONV_DIRECT: return s->dilation_w == 1;
    case CONV_GROUPED: return s->groups > 1 && s->dilation_w == 1;
    case CONV_PHASES:
        return pass != CONV_BACKWARD_DATA && s->groups == 1 && s->in_c <= PHASES_CHANNELS &&
               phases_fit(s->kernel_h, s->stride_h, s->dilation_h) &&
               phases_fit(s->kernel_w, s->stride_w, s->dilation_w);
    case CONV_STRIDED:
        return s->groups == 1 && s->kernel_h == 3 && s->kernel_w == 3 && s->stride_h == 2 &&
               s->stride_w == 2 && s->dilation_h == 1 && s->dilation_w == 1;
    default: return false;
    }
}

bool conv_method_normalizes(conv_method method) {
    return method == CONV_WINOGRAD || method == CONV_DIRECT || method == CONV_GROUPED ||
           method == CONV_STRIDED;
}

bool conv_method_finishes(conv_method method) { return method != CONV_REFERENCE; }

bool conv_method_reads_norm(conv_method method) {
    return method == CONV_WINOGRAD || method == CONV_DIRECT || method == CONV_PHASES ||
           method == CONV_STRIDED;
}

bool conv_method_adds(conv_method method) { return conv_method_normalizes(method); }

/* The costs below count multiply-adds, and whatever else a method does as the number of multiply-
 * adds that take as long, estimated for vectors of 16 floats. The smallest cost wins. */
static const double PART_OF_VECTOR = 1.4; /* sums beside the result, then copied */
enum {
    VECTOR = 16,
    COPIED_FLOAT = 6,     /* loaded and stored once */
    ADDED_VECTOR = 200,   /* of a patch, to the image that patches overlap in */
    COPIED_RUN = 400,     /* one call of memcpy for a piece of a patch */
    TILE_SOURCE = 350,    /* Winograd's transform of one channel of a tile of the source */
    TILE_RESULT = 250,    /* and of the result */
    WEIGHTS = 250,        /* and of one 3x3 kernel */
    PHASES_ROW = 7,
    STRIDED_VALUE = 16,   /* a value of one of its transforms */
    STRIDED_WEIGHT = 80,  /* and of its transformed weights, which wander between the caches */
    STRIDED_MOST = 3 << 20, /* of which the last cache does not keep more; */
    STRIDED_TILES = 196   /* and fewer tiles read them too often */
};

double conv_multiply_adds(const conv_shape *s) {
    return (double)(s->batch * s->out_h * s->out_w) * (double)(s->kernel_h * s->kernel_w) *
           (double)(s->in_c / s->groups) * (double)s->out_c;
}

static double padded(int64_t channels) { return (double)conv_round_up(channels, VECTOR); }

static double winograd_cost(const conv_shape *s, conv_pass pass) {
    bool back = pass == CONV_BACKWARD_DATA;
    int64_t in = (back ? s->out_c : s->in_c) / s->groups;
    int64_t out = (back ? s->in_c : s->out_c) / s->groups;
    int64_t height = back ? s->in_h : s->out_h, width = back ? s->in_w : s->out_w;
    int64_t outputs = winograd_outputs(s->kernel_h);
    double tiles = (double)(s->batch * conv_divide_up(height, outputs) *
                            conv_divide_up(width, outputs));
    double group = tiles * (WINOGRAD_POINTS * (double)in * padded(out) + TILE_SOURCE * padded(in) +
                            TILE_RESULT * padded(out)) +
                   WEIGHTS * (double)in * padded(out);
    return group * (double)s->groups;
}

/* What product and direct have in common: the multiply-adds with the columns of the weights padded
 * to vectors. */
static double plain_cost(const conv_shape *s, conv_pass pass) {
    int64_t in = s->in_c / s->groups, out = s->out_c / s->groups;
    if (pass == CONV_BACKWARD_DATA) {
        int64_t other = in;
        in = out;
        out = other;
    }
    double columns = padded(out) * (double)s->groups;
    if (out % VECTOR != 0) columns *= PART_OF_VECTOR;
    double taps = (double)(s->kernel_h * s->kernel_w);
    return (double)(s->batch * s->out_h * s->out_w) * taps * (double)in * columns;
}

static double source_floats(const conv_shape *s, conv_pass pass) {
    return pass == CONV_BACKWARD_DATA ? (double)(s->batch * s->out_h * s->out_w * s->out_c)
                                      : (double)(s->batch * s->in_h * s->in_w * s->in_c);
}

/* Whether the direct method needs no copy with padding around. */
static bool read_in_place(const conv_shape *s, conv_pass pass) {
    bool padded_around = s->pad_top > 0 || s->pad_left > 0 || s->pad_bottom > 0 || s->pad_right > 0;
    bool one_pixel = s->kernel_h == 1 && s->kernel_w == 1;
    return s->groups == 1 && !padded_around && (pass != CONV_BACKWARD_DATA || one_pixel);
}

/* Backward-data into few channels: patches of dy's pixels, added row by row. */
static double scatter_cost(const conv_shape *s) {
    double pixels = (double)(s->batch * s->out_h * s->out_w);
    double vectors = (double)(s->kernel_h * conv_divide_up(s->kernel_w * s->in_c, VECTOR));
    return pixels * ((double)s->out_c * padded(s->kernel_h * s->kernel_w * s->in_c) +
                     ADDED_VECTOR * vectors);
}

/* Whole groups in a vector, whose lanes are shuffled for each pixel if there are several; a group
 * larger than a vector is left to the direct method. */
static double grouped_cost(const conv_shape *s, conv_pass pass) {
    int64_t in = s->in_c / s->groups, out = s->out_c / s->groups, larger = conv_max(in, out);
    if (larger > VECTOR) return 2 * plain_cost(s, pass);
    int64_t vectors = conv_divide_up(s->groups, VECTOR / larger);
    double pixels = (double)(s->batch * s->out_h * s->out_w);
    double taps = (double)(s->kernel_h * s->kernel_w);
    double depth = (double)(pass == CONV_BACKWARD_DATA ? out : in);
    double rate = 2 * larger > VECTOR ? 0.9 : 1.1;
    return rate * pixels * taps * depth * (double)(vectors * VECTOR) +
           COPIED_FLOAT * source_floats(s, pass);
}

/* The transforms take as long as those of winograd_cost. Tiles side by side are multiplied
 * PHASES_ROW at a time. */
static double phases_cost(const conv_shape *s) {
    double tiles = (double)(s->batch * conv_divide_up(s->out_h, PHASES_OUTPUTS) *
                            conv_round_up(conv_divide_up(s->out_w, PHASES_OUTPUTS), PHASES_ROW));
    double points = PHASES_POINTS * PHASES_POINTS, lanes = 4 * (double)s->in_c;
    return tiles * (points * lanes * padded(s->out_c) + TILE_SOURCE * padded(4 * s->in_c) +
                    TILE_RESULT * padded(s->out_c)) +
           WEIGHTS * lanes * padded(s->out_c);
}

/* Of a tile, v has 81 values for each channel of the image and m 25 for each of the result; in
 * backward-data it is the other way round, and 4x4 pixels of dy are 8x8 of dx. */
static double strided_cost(const conv_shape *s, conv_pass pass) {
    bool back = pass == CONV_BACKWARD_DATA;
    int64_t height = back ? conv_divide_up(s->in_h + 1 - s->pad_top % 2, 2) : s->out_h;
    int64_t width = back ? conv_divide_up(s->in_w + 1 - s->pad_left % 2, 2) : s->out_w;
    double tiles = (double)(s->batch * conv_divide_up(height, 4) * conv_divide_up(width, 4));
    double products = STRIDED_LINE * STRIDED_LINE, points = STRIDED_POINTS * STRIDED_POINTS;
    double in = padded(s->in_c), out = padded(s->out_c);
    double weights = products * in * out;
    if (tiles < STRIDED_TILES || weights > STRIDED_MOST) return INFINITY;
    return tiles * (weights + STRIDED_VALUE * (products * in + points * out)) +
           STRIDED_WEIGHT * weights;
}

static double cost(const conv_shape *s, conv_pass pass, conv_method method) {
    double pixels = (double)(s->batch * s->out_h * s->out_w);
    double taps = (double)(s->kernel_h * s->kernel_w);
    bool back = pass == CONV_BACKWARD_DATA;
    switch (method) {
    case CONV_WINOGRAD: return winograd_cost(s, pass);
    case CONV_DIRECT:
        return plain_cost(s, pass) +
               (read_in_place(s, pass) ? 0 : COPIED_FLOAT * source_floats(s, pass));
    case CONV_PRODUCT:
        if (conv_scatter_fits(s, pass)) return scatter_cost(s);
        return plain_cost(s, pass) + COPIED_RUN * pixels * taps * (double)s->groups +
               COPIED_FLOAT * pixels * taps * (double)(back ? s->out_c : s->in_c);
    case CONV_GROUPED: return grouped_cost(s, pass);
    case CONV_PHASES: return phases_cost(s);
    case CONV_STRIDED: return strided_cost(s, pass);
    default: /* reference: no vectors */
        return VECTOR * conv_multiply_adds(s);
    }
}

conv_method conv_choose(const conv_shape *shape, conv_pass pass, bool exact) {
    conv_method best = CONV_REFERENCE;
    for (conv_method method = CONV_WINOGRAD; method < CONV_METHOD_COUNT; method++) {
        if (!conv_method_fits(shape, pass, method)) continue;
        if (exact && !conv_method_is_exact(method)) continue;
        if (cost(shape, pass, method) < cost(shape, pass, best)) best = method;
    }
    return best;
}
