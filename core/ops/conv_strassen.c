/* conv_strassen.c: products of blocks of pixels and weights by Strassen's method in Winograd's form
 * (Knuth, The Art of Computer Programming 2, 4.6.4): matrices cut into quarters are multiplied with
 * seven products of quarters instead of eight. With
 *
 *   S1 = A21 + A22,  S2 = S1 - A11,  S3 = A11 - A21,  S4 = A12 - S2
 *   T1 = B22 - B12,  T2 = T1 + B11,  T3 = B12 - B11,  T4 = B21 - T2
 *   P0 = A11 B11,  P1 = A12 B21,  P2 = S4 B22,  P3 = A22 T4,  P4 = S1 T3,  P5 = S2 T2,  P6 = S3 T1
 *
 * the result's quarters are
 *
 *   C11 = P0 + P1,              C12 = P0 + P5 + P4 + P2
 *   C21 = P0 + P5 + P6 + P3,    C22 = P0 + P5 + P6 + P4
 *
 * so that S and T are the same sums of other quarters, with other signs. It is done once, not over
 * and over: errors are about twice those of the plain sum. But a pixel's are by the size of those
 * pixels, too, that share a block with it, perhaps of another image. So it is only for convolutions
 * whose result a batch normalization mixes with all others anyway, and for their gradients. */
#include "core/ops/conv_strassen.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_rows.h"

enum {
    CHUNK_LINES = 32, /* floats that a chunk's halves are whole lines of */
    FEWEST = 256      /* channels on each side: what is added takes its time, too */
};

/* Who watches a forward pass takes batch statistics; gradients come through them. */
static bool mixes(const conv_call *call) {
    return call->pass == CONV_FORWARD ? call->watch != NULL : call->norm || call->dy_step;
}

conv_strassen conv_strassen_cut(const resin_context *context, const conv_grid *g, int64_t pixels,
                                int64_t most) {
    const conv_call *call = g->call;
    int64_t width = call->kernels->block_columns, rows = 2 * call->kernels->block_rows;
    conv_strassen s = {.chunks = conv_divide_up(g->depth, most),
                       .pixels = conv_round_up(pixels, rows)};
    s.chunk = g->depth / s.chunks;
    s.pairs = g->panels / 2;
    s.scratch = 2 * s.pixels * conv_row_floats(s.chunk / 2);
    bool fits = g->h.taps * g->w.taps == 1 && g->depth >= FEWEST && g->group_out >= FEWEST &&
                g->depth % (s.chunks * CHUNK_LINES) == 0 && g->group_out % (2 * width) == 0 &&
                g->pixels % rows == 0;
    if (context->conv_direct || !mixes(call) || call->epilogue || call->bias || !fits) s.chunks = 0;
    return s;
}

/* Floats of a quarter of a chunk's weights and a pair of panels. */
static int64_t quarter(const conv_grid *g, const conv_strassen *s) {
    return s->chunk / 2 * g->call->kernels->block_columns;
}

typedef struct pack_job {
    const conv_grid *grid;
    const conv_strassen *strassen;
} pack_job;

/* The seven factors of a pair of panels and a chunk, in the order of the products. */
static void pack_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const pack_job *job = argument;
    const conv_grid *g = job->grid;
    const conv_strassen *s = job->strassen;
    int64_t width = g->call->kernels->block_columns, size = quarter(g, s), half = s->chunk / 2;
    int64_t chunk = piece / s->pairs, left = piece % s->pairs, right = left + s->pairs;
    float *to = s->weights + piece * STRASSEN_PRODUCTS * size;
    float *b11 = to, *b12 = to + 4 * size, *b21 = to + 6 * size, *b22 = to + 5 * size;
    const float *const x[] = {b11, b21, b12, b22};
    conv_pack_panel(g, 0, left, 0, chunk * s->chunk, half, b11);
    conv_pack_panel(g, 0, right, 0, chunk * s->chunk, half, b12); /* where T3 is to be */
    conv_pack_panel(g, 0, left, 0, chunk * s->chunk + half, half, b21);
    conv_pack_panel(g, 0, right, 0, chunk * s->chunk + half, half, b22);
    g->call->kernels->strassen_sums(half, width, -1, x, width, to + size, width, size);
}

resin_status conv_strassen_pack(resin_context *context, const conv_grid *grid, conv_strassen *s) {
    pack_job job = {grid, s};
    RESIN_TRY(conv_reserve(context, s->chunks * s->pairs, STRASSEN_PRODUCTS * quarter(grid, s),
                           &s->weights));
    resin_parallel(context, s->chunks * s->pairs, pack_piece, &job);
    return RESIN_OK;
}

int64_t conv_strassen_steps(const conv_grid *g, const conv_strassen *s, int64_t count) {
    int64_t blocks = count / 2 / g->call->kernels->block_rows;
    return s->pairs * blocks * STRASSEN_PRODUCTS * s->chunks * (s->chunk / 2);
}

void conv_strassen_multiply(const conv_grid *g, const conv_strassen *s, int64_t chunk,
                            int64_t count, const float *a, int64_t a_step, float *c,
                            int64_t c_step, bool accumulate, conv_fetch *fetch, float *sums) {
    const conv_kernels *kernels = g->call->kernels;
    int64_t width = kernels->block_columns, half = count / 2, depth = s->chunk / 2;
    int64_t step = conv_row_floats(depth), plane = half * step;
    const float *const x[] = {a, a + depth, a + half * a_step, a + half * a_step + depth};
    const float *b = s->weights + chunk * s->pairs * STRASSEN_PRODUCTS * quarter(g, s);
    kernels->strassen_sums(half, depth, 1, x, a_step, sums, step, plane);
    strassen_block block = {.depth = depth, .c_step = c_step, .accumulate = accumulate,
                            .fetch = *fetch};
    if (block.fetch.step[1] == 0) { /* nothing else is to be fetched: the next weights */
        block.fetch.at[1] = b + STRASSEN_PRODUCTS * quarter(g, s);
        block.fetch.step[1] = conv_divide_up(width * kernels->block_rows, half);
    }
    conv_fetch_in_line(&block.fetch, STRASSEN_PRODUCTS * depth);
    for (int64_t pair = 0; pair < s->pairs; pair++) {
        block.b = b + pair * STRASSEN_PRODUCTS * quarter(g, s);
        for (int64_t row = 0; row < half; row += kernels->block_rows) {
            const float *own = sums + row * step;
            const float *const factors[] = {x[0] + row * a_step, own, own + 3 * plane,
                                            x[3] + row * a_step, own + plane, own + 2 * plane,
                                            x[1] + row * a_step};
            for (int i = 0; i < STRASSEN_PRODUCTS; i++) {
                block.a[i] = factors[i];
                block.a_step[i] = i % 3 == 0 ? a_step : step;
            }
            block.c[0] = c + row * c_step + pair * width;
            block.c[1] = block.c[0] + s->pairs * width;
            block.c[2] = block.c[0] + half * c_step;
            block.c[3] = block.c[2] + s->pairs * width;
            kernels->strassen_block(&block);
            conv_fetch_on(&block.fetch, 1);
        }
    }
    *fetch = block.fetch;
}
