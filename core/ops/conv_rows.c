/* conv_rows.c: forward and backward-data of direct convolution where pixels are rows of a matrix
 * (conv_rows.h): 1x1 kernels, and strides whose pixels are not one long row.
 *
 * A piece multiplies a block of pixels with a group of panels, chunk by chunk of the depth: the
 * pixels' chunk stays in the second-level cache, and what the next block reads is fetched
 * meanwhile. Where there are only a few pixels they are one block, gathered by all together, or by
 * each worker for itself if that is little, and a piece packs its panels itself, right before it
 * reads them: then each weight is read once. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_rows.h"
#include "core/ops/conv_strassen.h"

#include <string.h>

enum {
    BLOCK_FLOATS = 128 << 10, /* of a chunk of a block of pixels: half the second-level cache */
    BLOCK_PIXELS = 112, /* at most; fewer where they would be more than */
    PIXELS_FLOATS = 64 << 10, /* a quarter of it, and the next block's pixels another */
    FEW_PIXELS = 512,
    FEW_FLOATS = 4 << 20, /* of all that few pixels gather, at most */
    OWN_FLOATS = 256 << 10, /* of them, that each worker gathers for itself, at most */
    FLAG_STEP = 8, /* from worker to worker: a line of the cache */
    CHUNK_DEPTH = 1152,
    STRASSEN_PIXELS = 56, /* of whose sums there are as many, */
    STRASSEN_DEPTH = 576, /* in chunks of so much at most */
    ENOUGH_PIECES = 48,
    FEW_PIECES = 8,
    GATHER_PANELS = 8, /* of a piece, at least: what its pixels are gathered for */
    GATHER_PIXELS = 16,
    MINIMUM_CHANNELS = 16, /* with several taps, for each of which pixels are gathered: */
    TAPS_PANELS = 4,       /* so many panels must make use of that */
    FAR_ROWS = 1024,
    SHORT_ROW = 20 /* pixels of the result, of which the register block takes too few at a time */
};

typedef struct rows_job {
    conv_grid grid;
    const conv_norm *norm;
    const conv_image *made_of; /* of an image with a sum: then the source is what is made */
    bool in_place, few;
    bool packs; /* few pixels, and weights that are not prepared */
    bool dense; /* the grid's pixels are those of the result, in order */
    conv_strassen strassen;
    conv_watch *watch; /* of whole pixels, or NULL */
    int64_t chunk_taps, chunk_channels, channel_chunks, chunks;
    int64_t blocks, block_pixels, block_groups, panel_groups;
    int64_t plane;              /* floats of a gathered tap */
    float *rows, *sums, *panel; /* scratch of each worker; `rows` of all, if there are few pixels, */
    int64_t *gathered;          /* unless each gathers them for itself: then whether it has */
    float *seven; /* and for Strassen's product */
    int64_t rows_size, sums_size, panel_size;
} rows_job;

/* What one piece does. */
typedef struct rows_piece {
    int64_t pixel, count;
    int64_t panel, panel_last;
    int64_t pixel_next, panel_next; /* of what the same worker is likely to do next */
    float *sums, *weights, *seven;
    conv_fetch fetch;
} rows_piece;

/* The product of a chunk of pixels and a panel. */
typedef struct rows_product {
    conv_depth depth;
    const float *a, *b;
    float *c;
    int64_t a_step, segment, width, c_step, columns;
    bool accumulate;
    bool finish;            /* with the last chunk */
    conv_epilogue epilogue;
    const float *next; /* the weights that are packed after this, as they lie, or NULL */
} rows_product;

static conv_depth chunk_depth(const rows_job *d, int64_t chunk) {
    const conv_grid *g = &d->grid;
    conv_depth depth = {.tap = chunk / d->channel_chunks * d->chunk_taps,
                        .channel = chunk % d->channel_chunks * d->chunk_channels};
    depth.taps = conv_min(d->chunk_taps, g->h.taps * g->w.taps - depth.tap);
    depth.channels = conv_min(d->chunk_channels, g->group_in - depth.channel);
    return depth;
}

/* Floats before the gathered rows of a chunk, where the chunks of all pixels stand. */
static int64_t chunk_place(const rows_job *d, int64_t chunk) {
    conv_depth depth = chunk_depth(d, chunk);
    return (depth.tap * d->channel_chunks + chunk % d->channel_chunks) * d->plane;
}

/* The packed weights of a panel, from some depth on. */
static const float *find_packed(const rows_job *d, int64_t panel, const conv_depth *depth) {
    const conv_grid *g = &d->grid;
    int64_t width = conv_round_up(conv_panel_columns(g, panel), g->call->kernels->vector);
    return conv_panel(g, 0, panel) + (depth->tap * g->group_in + depth->channel) * width;
}

/* The weights of a panel and chunk as they lie. */
static const float *find_raw(const rows_job *d, int64_t panel, int64_t chunk) {
    conv_depth depth = chunk_depth(d, chunk);
    if (!d->packs) return find_packed(d, panel, &depth);
    return conv_weights_place(&d->grid, 0, panel, depth.tap, depth.channel);
}

/* Reads the weights of one panel and chunk. */
static const float *find_weights(const rows_job *d, const rows_piece *p, int64_t panel,
                                 const conv_depth *depth, int64_t *segment) {
    const conv_grid *g = &d->grid;
    int64_t width = conv_round_up(conv_panel_columns(g, panel), g->call->kernels->vector);
    if (!d->packs) {
        *segment = g->group_in * width;
        return find_packed(d, panel, depth);
    }
    *segment = depth->channels * width;
    for (int64_t tap = 0; tap < depth->taps; tap++) {
        conv_pack_panel(g, 0, panel, depth->tap + tap, depth->channel, depth->channels,
                        p->weights + tap * *segment);
    }
    return p->weights;
}

static void start_with_bias(const float *bias, int64_t columns, int64_t count, float *c,
                            int64_t c_step) {
    for (int64_t i = 0; i < count; i++) {
        memcpy(c + i * c_step, bias, (size_t)columns * sizeof(float));
    }
}

/* One product, whose fetches go on where the last one's ended. */
static void multiply(const rows_job *d, rows_piece *p, const rows_product *x, int64_t row,
                     int64_t rows) {
    const conv_kernels *kernels = d->grid.call->kernels;
    conv_epilogue epilogue = x->epilogue;
    if (epilogue.shortcut) epilogue.shortcut += row * x->c_step;
    conv_fetch_in_line(&p->fetch, x->depth.taps * x->depth.channels);
    kernels->product_fetch(x->depth.taps, d->plane, x->segment, rows, (int)x->columns,
                           x->depth.channels, x->a + row * x->a_step, x->a_step, false, x->b,
                           x->width, x->c + row * x->c_step, x->c_step, x->accumulate, &p->fetch,
                           x->finish ? &epilogue : NULL);
    conv_fetch_on(&p->fetch, conv_divide_up(rows, kernels->block_rows));
}

/* The weights that are read next, a part for each of some blocks. Packed ones as they lie. Those
 * that are to be packed: forward lines, of which a row of a panel is two, and backward-data rows of
 * the weights, each a column of the panel. */
static void fetch_weights(const rows_job *d, rows_piece *p, const rows_product *x, int64_t block,
                          int64_t blocks) {
    const conv_grid *g = &d->grid;
    int64_t width = g->call->kernels->block_columns, step = g->call->shape.out_c;
    bool back = g->call->pass == CONV_BACKWARD_DATA;
    if (!x->next || (d->packs && block >= (back ? width / 2 : 2))) {
        p->fetch = (conv_fetch){{x->b, x->b, x->b}, {0}, {0}};
    } else if (!d->packs) {
        int64_t part = conv_divide_up(width, blocks);
        const float *from = x->next + block * part * x->depth.taps * x->depth.channels;
        p->fetch = (conv_fetch){{from, from + part / 2, x->b}, {part, part, 0}, {0}};
    } else if (back) {
        const float *row = x->next + 2 * block * step;
        p->fetch = (conv_fetch){{row, row + step, x->b}, {1, 1, 0}, {0}};
    } else {
        p->fetch = (conv_fetch){{x->next + block * (width - 1), x->b, x->b}, {step}, {0}};
    }
}

/* Block by block, while the next weights are fetched. */
static void multiply_few(const rows_job *d, rows_piece *p, const rows_product *x) {
    int64_t blocks = conv_divide_up(p->count, d->grid.call->kernels->block_rows), first, last;
    for (int64_t block = 0; block < blocks; block++) {
        resin_piece_bounds(p->count, blocks, block, &first, &last);
        fetch_weights(d, p, x, block, blocks);
        multiply(d, p, x, first, last - first);
    }
}

static void multiply_chunk(const rows_job *d, rows_piece *p, int64_t chunk, const float *a,
                           int64_t a_step) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    const float *bias = chunk == 0 ? g->call->bias : NULL;
    rows_product x = {.depth = chunk_depth(d, chunk), .a = a, .a_step = a_step,
                      .c_step = d->dense ? g->result_c : d->sums_size / d->block_pixels,
                      .accumulate = chunk > 0 || bias || g->call->add};
    for (int64_t panel = p->panel; panel < p->panel_last; panel++) {
        int64_t channel = panel * kernels->block_columns;
        x.columns = conv_panel_columns(g, panel);
        x.width = conv_round_up(x.columns, kernels->vector);
        x.b = find_weights(d, p, panel, &x.depth, &x.segment);
        x.c = d->dense ? g->result + p->pixel * g->result_c + channel
                       : p->sums + channel - p->panel * kernels->block_columns;
        x.finish = chunk + 1 == d->chunks &&
                   conv_epilogue_at(g->call, x.c, channel, &x.epilogue);
        if (bias) start_with_bias(bias + channel, x.columns, p->count, x.c, x.c_step);
        if (d->few) {
            x.next = panel + 1 < p->panel_last ? find_raw(d, panel + 1, chunk)
                     : chunk + 1 < d->chunks   ? find_raw(d, p->panel, chunk + 1)
                     : p->panel_next < g->panels && !d->packs ? find_raw(d, p->panel_next, 0)
                                               : NULL;
            multiply_few(d, p, &x);
        } else {
            multiply(d, p, &x, 0, p->count);
        }
    }
}

/* Copies sums between where they are made and the pixels of the result, which lie apart. */
static void move_sums(const rows_job *d, const rows_piece *p, bool to_result) {
    const conv_grid *g = &d->grid;
    int64_t width = g->call->kernels->block_columns, first = p->panel * width;
    int64_t step = d->sums_size / d->block_pixels;
    size_t size = (size_t)(conv_min(p->panel_last * width, g->group_out) - first) * sizeof(float);
    for (int64_t i = 0; i < p->count; i++) {
        float *sums = p->sums + i * step, *pixel = conv_result_pixel(g, p->pixel + i) + first;
        memcpy(to_result ? pixel : sums, to_result ? sums : pixel, size);
    }
}

/* Steps of all products of a block. */
static int64_t product_steps(const rows_job *d, const rows_piece *p) {
    int64_t rows = d->grid.call->kernels->block_rows;
    if (d->strassen.chunks > 0) return conv_strassen_steps(&d->grid, &d->strassen, p->count);
    return (p->panel_last - p->panel) * conv_divide_up(p->count, rows) * d->grid.depth;
}

/* What the worker's next block reads, and what is read with the result of this one, spread over the
 * steps of its products; the former such that it is complete just then, since weights that pass
 * through the cache push out what has long been there. */
static void fetch_next(const rows_job *d, rows_piece *p) {
    const conv_grid *g = &d->grid;
    int64_t steps = product_steps(d, p), floats = p->count * g->source_step;
    int64_t step = conv_divide_up(floats, steps);
    int64_t next = p->pixel_next * g->source_step - conv_min(steps * step - floats, floats);
    bool read = conv_same_pixels(g) && !d->few && p->pixel_next < g->pixels;
    p->fetch = (conv_fetch){{g->source, g->source, g->source}, {0}, {0}};
    if (read) {
        p->fetch.at[0] = g->source + next, p->fetch.step[0] = step;
        if (d->norm) p->fetch.at[1] = d->norm->x + next, p->fetch.step[1] = step;
        if (d->made_of) {
            p->fetch.at[1] = d->made_of->pixels + next, p->fetch.step[1] = step;
            p->fetch.at[2] = d->made_of->sum.shortcut + next, p->fetch.step[2] = step;
        }
    }
    if (!d->watch || !d->watch->reads) return;
    p->fetch.at[2] = d->watch->reads + p->pixel * g->result_c;
    p->fetch.step[2] = conv_divide_up(p->count * g->result_c, steps);
}

static void make_pixels(const rows_job *d, const rows_piece *p) {
    const conv_image *x = d->made_of;
    int64_t channels = d->grid.source_step, at = p->pixel * channels;
    d->grid.call->kernels->normalize_sum(p->count, channels, x->pixels + at, x->scale, x->shift,
                                         x->sum.shortcut + at, x->sum.scale, x->sum.shift,
                                         x->sum.to + at);
}

static void sum_block(const rows_job *d, rows_piece *p, float *rows) {
    const conv_grid *g = &d->grid;
    if (!d->dense && g->call->add) move_sums(d, p, false);
    if (d->made_of) make_pixels(d, p);
    fetch_next(d, p);
    for (int64_t chunk = 0; chunk < d->chunks; chunk++) {
        conv_depth depth = chunk_depth(d, chunk);
        const float *a = rows;
        if (d->in_place) {
            a = g->source + p->pixel * g->source_step + depth.channel;
        } else if (d->few) {
            a = rows + chunk_place(d, chunk);
        } else {
            conv_gather_rows(g, d->norm, p->pixel, p->count, depth, rows, d->plane);
        }
        int64_t step = d->in_place ? g->source_step : conv_row_floats(depth.channels);
        if (d->strassen.chunks == 0) {
            multiply_chunk(d, p, chunk, a, step);
            continue;
        }
        conv_strassen_multiply(g, &d->strassen, chunk, p->count, a, step,
                               d->dense ? g->result + p->pixel * g->result_c : p->sums,
                               d->dense ? g->result_c : d->sums_size / d->block_pixels,
                               chunk > 0 || g->call->add, &p->fetch, p->seven);
    }
    if (!d->dense) move_sums(d, p, true);
}

/* The blocks of a piece; behind the last piece there are none. */
static void find_blocks(const rows_job *d, int64_t piece, int64_t *first, int64_t *last) {
    int64_t group = piece / d->panel_groups;
    *first = *last = d->blocks;
    if (group < d->block_groups) {
        resin_piece_bounds(d->blocks, d->block_groups, group, first, last);
    }
}

/* Some pixels, all chunks. */
static void gather_few(const rows_job *d, int64_t first, int64_t last, float *rows) {
    for (int64_t chunk = 0; chunk < d->chunks; chunk++) {
        conv_depth depth = chunk_depth(d, chunk);
        conv_gather_rows(&d->grid, d->norm, first, last - first, depth,
                         rows + chunk_place(d, chunk) + first * conv_row_floats(depth.channels),
                         d->plane);
    }
}

/* For all pieces. */
static void gather_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const rows_job *d = argument;
    int64_t first, last;
    resin_piece_bounds(d->grid.pixels, conv_divide_up(d->grid.pixels, GATHER_PIXELS), piece, &first,
                       &last);
    gather_few(d, first, last, d->rows);
}

/* The rows that a worker's blocks are gathered into, or few pixels' rows themselves. What a worker
 * gathers again takes less time than to get what another has gathered out of that one's cache. */
static float *find_rows(const rows_job *d, int worker) {
    float *rows = d->rows + worker * d->rows_size;
    if (!d->few) return rows;
    if (!d->gathered) return d->rows;
    if (!d->gathered[worker * FLAG_STEP]) gather_few(d, 0, d->grid.pixels, rows);
    d->gathered[worker * FLAG_STEP] = 1;
    return rows;
}

static void block_piece(void *argument, int64_t piece, int worker) {
    const rows_job *d = argument;
    const conv_grid *g = &d->grid;
    rows_piece p = {.sums = d->sums + worker * d->sums_size,
                    .weights = d->panel + worker * d->panel_size,
                    .seven = d->seven + worker * d->strassen.scratch};
    float *rows = find_rows(d, worker);
    int64_t block, block_last, next, next_last;
    resin_piece_bounds(g->panels, d->panel_groups, piece % d->panel_groups, &p.panel,
                       &p.panel_last);
    find_blocks(d, piece, &block, &block_last);
    find_blocks(d, piece + 1, &next, &next_last);
    p.panel_next = p.panel_last;
    for (; block < block_last; block++) {
        p.pixel = block * d->block_pixels;
        p.count = conv_min(d->block_pixels, g->pixels - p.pixel);
        p.pixel_next = (block + 1 < block_last ? block + 1 : next) * d->block_pixels;
        sum_block(d, &p, rows);
        if (d->watch) d->watch->pixels(d->watch, piece, p.pixel, p.count, worker);
    }
}


bool conv_rows_fit(const conv_grid *g) {
    int64_t taps = g->h.taps * g->w.taps;
    if (g->call->shape.groups > 1) return false;
    if (taps == 1) return true;
    bool weights = g->call->pass == CONV_BACKWARD_WEIGHTS;
    int64_t panels = weights ? TAPS_PANELS / 2 : TAPS_PANELS;
    return g->group_in >= MINIMUM_CHANNELS &&
           g->group_out >= panels * g->call->kernels->block_columns &&
           (g->w.count < SHORT_ROW || (weights && g->w.step > 1));
}

/* How the depth is cut into chunks: some taps, or some channels of one. */
static void cut_depth(rows_job *d, int64_t most) {
    const conv_grid *g = &d->grid;
    int64_t taps = g->h.taps * g->w.taps;
    int64_t tap_chunks = conv_divide_up(taps, conv_max(most / g->group_in, 1));
    d->chunk_taps = conv_divide_up(taps, tap_chunks);
    d->channel_chunks = d->chunk_taps > 1 ? 1 : conv_divide_up(g->group_in, most);
    d->chunk_channels = conv_divide_up(g->group_in, d->channel_chunks);
    if (d->channel_chunks > 1) d->chunk_channels = conv_round_up(d->chunk_channels, 16);
    d->channel_chunks = conv_divide_up(g->group_in, d->chunk_channels);
    d->chunks = conv_divide_up(taps, d->chunk_taps) * d->channel_chunks;
}

/* How pixels and panels are cut into blocks and groups: the largest that are enough pieces. */
static void cut_pieces(rows_job *d) {
    const conv_grid *g = &d->grid;
    int64_t rows = d->strassen.chunks > 0 ? d->strassen.pixels : g->call->kernels->block_rows;
    if (d->few) {
        int64_t panels = conv_max(1, conv_min(g->panels / FEW_PIECES, 4));
        d->block_pixels = g->pixels;
        d->blocks = d->block_groups = 1;
        d->panel_groups = conv_divide_up(g->panels, panels);
        return;
    }
    int64_t most = conv_divide_up(g->panels, GATHER_PANELS);
    int64_t fit = PIXELS_FLOATS / (d->chunk_taps * d->chunk_channels) / rows * rows;
    int64_t largest = conv_max(conv_min(fit, BLOCK_PIXELS), BLOCK_PIXELS / 2);
    if (d->strassen.chunks > 0) largest = d->strassen.pixels;
    for (int64_t pixels = largest; pixels >= largest / 2; pixels /= 2) {
        d->blocks = conv_divide_up(g->pixels, pixels);
        d->block_pixels = conv_round_up(conv_divide_up(g->pixels, d->blocks), rows);
        d->blocks = conv_divide_up(g->pixels, d->block_pixels);
        d->block_groups = conv_min(d->blocks, ENOUGH_PIECES);
        d->panel_groups = 1;
        if (d->strassen.chunks > 0) break;
        d->panel_groups = conv_min(conv_divide_up(ENOUGH_PIECES, d->block_groups), most);
        if (d->block_groups * d->panel_groups >= FEW_PIECES * 3) break;
    }
}

static void cut(rows_job *d) {
    const conv_grid *g = &d->grid;
    d->dense = g->h.spread == 1 && g->w.spread == 1;
    d->few = g->pixels <= FEW_PIXELS &&
             g->pixels * g->h.taps * g->w.taps * conv_row_floats(g->group_in) <= FEW_FLOATS;
    d->packs = d->few && !g->call->prepared;
    int64_t most = d->few ? g->pixels : BLOCK_PIXELS;
    most = conv_max(conv_min(BLOCK_FLOATS / most, CHUNK_DEPTH), 64);
    if (d->strassen.chunks > 0) most = d->strassen.chunk;
    cut_depth(d, most);
    cut_pieces(d);
    /* Rows a power of two apart share few places of a cache. */
    bool far = g->source_step % FAR_ROWS == 0 ||
               (d->channel_chunks > 1 && g->source_step % 256 == 0);
    d->in_place = conv_same_pixels(g) && !g->image.scale && !d->norm && !far;
    d->plane = d->block_pixels * conv_row_floats(d->chunk_channels);
    d->rows_size = d->in_place ? 0
                   : d->few    ? d->plane * d->channel_chunks * g->h.taps * g->w.taps
                               : d->plane * d->chunk_taps;
    int64_t width = conv_divide_up(g->panels, d->panel_groups) * g->call->kernels->block_columns;
    d->sums_size = d->dense ? 0 : d->block_pixels * width;
    int64_t chunk = d->chunk_taps * d->chunk_channels;
    d->watch = d->dense && d->panel_groups == 1 && !d->few ? g->call->watch : NULL;
    d->panel_size = d->packs ? chunk * g->call->kernels->block_columns : 0;
}

/* Room for gathered rows; few pixels that are for all workers are gathered now. */
static resin_status reserve_rows(resin_context *context, rows_job *d) {
    int64_t workers = resin_workers(context);
    bool own = !d->few || d->rows_size <= OWN_FLOATS;
    RESIN_TRY(conv_reserve(context, own ? workers : 1, d->rows_size, &d->rows));
    if (!d->few || d->in_place) return RESIN_OK;
    if (!own) {
        resin_parallel(context, conv_divide_up(d->grid.pixels, GATHER_PIXELS), gather_piece, d);
        return RESIN_OK;
    }
    size_t size = (size_t)(workers * FLAG_STEP) * sizeof *d->gathered;
    RESIN_TRY(resin_allocate(context, size, (void **)&d->gathered));
    memset(d->gathered, 0, size);
    return RESIN_OK;
}

static resin_status run(resin_context *context, rows_job *d) {
    int64_t workers = resin_workers(context);
    if (d->strassen.chunks > 0) RESIN_TRY(conv_strassen_pack(context, &d->grid, &d->strassen));
    else if (!d->packs) RESIN_TRY(conv_pack_weights(context, &d->grid));
    RESIN_TRY(conv_reserve(context, workers, d->strassen.chunks > 0 ? d->strassen.scratch : 0,
                           &d->seven));
    RESIN_TRY(conv_reserve(context, workers, d->sums_size, &d->sums));
    RESIN_TRY(conv_reserve(context, workers, d->panel_size, &d->panel));
    RESIN_TRY(reserve_rows(context, d));
    int64_t pieces = d->block_groups * d->panel_groups;
    if (d->watch) RESIN_TRY(d->watch->begin(d->watch, d->grid.result, d->grid.result_c, pieces));
    resin_parallel(context, pieces, block_piece, d);
    return RESIN_OK;
}

/* Where each pixel is read once, and where it lies. */
bool conv_rows_reads_sum(const conv_call *call) {
    rows_job d = {.grid = conv_forward_grid(call)};
    if (call->shape.groups > 1 || call->shape.in_c % call->kernels->vector != 0) return false;
    d.grid.image = (conv_image){.pixels = NULL}; /* what is made is read as it is */
    cut(&d);
    return d.in_place && !d.few && d.panel_groups == 1;
}

resin_status conv_rows_run(resin_context *context, const conv_grid *grid) {
    rows_job d = {.grid = *grid};
    if (grid->image.sum.shortcut) {
        d.made_of = &grid->image;
        d.grid.source = grid->image.sum.to;
        d.grid.image = (conv_image){.pixels = d.grid.source};
    }
    if (grid->call->pass == CONV_BACKWARD_DATA) d.norm = grid->call->norm;
    if (grid->pixels > FEW_PIXELS)
        d.strassen = conv_strassen_cut(context, grid, STRASSEN_PIXELS, STRASSEN_DEPTH);
    cut(&d);
    resin_status status = run(context, &d);
    resin_deallocate(context, d.grid.weights);
    resin_deallocate(context, d.rows);
    resin_deallocate(context, d.gathered);
    resin_deallocate(context, d.sums);
    resin_deallocate(context, d.panel);
    resin_deallocate(context, d.seven);
    resin_deallocate(context, d.strassen.weights);
    return status;
}
