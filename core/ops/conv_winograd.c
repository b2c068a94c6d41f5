/* conv_winograd.c: 3x3 convolution by Winograd's F(4x4, 3x3), all three passes.
 *
 * An output is cut into tiles of 4x4. With d the 6x6 input pixels of a tile, w the weights of one
 * pair of channels,   y = A^T [ sum over channels (G w G^T) . (B^T d B) ] A   (Lavin and Gray,
 * 2016): at each of the 36 points of the transformed tile a matrix product over channels remains,
 * 36 multiplications for 16 outputs where the plain sum has 144.
 *   backward-data is the same with the weights rotated and transposed and padding 2 - p;
 *   backward-weights is the adjoint: dw = G^T [ sum over tiles (B^T d B) . (A dy A^T) ] G.
 *
 * Names here: v = B^T d B of tiles x input channels, u = G w G^T of input x output channels,
 * m = tiles x output channels; each has 36 planes, one for each point. Output channels go in panels
 * as wide as the register block of the product. The images pass in one of two ways:
 *   by blocks: a block of tiles is transformed, multiplied and transformed back by one worker, and
 *     its v and m stay in its second-level cache; u is made before, once for all;
 *   by slices, for few tiles or many channels, where u would be larger than the work: first all v,
 *     in slices of channels; then each piece makes u of one panel and one slice after the other
 *     and adds up m of many tiles. u never goes to memory. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_call.h"

#include <string.h>

enum {
    BLOCKS_OF_ROWS = 2,          /* tiles of a block, in register blocks */
    SLICE_CHANNELS = 64,         /* channels of a slice, at most */
    SLICE_TILES = 84,            /* tiles a piece takes when working by slices, at most */
    PREFETCH_TILES = 2,          /* how far ahead the pixels of a tile are asked for */
    TRANSFORM_TILES = 8,         /* tiles a piece transforms at least */
    LARGE_WEIGHTS = 3 << 18,     /* floats of u above which slices are the better way */
    FEW_BLOCKS = 8,
    LARGE_SUMS = 1 << 18,        /* floats of du above which it is not summed by chunks */
    MAXIMUM_CHUNKS = 16,
    CHUNK_TILES = 112,           /* tiles a chunk has at least */
    SUPERBLOCK_FLOATS = 5 << 20, /* v and m of the tiles that backward-weights takes at a time */
    LINE = 16                    /* floats of a cache line: planes start on different ones */
};

typedef struct winograd {
    const conv_kernels *kernels;
    /* The image that is transformed, the one whose tiles are counted, and the channels of both. */
    const float *source;
    int64_t source_h, source_w, in_c, pad_top, pad_left;
    float *result;
    const float *gradient;
    int64_t tiled_h, tiled_w, out_c;
    const float *weights, *bias;
    bool rotated;
    int64_t tiles_h, tiles_w, tiles;
    int64_t panels;

    int64_t slices, slice_width; /* slices of input channels, and the row of v */
    int64_t block_tiles, blocks;
    int64_t first_tile, some_tiles; /* the tiles that backward-weights has under way */
    int64_t chunks;
    bool last;

    float *zeros;   /* pixels outside the image */
    float *nowhere; /* where outputs outside the image go: a place for each worker */
    float *u, *v, *m;
    int64_t u_size, v_size, m_size; /* floats of one worker's (or slice's, or panel's) part */
} winograd;

/* Geometry. */

static int64_t panel_first(const winograd *w, int64_t panel) {
    return panel * w->kernels->block_columns;
}
static int64_t panel_columns(const winograd *w, int64_t panel) {
    return conv_min(w->out_c - panel_first(w, panel), w->kernels->block_columns);
}
/* The columns a panel takes in scratch: whole vectors. */
static int64_t panel_width(const winograd *w, int64_t panel) {
    return conv_round_up(panel_columns(w, panel), w->kernels->vector);
}

static void tile_corner(const winograd *w, int64_t tile, int64_t *image, int64_t *top,
                        int64_t *left) {
    int64_t row = tile / w->tiles_w;
    *left = 4 * (tile % w->tiles_w);
    *top = 4 * (row % w->tiles_h);
    *image = row / w->tiles_h;
}

/* Points to the 6x6 input pixels of a tile, from channel `first` on. */
static void point_to_source(const winograd *w, int64_t tile, int64_t first,
                            const float *pixels[WINOGRAD_POINTS]) {
    int64_t image, top, left;
    tile_corner(w, tile, &image, &top, &left);
    top -= w->pad_top;
    left -= w->pad_left;
    int64_t corner = ((image * w->source_h + top) * w->source_w + left) * w->in_c + first;
    for (int i = 0; i < 6; i++) {
        bool row_inside = top + i >= 0 && top + i < w->source_h;
        for (int j = 0; j < 6; j++) {
            bool inside = row_inside && left + j >= 0 && left + j < w->source_w;
            pixels[i * 6 + j] = inside ? w->source + corner + (i * w->source_w + j) * w->in_c
                                       : w->zeros;
        }
    }
}

/* Points to the 4x4 pixels of a tile in the tiled image `base`, `outside` where it has none. */
static void point_to_tile(const winograd *w, int64_t tile, const float *base, const float *outside,
                          const float *pixels[WINOGRAD_OUTPUTS]) {
    int64_t image, top, left;
    tile_corner(w, tile, &image, &top, &left);
    int64_t corner = ((image * w->tiled_h + top) * w->tiled_w + left) * w->out_c;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            bool inside = top + i < w->tiled_h && left + j < w->tiled_w;
            pixels[i * 4 + j] = inside ? base + corner + (i * w->tiled_w + j) * w->out_c : outside;
        }
    }
}

/* Asks for the pixels that a tile has and the one before it has not: the images come from memory,
 * and the hardware does not foresee the order in which tiles walk them. */
static void prefetch_source(const winograd *w, int64_t tile, int64_t first, int64_t channels) {
    int64_t image, top, left;
    tile_corner(w, tile, &image, &top, &left);
    top -= w->pad_top;
    left -= w->pad_left;
    int64_t from = conv_max(left + 2, 0), to = conv_min(left + 6, w->source_w);
    for (int i = 0; i < 6; i++) {
        if (top + i < 0 || top + i >= w->source_h) continue;
        const float *row =
            w->source + (image * w->source_h + top + i) * w->source_w * w->in_c + first;
        for (int64_t j = from; j < to; j++)
            for (int64_t c = 0; c < channels; c += LINE)
                __builtin_prefetch(row + j * w->in_c + c);
    }
}

/* Steps that both ways share. */

/* v of tiles [first, first + count), channels [channel, channel + channels). */
static void transform_source(const winograd *w, int64_t first, int64_t count, int64_t channel,
                             int64_t channels, float *v, int64_t row, int64_t plane) {
    for (int64_t t = 0; t < count; t++) {
        const float *pixels[WINOGRAD_POINTS];
        if (t + PREFETCH_TILES < count)
            prefetch_source(w, first + t + PREFETCH_TILES, channel, channels);
        point_to_source(w, first + t, channel, pixels);
        w->kernels->winograd_input(channels, pixels, v + t * row, plane);
    }
}

/* The outputs of tiles [first, first + count) and one panel from their m. */
static void transform_result(const winograd *w, int64_t first, int64_t count, int64_t panel,
                             const float *m, int64_t row, int64_t plane, int worker) {
    int64_t channel = panel_first(w, panel);
    for (int64_t t = 0; t < count; t++) {
        const float *pixels[WINOGRAD_OUTPUTS];
        float *places[WINOGRAD_OUTPUTS];
        point_to_tile(w, first + t, w->result + channel,
                      w->nowhere + worker * w->kernels->block_columns, pixels);
        for (int i = 0; i < WINOGRAD_OUTPUTS; i++) places[i] = (float *)pixels[i];
        w->kernels->winograd_output(panel_columns(w, panel), m + t * row, plane,
                                    w->bias ? w->bias + channel : NULL, places);
    }
}

/* u of one panel and `channels` input channels from `channel` on. */
static void transform_weights(const winograd *w, int64_t panel, int64_t channel, int64_t channels,
                              float *u, int64_t plane) {
    int64_t first = panel_first(w, panel), tap_step = w->in_c * w->out_c;
    int64_t row_step = w->rotated ? w->in_c : w->out_c;
    const float *corner = w->rotated ? w->weights + first * row_step + channel
                                     : w->weights + channel * row_step + first;
    w->kernels->winograd_weights(channels, panel_columns(w, panel), corner, tap_step, row_step,
                                 w->rotated, u, plane, panel_width(w, panel));
}

/* Forward and backward-data by blocks. */

static float *block_u(const winograd *w, int64_t panel) {
    return w->u + panel_first(w, panel) * WINOGRAD_POINTS * w->in_c;
}

static void block_weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t panel = piece / w->slices, first, last;
    resin_piece_bounds(w->in_c, w->slices, piece % w->slices, &first, &last);
    int64_t width = panel_width(w, panel);
    transform_weights(w, panel, first, last - first, block_u(w, panel) + first * width,
                      w->in_c * width);
}

static void block_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t first, last;
    resin_piece_bounds(w->tiles, w->blocks, piece, &first, &last);
    int64_t count = last - first, row = w->slice_width, plane = w->block_tiles * row + LINE;
    float *v = w->v + worker * w->v_size, *m = w->m + worker * w->m_size;
    transform_source(w, first, count, 0, w->in_c, v, row, plane);
    for (int64_t panel = 0; panel < w->panels; panel++) {
        int64_t width = panel_width(w, panel), m_plane = w->block_tiles * width + LINE;
        const float *u = block_u(w, panel);
        for (int point = 0; point < WINOGRAD_POINTS; point++) {
            w->kernels->product(count, (int)width, w->in_c, v + point * plane, row, false,
                                u + point * w->in_c * width, width, m + point * m_plane, width,
                                false);
        }
        transform_result(w, first, count, panel, m, width, m_plane, worker);
    }
}

static resin_status run_blocks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    w->block_tiles = BLOCKS_OF_ROWS * kernels->block_rows;
    w->blocks = conv_divide_up(w->tiles, w->block_tiles);
    w->slices = resin_piece_count(w->in_c, 16);
    w->slice_width = conv_round_up(w->in_c, kernels->vector);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + LINE);
    w->u_size = WINOGRAD_POINTS * w->in_c * kernels->block_columns;
    RESIN_TRY(conv_reserve(context, w->panels, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, workers, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    resin_parallel(context, w->panels * w->slices, block_weights_piece, w);
    resin_parallel(context, w->blocks, block_piece, w);
    return RESIN_OK;
}

/* Forward and backward-data by slices. Here v has a part for each slice and each block of tiles. */

static float *slice_v(const winograd *w, int64_t slice, int64_t block) {
    return w->v + (slice * w->blocks + block) * w->v_size;
}

static void slice_source_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t groups = resin_piece_count(w->block_tiles, TRANSFORM_TILES);
    int64_t group = piece % groups, block = piece / groups % w->blocks;
    int64_t slice = piece / groups / w->blocks;
    int64_t channel, channel_last, first, last, from, to;
    resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
    resin_piece_bounds(w->tiles, w->blocks, block, &first, &last);
    resin_piece_bounds(last - first, groups, group, &from, &to);
    transform_source(w, first + from, to - from, channel, channel_last - channel,
                     slice_v(w, slice, block) + from * w->slice_width, w->slice_width,
                     w->block_tiles * w->slice_width + LINE);
}

static void slice_product_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t panel = piece / w->blocks, block = piece % w->blocks, first, last;
    resin_piece_bounds(w->tiles, w->blocks, block, &first, &last);
    int64_t width = panel_width(w, panel), v_plane = w->block_tiles * w->slice_width + LINE;
    int64_t u_plane = w->slice_width * width + LINE, m_plane = w->block_tiles * width + LINE;
    float *u = w->u + worker * w->u_size, *m = w->m + worker * w->m_size;
    for (int64_t slice = 0; slice < w->slices; slice++) {
        int64_t channel, channel_last;
        resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
        transform_weights(w, panel, channel, channel_last - channel, u, u_plane);
        const float *v = slice_v(w, slice, block);
        for (int point = 0; point < WINOGRAD_POINTS; point++) {
            w->kernels->product(last - first, (int)width, channel_last - channel,
                                v + point * v_plane, w->slice_width, false, u + point * u_plane,
                                width, m + point * m_plane, width, slice > 0);
        }
    }
    transform_result(w, first, last - first, panel, m, width, m_plane, worker);
}

static resin_status run_slices(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    w->blocks = conv_divide_up(w->tiles, SLICE_TILES);
    w->block_tiles = conv_divide_up(w->tiles, w->blocks);
    w->slices = conv_divide_up(w->in_c, SLICE_CHANNELS);
    w->slice_width = conv_round_up(conv_divide_up(w->in_c, w->slices), kernels->vector);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + LINE);
    w->u_size = WINOGRAD_POINTS * (w->slice_width * kernels->block_columns + LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + LINE);
    RESIN_TRY(conv_reserve(context, w->slices * w->blocks, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, workers, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    int64_t groups = resin_piece_count(w->block_tiles, TRANSFORM_TILES);
    resin_parallel(context, w->slices * w->blocks * groups, slice_source_piece, w);
    resin_parallel(context, w->panels * w->blocks, slice_product_piece, w);
    return RESIN_OK;
}

/* Backward-weights. m is kept by panels: m_size floats each. */

/* m of tiles [first, first + count) and one panel. */
static void transform_gradient(const winograd *w, int64_t first, int64_t count, int64_t panel,
                               float *m, int64_t row, int64_t plane) {
    for (int64_t t = 0; t < count; t++) {
        const float *pixels[WINOGRAD_OUTPUTS];
        point_to_tile(w, first + t, w->gradient + panel_first(w, panel), w->zeros, pixels);
        w->kernels->winograd_gradient(panel_columns(w, panel), pixels, m + t * row, plane);
    }
}

static void weights_result(const winograd *w, int64_t panel, int64_t channel, int64_t channels,
                           const float *du, int64_t plane) {
    w->kernels->winograd_weights_gradient(
        channels, panel_columns(w, panel), du, plane, panel_width(w, panel),
        w->result + channel * w->out_c + panel_first(w, panel), w->in_c * w->out_c, w->out_c);
}

/* By chunks of tiles: each has its own du, small enough for the cache; they are added in order. */

static void chunk_piece(void *argument, int64_t chunk, int worker) {
    const winograd *w = argument;
    int64_t first, last, row = w->slice_width, plane = w->block_tiles * row + LINE;
    resin_piece_bounds(w->tiles, w->chunks, chunk, &first, &last);
    float *v = w->v + worker * w->v_size, *m = w->m + worker * w->m_size;
    for (int64_t tile = first; tile < last; tile += w->block_tiles) {
        int64_t count = conv_min(w->block_tiles, last - tile);
        transform_source(w, tile, count, 0, w->in_c, v, row, plane);
        for (int64_t panel = 0; panel < w->panels; panel++) {
            int64_t width = panel_width(w, panel), m_plane = w->block_tiles * width + LINE;
            transform_gradient(w, tile, count, panel, m, width, m_plane);
            float *du = w->u + chunk * w->u_size +
                        panel_first(w, panel) * WINOGRAD_POINTS * w->in_c;
            for (int point = 0; point < WINOGRAD_POINTS; point++) {
                w->kernels->product(w->in_c, (int)width, count, v + point * plane, row, true,
                                    m + point * m_plane, width, du + point * w->in_c * width,
                                    width, tile > first);
            }
        }
    }
}

static void chunk_sum_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t panel = piece / w->slices, width = panel_width(w, panel), first, last;
    resin_piece_bounds(w->in_c, w->slices, piece % w->slices, &first, &last);
    float *du = w->u + panel_first(w, panel) * WINOGRAD_POINTS * w->in_c + first * width;
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        float *part = du + point * w->in_c * width;
        w->kernels->column_sums(w->chunks, (last - first) * width, part, w->u_size, part, false);
    }
    weights_result(w, panel, first, last - first, du, w->in_c * width);
}

static resin_status run_chunks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    w->block_tiles = BLOCKS_OF_ROWS * kernels->block_rows;
    w->chunks = conv_min(resin_piece_count(w->tiles, CHUNK_TILES), MAXIMUM_CHUNKS);
    w->slices = resin_piece_count(w->in_c, 8);
    w->slice_width = conv_round_up(w->in_c, kernels->vector);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + LINE);
    w->u_size = WINOGRAD_POINTS * w->in_c * w->panels * kernels->block_columns;
    RESIN_TRY(conv_reserve(context, w->chunks, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, workers, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    resin_parallel(context, w->chunks, chunk_piece, w);
    resin_parallel(context, w->panels * w->slices, chunk_sum_piece, w);
    return RESIN_OK;
}

/* By superblocks: v and m of as many tiles as the cache of the processor holds are made first, then
 * each piece sums one slice of channels and one panel over all of them. */

static void superblock_transform_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t parts = w->slices + w->panels, part = piece % parts, first, last;
    int64_t groups = resin_piece_count(w->some_tiles, TRANSFORM_TILES);
    resin_piece_bounds(w->some_tiles, groups, piece / parts, &first, &last);
    if (part < w->slices) {
        int64_t channel, channel_last, row = w->slice_width;
        resin_piece_bounds(w->in_c, w->slices, part, &channel, &channel_last);
        transform_source(w, w->first_tile + first, last - first, channel, channel_last - channel,
                         w->v + part * w->v_size + first * row, row, w->block_tiles * row + LINE);
    } else {
        int64_t panel = part - w->slices, width = panel_width(w, panel);
        transform_gradient(w, w->first_tile + first, last - first, panel,
                           w->m + panel * w->m_size + first * width, width,
                           w->block_tiles * width + LINE);
    }
}

static void superblock_product_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t panel = piece / w->slices, slice = piece % w->slices, channel, channel_last;
    resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
    int64_t channels = channel_last - channel, width = panel_width(w, panel);
    const float *v = w->v + slice * w->v_size, *m = w->m + panel * w->m_size;
    float *du = w->u + (w->some_tiles == w->tiles ? worker : piece) * w->u_size;
    int64_t v_plane = w->block_tiles * w->slice_width + LINE;
    int64_t m_plane = w->block_tiles * width + LINE, du_plane = w->slice_width * width + LINE;
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        w->kernels->product(channels, (int)width, w->some_tiles, v + point * v_plane,
                            w->slice_width, true, m + point * m_plane, width,
                            du + point * du_plane, width, w->first_tile > 0);
    }
    if (w->last) weights_result(w, panel, channel, channels, du, du_plane);
}

static resin_status run_superblocks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    w->slices = conv_divide_up(w->in_c, SLICE_CHANNELS);
    w->slice_width = conv_round_up(conv_divide_up(w->in_c, w->slices), kernels->vector);
    int64_t columns = w->slices * w->slice_width + w->panels * kernels->block_columns;
    int64_t most = conv_max(SUPERBLOCK_FLOATS / (WINOGRAD_POINTS * columns), TRANSFORM_TILES);
    int64_t superblocks = conv_divide_up(w->tiles, most);
    w->block_tiles = conv_divide_up(w->tiles, superblocks);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + LINE);
    w->u_size = WINOGRAD_POINTS * (w->slice_width * kernels->block_columns + LINE);
    RESIN_TRY(conv_reserve(context, w->slices, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, w->panels, w->m_size, &w->m));
    RESIN_TRY(conv_reserve(context,
                           superblocks == 1 ? resin_workers(context) : w->slices * w->panels,
                           w->u_size, &w->u));
    for (int64_t s = 0; s < superblocks; s++) {
        int64_t last;
        resin_piece_bounds(w->tiles, superblocks, s, &w->first_tile, &last);
        w->some_tiles = last - w->first_tile;
        w->last = s == superblocks - 1;
        int64_t groups = resin_piece_count(w->some_tiles, TRANSFORM_TILES);
        resin_parallel(context, groups * (w->slices + w->panels), superblock_transform_piece, w);
        resin_parallel(context, w->slices * w->panels, superblock_product_piece, w);
    }
    return RESIN_OK;
}

static winograd describe(const conv_call *call) {
    const conv_shape *s = &call->shape;
    winograd w = {.kernels = call->kernels, .result = call->result, .weights = call->weights,
                  .bias = call->bias, .gradient = call->dy};
    if (call->pass == CONV_BACKWARD_DATA) {
        w.source = call->dy;
        w.source_h = s->out_h, w.source_w = s->out_w, w.in_c = s->out_c;
        w.tiled_h = s->in_h, w.tiled_w = s->in_w, w.out_c = s->in_c;
        w.pad_top = 2 - s->pad_top, w.pad_left = 2 - s->pad_left;
        w.rotated = true;
        w.bias = NULL;
    } else {
        w.source = call->x;
        w.source_h = s->in_h, w.source_w = s->in_w, w.in_c = s->in_c;
        w.tiled_h = s->out_h, w.tiled_w = s->out_w, w.out_c = s->out_c;
        w.pad_top = s->pad_top, w.pad_left = s->pad_left;
    }
    w.tiles_h = conv_divide_up(w.tiled_h, 4);
    w.tiles_w = conv_divide_up(w.tiled_w, 4);
    w.tiles = s->batch * w.tiles_h * w.tiles_w;
    w.panels = conv_divide_up(w.out_c, call->kernels->block_columns);
    return w;
}

resin_status conv_winograd_run(resin_context *context, const conv_call *call) {
    winograd w = describe(call);
    int64_t channels = conv_round_up(conv_max(w.in_c, w.out_c), w.kernels->vector);
    int64_t weights = WINOGRAD_POINTS * w.in_c * w.out_c;
    resin_status status = conv_reserve(context, 1, channels, &w.zeros);
    if (status == RESIN_OK) {
        memset(w.zeros, 0, (size_t)channels * sizeof(float));
        status = conv_reserve(context, resin_workers(context), w.kernels->block_columns,
                              &w.nowhere);
    }
    if (status == RESIN_OK) {
        if (call->pass == CONV_BACKWARD_WEIGHTS) {
            status = weights > LARGE_SUMS ? run_superblocks(context, &w) : run_chunks(context, &w);
        } else {
            bool few = w.tiles < FEW_BLOCKS * BLOCKS_OF_ROWS * w.kernels->block_rows;
            status = few || weights > LARGE_WEIGHTS ? run_slices(context, &w)
                                                    : run_blocks(context, &w);
        }
    }
    resin_deallocate(context, w.zeros);
    resin_deallocate(context, w.nowhere);
    resin_deallocate(context, w.u);
    resin_deallocate(context, w.v);
    resin_deallocate(context, w.m);
    return status;
}
