/* conv_kernels.h: the inner loops of convolution and of the matrix product. */
#ifndef RESIN_KERNELS_CONV_KERNELS_H
#define RESIN_KERNELS_CONV_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* Points of a Winograd tile: 6 x 6 pixels in. Out come, in one direction, as many as leave the taps
 * within those: 4 for 3 taps, 2 for 5. */
enum { WINOGRAD_POINTS = 36 };
static inline int winograd_outputs(int64_t taps) { return (int)(7 - taps); }
enum {
    WINOGRAD_LINE = 16,                 /* floats of a cache line */
    WINOGRAD_ROW = 64,         /* floats of a row of v, for few tiles */
    /* Input channels that are multiplied at a time, for few tiles, and what it takes. */
    WINOGRAD_FEW_TILES = 16,
    WINOGRAD_FEW_CHANNELS = 32,
    WINOGRAD_FEW_SCRATCH = 15 * WINOGRAD_FEW_CHANNELS
};

/* Some tiles: their rows of v and m, as floats from the first. Where fewer than four columns of a
 * tile are wanted, the last point of each of its rows is of no use: such tiles come behind the
 * `wide` ones. One more, whose row of m nobody reads, makes the number even. */
typedef struct winograd_list {
    int tiles, wide;
    int64_t v[WINOGRAD_FEW_TILES + 1], m[WINOGRAD_FEW_TILES + 1];
} winograd_list;

/* The product of few tiles with the weights themselves. */
typedef struct winograd_few {
    const winograd_list *all, *high;  /* those of which the last row of points is wanted, too */
    int64_t channels, columns;        /* at most WINOGRAD_FEW_CHANNELS and few_columns */
    const float *weights, *next;      /* addressed as for winograd_weights; those wanted next */
    int64_t tap_step, row_step;
    bool rotated;
    bool laid; /* 9 taps of WINOGRAD_FEW_CHANNELS rows of few_columns, not rotated */
    const float *v; /* rows of WINOGRAD_ROW floats */
    int64_t v_plane;
    float *m;       /* rows of few_columns; = or += the product */
    int64_t m_plane;
    bool accumulate;
    bool last; /* nothing more is added to m: it is brought to scale */
} winograd_few;

/* Winograd's F(4x4, 4x4), for strided convolutions by phases: 7 x 7 in, 4 x 4 out. */
enum { PHASES_POINTS = 7, PHASES_OUTPUTS = 4 };

/* Floats from one value of a transform to the next, and from one item that is transformed to the
 * next. */
typedef struct phases_steps {
    int64_t value, item;
} phases_steps;

/* Winograd's F(4x4, 2x2) for 3x3 kernels with stride 2 (core/ops/conv_strided.h): points in one
 * direction, and those of both phases. */
enum { STRIDED_POINTS = 5, STRIDED_LINE = 9 };

/* What is transformed: pixels, of both phases or of one (those of dy in backward-data); dy for
 * backward-weights; weights; and back to pixels of both phases (dx) or of one, and to dweights. In
 * each direction values of the phase with two taps come first, then those of that with one tap. */
typedef enum strided_kind {
    STRIDED_PIXELS,        /* 5 + 4 to 5 + 4 points */
    STRIDED_PLAIN_PIXELS,  /* 5 to 5 points */
    STRIDED_GRADIENT,      /* 4 to 5 points */
    STRIDED_WEIGHTS,       /* 2 + 1 taps to 5 + 4 points */
    STRIDED_RESULTS,       /* 5 + 4 points to 4 + 4 */
    STRIDED_PLAIN_RESULTS, /* 5 points to 4 */
    STRIDED_SUMS           /* 5 + 4 points to 2 + 1 taps */
} strided_kind;

/* In one direction: floats from one value to the next of the same phase, and to the first of the
 * other. */
typedef struct strided_step {
    int64_t next, other;
} strided_step;
typedef struct strided_steps {
    strided_step row, column;
} strided_steps;

/* Where results go. Of a tile, whose phases come in turn, `rows` x `columns` pixels from (row,
 * column) on are wanted; that one is written to `to`. */
typedef struct strided_result {
    float *to;
    int64_t row_step, pixel_step;
    int row, column, rows, columns;
    const float *bias; /* by channel, or NULL */
    bool add;
    const float *next[2]; /* asked for on the way, as large a part of images like the result */
} strided_result;

/* Batch normalization between a convolution's result x and the gradient dy that comes back to it, by
 * channel: the gradient of x is a * g + b * (x - mean) + c, where g is dy, or 0 where relu stopped
 * x * scale + shift (scale is NULL where there is no relu). */
typedef struct conv_norm {
    const float *x; /* as large as dy */
    const float *mean, *a, *b, *c;
    const float *scale, *shift;
} conv_norm;

/* What becomes of a convolution's result y where it is written, by channel:
 * activation(y * scale + shift + shortcut). For a part of the result the arrays begin there. */
typedef struct conv_epilogue {
    const float *scale, *shift;
    const float *shortcut; /* in the shape of the result, which it does not overlap; or NULL */
    bool relu;
} conv_epilogue;

/* How the lanes of a vector of the result find the c-th channel of their group in a pixel of the
 * strip: each its own (a strip for each channel, `plane` floats apart; or groups of one channel),
 * by index[c * vector + lane], or all the same (`plane` is 1). */
typedef enum grouped_lanes { GROUPED_PLAIN, GROUPED_SHUFFLED, GROUPED_REPEATED } grouped_lanes;

/* How a grouped convolution reads its strips: rows of pixels with padding around, a vector each. */
typedef struct grouped_shape {
    int64_t taps_h, taps_w; /* of the kernel */
    int64_t channels;       /* of a group */
    int64_t tap_rows;       /* rows of the strip from one tap to the next */
    int64_t step;           /* pixels of the strip from one pixel of the result to the next */
    grouped_lanes lanes;
    int64_t plane;
    const int32_t *index;
} grouped_shape;

/* Some rows of dy, a vector for each pixel, and the rows of the strip that belong to them. */
typedef struct grouped_pixels {
    int64_t rows, count;
    const float *gradient;
    int64_t gradient_row; /* floats from row to row */
    const float *const *strip;
    int64_t row_step, place; /* rows of the strip from row to row; the place of the first pixel */
} grouped_pixels;

/* Some rows of the result, and the rows of the strips that they need: row i those of tap t at
 * strip[i * row_step + t * tap_rows] + place. */
typedef struct grouped_rows {
    int64_t rows, count; /* pixels of a row */
    const float *const *strip;
    int64_t row_step, place;
    float *result;
    int64_t result_row, result_step; /* floats from row to row and from pixel to pixel */
    int lanes;                       /* of a pixel of the result */
    bool add;                        /* to the result */
    bool gaps;                       /* between the pixels: others are written by somebody else */
} grouped_rows;

/* Places of memory from which a product fetches ahead for what comes after it: in each step along
 * the depth of each of its blocks, the line at `at`, which then moves on by `step` floats;
 * and from block to block by `jump`. */
enum { FETCHES = 3 };
typedef struct conv_fetch {
    const float *at[FETCHES];
    int64_t step[FETCHES], jump[FETCHES];
} conv_fetch;

/* What Strassen's seven products multiply and give (conv_strassen.c). */
enum { STRASSEN_PRODUCTS = 7 };
typedef struct strassen_block {
    int64_t depth;
    const float *a[STRASSEN_PRODUCTS]; /* by rows, */
    int64_t a_step[STRASSEN_PRODUCTS];
    const float *b; /* panels, one behind the other */
    float *c[4];
    int64_t c_step;
    bool accumulate;
    conv_fetch fetch; /* without jumps */
} strassen_block;

enum { PRODUCT_FEW = 8 };

typedef struct conv_kernels {
    int vector;        /* floats in a vector */
    int block_rows;    /* the register block of `product` */
    int block_columns; /* = 2 vectors: the width of a packed panel */

    /* c (rows x columns, columns <= block_columns) = or += a * b.
     * a lies by rows (element (i, k) at a[i * a_step + k]) or by columns (a[k * a_step + i]);
     * b is a panel: row k at b + k * b_step, readable to a whole number of vectors. */
    void (*product)(int64_t rows, int columns, int64_t depth, const float *a, int64_t a_step,
                    bool a_by_columns, const float *b, int64_t b_step, float *c, int64_t c_step,
                    bool accumulate);

    /* The same, where a and b come from far: fetches what lies behind them, the next rows of a and
     * the next panel of b, while it multiplies. */
    void (*product_ahead)(int64_t rows, int columns, int64_t depth, const float *a, int64_t a_step,
                          bool a_by_columns, const float *b, int64_t b_step, float *c,
                          int64_t c_step, bool accumulate);

    /* `product` summed over `segments`: segment s reads a + s * a_segment and b + s * b_segment,
     * each `depth` deep. The rows of an image that a kernel covers are segments. Behind comes the
     * epilogue of c, if there is one. */
    void (*product_segments)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                             int columns, int64_t depth, const float *a, int64_t a_step,
                             bool a_by_columns, const float *b, int64_t b_step, float *c,
                             int64_t c_step, bool accumulate, const conv_epilogue *epilogue);

    /* The same, and fetches ahead what it is told to. */
    void (*product_fetch)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                          int columns, int64_t depth, const float *a, int64_t a_step,
                          bool a_by_columns, const float *b, int64_t b_step, float *c,
                          int64_t c_step, bool accumulate, const conv_fetch *fetch,
                          const conv_epilogue *epilogue);

    /* Products with a few rows (at most PRODUCT_FEW) on one side; element (i, k) of a stands at
     * a[i * a_row + k * a_column], rows of b, as they lie, b_step apart:
     *   few_rows:  c += a b, few rows of c
     *   few_dots:  c = or += a b^T, few rows of c; a lies by rows
     *   few_outer: c = or += a b, few rows of b; past: the caches need not keep c */
    void (*few_rows)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_row,
                     int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step);
    void (*few_dots)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_step,
                     const float *b, int64_t b_step, float *c, int64_t c_step, bool accumulate);
    void (*few_outer)(int depth, int64_t rows, int64_t columns, const float *a, int64_t a_row,
                      int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step,
                      bool accumulate, bool past);

    /* to (rows x width, whole vectors) = the first `columns` columns of from, padded with zeros;
     * or, transposed, its element (i, j) = from[j * from_step + i]. */
    void (*pack)(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                 bool transposed, float *to, int64_t width);

    /* to = relu(x * scale + shift) for pixels of some channels, with zeros up to to_step. */
    void (*normalize)(int64_t pixels, int64_t channels, const float *x, int64_t x_step,
                      const float *scale, const float *shift, float *to, int64_t to_step);

    /* to = relu(x * scale + shift + shortcut * sum_scale + sum_shift) for pixels of whole vectors of
     * channels, without gaps. */
    void (*normalize_sum)(int64_t pixels, int64_t channels, const float *x, const float *scale,
                          const float *shift, const float *shortcut, const float *sum_scale,
                          const float *sum_shift, float *to);

    /* y = an epilogue of z, for pixels of some channels; y may be z. The shortcut's pixels are as
     * far apart as those of y. */
    void (*finish)(int64_t pixels, int64_t channels, const float *z, int64_t z_step,
                   const conv_epilogue *epilogue, float *y, int64_t y_step);

    /* The epilogue's scale and shift of a batch normalization behind a convolution with that bias:
     *   scale = gamma / sqrt(variance + epsilon),  shift = beta + (bias - mean) * scale
     * in float64; gamma, beta and bias may be NULL. */
    void (*fold_norm)(int64_t channels, const float *mean, const float *variance,
                      const float *gamma, const float *beta, const float *bias, double epsilon,
                      float *scale, float *shift);

    /* The gradient of x for pixels of channels [first, first + channels), with zeros up to to_step;
     * dy and x point to the first channel. */
    void (*norm_gradient)(int64_t pixels, int64_t channels, const float *dy, const float *x,
                          int64_t x_step, const conv_norm *norm, int64_t first, float *to,
                          int64_t to_step);

    /* sums[j] = or += sum over rows of a[i * a_step + j]. */
    void (*column_sums)(int64_t rows, int64_t columns, const float *a, int64_t a_step, float *sums,
                        bool accumulate);

    /* Sums of four quarters x, `plane` floats apart; with f = sign * x[0] and t = sign * x[2] they
     * are t + x[3] - f, t + x[3], x[1] less the first of these, and f - t. Columns are whole
     * vectors, and `to` may be where x is read. Then block_rows rows and a panel of each quarter of
     * the result. */
    void (*strassen_sums)(int64_t rows, int64_t columns, float sign, const float *const x[4],
                          int64_t x_step, float *to, int64_t to_step, int64_t plane);
    void (*strassen_block)(const strassen_block *block);

    /* Adds patches to an image that they overlap in: run r of pixel i, `length` floats at from +
     * i * from_step + r * length, to to + i * to_step + r * to_row. Both are read, and `to` is
     * written back, to a whole number of vectors. */
    void (*add_patches)(int64_t pixels, int64_t runs, int64_t length, const float *from,
                        int64_t from_step, float *to, int64_t to_row, int64_t to_step);

    /* Winograd transforms, for 3 x 3 taps and tiles of 4 x 4 outputs, or 5 x 5 and 2 x 2. Pixels
     * lie pixel_step apart, rows of pixels row_step; the next tile of a row begins that many
     * outputs further on, in v and m a step further. Point p of a tile lies at v + p * plane. The
     * channels that are read are whole vectors.
     *   input:    v = B^T d B,   6x6 pixels
     *   gradient: m = A dy A^T,  a tile of outputs
     *   output:   y = A^T m A + bias (may be NULL) of one tile, of which rows x columns pixels are
     *             written, or added to; any number of channels. Behind comes the epilogue of what
     *             is written, if there is one */
    void (*winograd_input)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                           int64_t row_step, int64_t pixel_step, float *v, int64_t v_step,
                           int64_t plane);
    void (*winograd_gradient)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                              int64_t row_step, int64_t pixel_step, float *m, int64_t m_step,
                              int64_t plane);
    void (*winograd_output)(int taps, int64_t channels, const float *m, int64_t plane,
                            const float *bias, float *pixels, int64_t row_step, int64_t pixel_step,
                            int rows, int columns, bool add, const conv_epilogue *epilogue);

    /* u = G w G^T for rows x columns of weights: element (tap, i, j) at
     * w[tap * tap_step + i * row_step + j], or, rotated (the weights of backward-data), at
     * w[(taps * taps - 1 - tap) * tap_step + j * row_step + i]. Row i of point p is written at
     * u + p * plane + i * width, to whole vectors. */
    void (*winograd_weights)(int taps, int64_t rows, int64_t columns, const float *w,
                             int64_t tap_step, int64_t row_step, bool rotated, float *u,
                             int64_t plane, int64_t width);
    /* m = or += v u of few tiles, where u is not stored; scratch for WINOGRAD_FEW_SCRATCH
     * floats for each of few_columns. */
    int few_columns;
    void (*winograd_few)(const winograd_few *call, float *scratch);
    /* dw = G^T du G, the adjoint, in the same layouts (not rotated). */
    void (*winograd_weights_gradient)(int taps, int64_t rows, int64_t columns, const float *du,
                                      int64_t plane, int64_t width, float *dw, int64_t tap_step,
                                      int64_t row_step);

    /* Transforms of F(4x4, 4x4), of whole vectors of channels. In one direction, of some items:
     *   phases_source:   B^T d, seven values to seven
     *   phases_gradient: A y,   four to seven
     *   phases_finish:   A^T m of one tile, item by item a column of its pixels, plus bias (may be
     *                    NULL); then the epilogue, if there is one; rows x columns pixels of any
     *                    number of channels are written
     * phases_row has the products in it: of phases_tiles tiles at a row of points, v (by points and
     * tiles) times u (points x lanes x columns, a vector or two), of which A^T m is written: four
     * values x tiles x columns.
     * In both directions, of one row of the weights: element (a, b) of 4 x 4 taps, or of 7 x 7
     * points, stands at step * (width * a + b):
     *   phases_weights:          u = G w G^T
     *   phases_weights_gradient: dw = G^T du G */
    void (*phases_source)(int64_t items, int64_t channels, const float *from,
                          phases_steps from_steps, float *to, phases_steps to_steps);
    int phases_tiles;
    void (*phases_row)(int columns, int64_t lanes, const float *v, phases_steps v_steps,
                       const float *u, float *half);
    void (*phases_gradient)(int64_t items, int64_t channels, const float *from,
                            phases_steps from_steps, float *to, phases_steps to_steps);
    void (*phases_finish)(int64_t channels, const float *from, phases_steps from_steps,
                          const float *bias, const conv_epilogue *epilogue, float *to,
                          int64_t row_step, int64_t pixel_step, int rows, int columns);
    void (*phases_weights)(int64_t channels, const float *w, int64_t tap_step, float *u,
                           int64_t point_step);
    void (*phases_weights_gradient)(int64_t channels, const float *du, int64_t point_step,
                                    float *dw, int64_t tap_step);

    /* Transforms of F(4x4, 2x2), of whole vectors of channels; strided_result is for those back,
     * and of any number. */
    void (*strided_transform)(strided_kind kind, int64_t channels, const float *from,
                              const strided_steps *steps, float *to,
                              const strided_steps *to_steps);
    void (*strided_result)(strided_kind kind, int64_t channels, const float *from,
                           const strided_steps *steps, const strided_result *result);

    /* Grouped convolution (grouped_shape above). The channels of some whole groups of the result
     * are the lanes of a vector, and weights such vectors by rows of the kernel, channels of a
     * group and taps, behind one which the sums start from:
     *   grouped_rows:     rows of the result
     *   grouped_gradient: sums (such vectors) += the products of pixels of the strip and of dy
     *   grouped_copy:     pixels for strips of `lanes` channels each, a plane apart; what stands
     *                     behind the lanes is not defined
     *   grouped_spread:   the strips, a plane apart, of the channels c < group_in of a group: lane
     *                     l is channel l / group_out * group_in + c
     * The last two normalize as `normalize` does, if scale is not NULL. */
    bool grouped_shuffles; /* whether lanes may be shuffled */
    void (*grouped_rows)(const grouped_shape *shape, const grouped_rows *rows,
                         const float *weights);
    void (*grouped_gradient)(const grouped_shape *shape, const grouped_pixels *pixels,
                             float *sums);
    void (*grouped_copy)(int64_t pixels, int64_t channels, int lanes, const float *x,
                         int64_t x_step, const float *scale, const float *shift, float *to,
                         int64_t plane);
    void (*grouped_spread)(int64_t pixels, int lanes, int64_t group_in, int64_t group_out,
                           const float *x, int64_t x_step, const float *scale,
                           const float *shift, float *to, int64_t plane);
} conv_kernels;

#endif
