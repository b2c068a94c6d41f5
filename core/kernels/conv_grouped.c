/* conv_grouped.c: grouped convolution with few channels in a group: the input is spread so that
 * every lane of a vector of output channels finds its own group's channel, and the product goes
 * lane by lane. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"
#include "core/kernels/product_block.h"

#include <stdbool.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Fewer lanes than a vector go through memory: a vector indexed by a variable would stay there. */
static ALWAYS_INLINE vfloat load_lanes(const float *p, int lanes) {
    if (lanes == VECTOR_FLOATS) return vload(p);
    float copy[VECTOR_FLOATS] = {0};
    for (int l = 0; l < lanes; l++) copy[l] = p[l];
    return vload(copy);
}

static ALWAYS_INLINE void store_lanes(float *p, vfloat v, int lanes) {
    if (lanes == VECTOR_FLOATS) {
        vstore(p, v);
        return;
    }
    float copy[VECTOR_FLOATS];
    vstore(copy, v);
    for (int l = 0; l < lanes; l++) p[l] = copy[l];
}

/* Lane l gets the c-th channel of its group. Written as a list of lanes, this becomes one shuffle;
 * written as a loop it does not. */
#define LANE(l) x[(l) / group * group + c]
static ALWAYS_INLINE vfloat spread_channel(const vfloat x, const int group, const int c) {
#if VECTOR_FLOATS == 16
    return (vfloat){LANE(0), LANE(1), LANE(2),  LANE(3),  LANE(4),  LANE(5),  LANE(6),  LANE(7),
                    LANE(8), LANE(9), LANE(10), LANE(11), LANE(12), LANE(13), LANE(14), LANE(15)};
#elif VECTOR_FLOATS == 8
    return (vfloat){LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7)};
#else
    return (vfloat){LANE(0), LANE(1), LANE(2), LANE(3)};
#endif
}

#define SPREAD_CHANNEL(c) \
    if (c < group) vstore(to + c * VECTOR_FLOATS, spread_channel(pixel, group, c % group));

static ALWAYS_INLINE void spread_groups(const int group, int64_t pixels, const float *x,
                                        int64_t x_step, int lanes, float *to) {
    for (int64_t i = 0; i < pixels; i++) {
        const vfloat pixel = load_lanes(x + i * x_step, lanes);
        /* Written out: in a loop, even an unrolled one, gcc does not see shuffles. */
        SPREAD_CHANNEL(0) SPREAD_CHANNEL(1) SPREAD_CHANNEL(2) SPREAD_CHANNEL(3)
        SPREAD_CHANNEL(4) SPREAD_CHANNEL(5) SPREAD_CHANNEL(6) SPREAD_CHANNEL(7)
        SPREAD_CHANNEL(8) SPREAD_CHANNEL(9) SPREAD_CHANNEL(10) SPREAD_CHANNEL(11)
        SPREAD_CHANNEL(12) SPREAD_CHANNEL(13) SPREAD_CHANNEL(14) SPREAD_CHANNEL(15)
        to += group * VECTOR_FLOATS;
    }
}

static void spread_any(int64_t pixels, const float *x, int64_t x_step, int64_t first, int lanes,
                       int64_t group_in, int64_t group_out, float *to) {
    int64_t channel[VECTOR_FLOATS];
    for (int l = 0; l < lanes; l++) channel[l] = (first + l) / group_out * group_in;
    for (int64_t i = 0; i < pixels; i++) {
        for (int64_t c = 0; c < group_in; c++) {
            for (int l = 0; l < lanes; l++) to[l] = x[i * x_step + channel[l] + c];
            for (int l = lanes; l < VECTOR_FLOATS; l++) to[l] = 0;
            to += VECTOR_FLOATS;
        }
    }
}

void KERNEL(grouped_spread)(int64_t pixels, const float *x, int64_t x_step, int64_t first,
                            int lanes, int64_t group_in, int64_t group_out, float *to) {
    int64_t group = group_in == group_out ? group_in : 0;
    if (group == 1) {
        spread_groups(1, pixels, x + first, x_step, lanes, to);
    } else if (group == 2) {
        spread_groups(2, pixels, x + first, x_step, lanes, to);
    } else if (group == 4) {
        spread_groups(4, pixels, x + first, x_step, lanes, to);
#if VECTOR_FLOATS >= 8
    } else if (group == 8) {
        spread_groups(8, pixels, x + first, x_step, lanes, to);
#endif
#if VECTOR_FLOATS >= 16
    } else if (group == 16) {
        spread_groups(16, pixels, x + first, x_step, lanes, to);
#endif
    } else {
        spread_any(pixels, x, x_step, first, lanes, group_in, group_out, to);
    }
}

typedef struct lane_shape {
    int64_t segments, depth;
    int64_t a_segment, a_row, a_step, b_segment, b_step;
    bool accumulate;
    int lanes;
} lane_shape;

/* Rows are addressed three to a pointer, as in product.c. */
static ALWAYS_INLINE void multiply_rows(const int rows, const lane_shape *shape, const float *a,
                                        const float *b, float *c, int64_t c_step) {
    vfloat sum[BLOCK_ROWS];
    int64_t a_row = shape->a_row, a_step = shape->a_step, b_step = shape->b_step;
    UNROLL
    for (int i = 0; i < rows; i++) sum[i] = (vfloat){0};
    for (int64_t segment = 0; segment < shape->segments; segment++) {
        const float *a_rows[(BLOCK_ROWS + 2) / 3], *b_vector = b + segment * shape->b_segment;
        UNROLL
        for (int i = 0; i < (rows + 2) / 3; i++) {
            a_rows[i] = a + segment * shape->a_segment + 3 * i * a_row;
        }
        for (int64_t k = 0; k < shape->depth; k++) {
            vfloat factor = vload(b_vector);
            UNROLL
            for (int i = 0; i < rows; i++) {
                sum[i] += vload(a_rows[i / 3] + (i % 3) * a_row) * factor;
            }
            UNROLL
            for (int i = 0; i < (rows + 2) / 3; i++) a_rows[i] += a_step;
            b_vector += b_step;
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        if (shape->accumulate) sum[i] += load_lanes(c, shape->lanes);
        store_lanes(c, sum[i], shape->lanes);
        c += c_step;
    }
}

#define ROW_CASE(n)                                     \
    case n:                                             \
        multiply_rows(n, &shape, a, b, c, c_step);      \
        break;

void KERNEL(grouped_product)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                             int lanes, int64_t depth, const float *a, int64_t a_row,
                             int64_t a_step, const float *b, int64_t b_step, float *c,
                             int64_t c_step, bool accumulate) {
    const lane_shape shape = {.segments = segments, .depth = depth, .a_segment = a_segment,
                              .a_row = a_row, .a_step = a_step, .b_segment = b_segment,
                              .b_step = b_step, .accumulate = accumulate, .lanes = lanes};
    int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (; blocks > 0; blocks--) {
        int count = (int)((rows + blocks - 1) / blocks);
        switch (count) {
            ROW_CASE(1) ROW_CASE(2) ROW_CASE(3) ROW_CASE(4) ROW_CASE(5) ROW_CASE(6)
#if BLOCK_ROWS > 6
            ROW_CASE(7) ROW_CASE(8) ROW_CASE(9) ROW_CASE(10) ROW_CASE(11) ROW_CASE(12) ROW_CASE(13)
            ROW_CASE(14)
#endif
        }
        a += count * a_row;
        c += count * c_step;
        rows -= count;
    }
}
