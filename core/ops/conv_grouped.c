/* conv_grouped.c: convolution with few channels in a group (ResNeXt, depthwise). A vector holds the
 * channels of some whole groups. A piece copies rows of the source, as they lie in memory, into the
 * strips of some vectors, with padding around; a strip has room for the rows that some rows of the
 * result need, and the next ones replace the oldest. It is multiplied lane by lane (grouped_row).
 * All grids of a backward-data with strides read the same strips. Needs dilation_w = 1; groups
 * larger than a vector are conv_direct.c's. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_grid.h"

#include <string.h>

enum {
    STRIP_FLOATS = 48 << 10, /* of the strips of a piece, where their rows allow */
    STRIP_ROWS = 64,         /* at most */
    VECTOR_GROUP = 8,        /* vectors of a piece: so much of a pixel is read together */
    WATCHED_VECTORS = 16,    /* and so many where whole pixels are watched, */
    WATCHED_FLOATS = 64 << 10, /* about so many floats at a time */
    BLOCK_ROWS = 6,          /* rows of the result of a piece, at least */
    MAXIMUM_GRIDS = 4,       /* that read one strip: strides up to 2 x 2 */
    MAXIMUM_LANES = 16,
    ENOUGH_PIECES = 64,
    PART_SHARE = 2           /* floats of dy for one of a partial sum, at least */
};

/* One of the grids: its place in the strip, and its weights. */
typedef struct grouped_grid {
    conv_grid grid;
    grouped_shape shape;
    int64_t top, left;     /* the first row and pixel of the strip that it reads */
    int64_t weights_first; /* in the weights of a vector */
} grouped_grid;

typedef struct grouped {
    const conv_call *call;
    conv_watch *watch; /* of whole pixels, or NULL */
    grouped_grid grids[MAXIMUM_GRIDS];
    int count;
    grouped_lanes lanes;
    int32_t index[MAXIMUM_LANES * MAXIMUM_LANES];
    bool spread;                    /* each channel of a group has its own strip */
    int64_t in_vector, vectors;     /* groups in a vector */
    int64_t vector_groups;
    int64_t first_row, first_pixel; /* of the source in the strip of the first row of the result */
    int64_t extent, width;          /* rows of a strip for one row of the result, its pixels */
    int64_t line, strip_rows;       /* floats of a row */
    int64_t plane, vector_plane;    /* floats of one strip, and of all that belong to a vector */
    int64_t rows, blocks; /* rows of the grids, and the pieces into which they are cut */
    int64_t batch;        /* rows that are multiplied together */
    int64_t weights_size, strip_size;
    float *weights, *strips;

    /* Backward-weights. */
    int64_t gradient_size, sums_size, parts, partial_size;
    float *partial;
} grouped;

static const conv_grid *first_grid(const grouped *d) { return &d->grids[0].grid; }

/* Groups in the vectors [first, last): the last of all may have fewer. */
static int64_t groups_of(const grouped *d, int64_t first, int64_t last) {
    int64_t groups = d->call->shape.groups;
    return conv_min(last * d->in_vector, groups) - first * d->in_vector;
}

static int lanes_of(const grouped *d, int64_t vector) {
    return (int)(groups_of(d, vector, vector + 1) * first_grid(d)->group_out);
}

/* ---- The strips ----------------------------------------------------------------------------- */

/* The strips of some vectors: rows before `filled` were copied; row 0 is the source's `top`. */
typedef struct strips {
    float *floats;
    int64_t image, vector, vector_last, top, filled;
} strips;

static float *strip_row(const grouped *d, const strips *s, int64_t row) {
    return s->floats + row % d->strip_rows * d->line;
}

/* `inside` pixels of a row of the source into all strips. */
static void copy_row(const grouped *d, const strips *s, const float *from, int64_t inside,
                     float *to) {
    const conv_grid *g = first_grid(d);
    const conv_kernels *kernels = d->call->kernels;
    const conv_image *image = &g->image;
    for (int64_t v = s->vector; v < (d->spread ? s->vector_last : s->vector + 1); v++) {
        int64_t channel = v * d->in_vector * g->group_in;
        const float *scale = image->scale ? image->scale + channel : NULL;
        const float *shift = image->scale ? image->shift + channel : NULL;
        if (d->spread) {
            kernels->grouped_spread(inside, lanes_of(d, v), g->group_in, g->group_out,
                                    from + channel, g->source_c, scale, shift, to, d->plane);
        } else {
            kernels->grouped_copy(inside, groups_of(d, v, s->vector_last) * g->group_in,
                                  (int)(d->in_vector * g->group_in), from + channel, g->source_c,
                                  scale, shift, to, d->plane);
        }
        to += d->vector_plane;
    }
}

/* One row of the strips: a row of the source, or zeros. */
static void fill_row(const grouped *d, const strips *s, int64_t row) {
    const conv_grid *g = first_grid(d);
    int64_t left = d->first_pixel, vector = d->call->kernels->vector, y = s->top + row;
    int64_t first = conv_min(conv_max(left, 0), g->w.source);
    int64_t before = conv_max(conv_min(first - left, d->width), 0);
    int64_t inside = conv_max(conv_min(left + d->width, g->w.source) - first, 0);
    float *to = strip_row(d, s, row);
    if (y < 0 || y >= g->h.source) before = d->width, inside = 0;
    if (inside > 0) {
        int64_t pixel = (s->image * g->h.source + y) * g->w.source + first;
        copy_row(d, s, g->source + pixel * g->source_c, inside, to + before * vector);
    }
    int64_t after = d->width - before - inside;
    int64_t planes = (s->vector_last - s->vector) * (d->vector_plane / d->plane);
    for (int64_t i = 0; i < planes; i++) {
        memset(to, 0, (size_t)(before * vector) * sizeof(float));
        memset(to + (before + inside) * vector, 0, (size_t)(after * vector) * sizeof(float));
        to += d->plane;
    }
}

/* Fills what the next `count` rows of the result need, from strip row `row` on, and lists it. */
static void fill_strips(const grouped *d, strips *s, int64_t row, int64_t count,
                        const float **rows) {
    int64_t needed = (count - 1) * first_grid(d)->h.step + d->extent;
    s->filled = conv_max(s->filled, row);
    for (; s->filled < row + needed; s->filled++) fill_row(d, s, s->filled);
    for (int64_t i = 0; i < needed; i++) rows[i] = strip_row(d, s, row + i);
}

/* The piece `index` of vector groups, blocks of rows and images. */
static strips begin_piece(const grouped *d, int64_t index, float *floats, int64_t *row,
                          int64_t *row_last) {
    strips s = {.floats = floats, .image = index / d->vector_groups / d->blocks};
    resin_piece_bounds(d->vectors, d->vector_groups, index % d->vector_groups, &s.vector,
                       &s.vector_last);
    resin_piece_bounds(d->rows, d->blocks, index / d->vector_groups % d->blocks, row, row_last);
    s.top = d->first_row + *row * first_grid(d)->h.step;
    return s;
}

/* ---- How the work is cut -------------------------------------------------------------------- */

static bool fits_strips(const conv_call *call) {
    const conv_shape *s = &call->shape;
    return s->in_c / s->groups <= call->kernels->vector &&
           s->out_c / s->groups <= call->kernels->vector &&
           s->stride_h + (s->kernel_h - 1) * s->dilation_h < STRIP_ROWS;
}

/* How lanes find their channels. */
static void choose_lanes(grouped *d) {
    const conv_grid *g = first_grid(d);
    int64_t vector = d->call->kernels->vector;
    bool depthwise = g->group_in == 1 && g->group_out == 1;
    d->in_vector = conv_min(vector / g->group_in, vector / g->group_out);
    d->lanes = depthwise ? GROUPED_PLAIN : d->in_vector == 1 ? GROUPED_REPEATED : GROUPED_SHUFFLED;
    d->spread = d->lanes == GROUPED_SHUFFLED && !d->call->kernels->grouped_shuffles;
    if (d->spread) d->lanes = GROUPED_PLAIN;
    for (int64_t c = 0; c < g->group_in; c++) {
        for (int64_t l = 0; l < vector; l++) {
            bool used = l < d->in_vector * g->group_out;
            d->index[c * vector + l] = (int32_t)(used ? l / g->group_out * g->group_in + c : 0);
        }
    }
}

/* The strip covers what any grid reads for one of its rows. */
static void cover_grids(grouped *d) {
    int64_t last_row = INT64_MIN, last_pixel = INT64_MIN;
    d->first_row = d->first_pixel = INT64_MAX;
    d->rows = 0;
    for (int i = 0; i < d->count; i++) {
        const conv_axis *h = &d->grids[i].grid.h, *w = &d->grids[i].grid.w;
        d->rows = conv_max(d->rows, h->count);
        d->first_row = conv_min(d->first_row, h->first);
        d->first_pixel = conv_min(d->first_pixel, w->first);
        last_row = conv_max(last_row, h->first + conv_max(h->taps - 1, 0) * h->tap_step);
        last_pixel = conv_max(last_pixel,
                              w->first + (w->count - 1) * w->step + conv_max(w->taps - 1, 0));
    }
    d->extent = last_row - d->first_row + 1;
    d->width = last_pixel - d->first_pixel + 1;
}

static void cut(grouped *d) {
    const conv_grid *g = first_grid(d);
    int64_t vector = d->call->kernels->vector;
    cover_grids(d);
    choose_lanes(d);
    d->vectors = conv_divide_up(d->call->shape.groups, d->in_vector);
    if (d->vectors > WATCHED_VECTORS) d->watch = NULL;
    d->vector_groups = d->watch ? 1 : conv_divide_up(d->vectors, VECTOR_GROUP);
    int64_t vectors = conv_divide_up(d->vectors, d->vector_groups);
    int64_t planes = d->spread ? g->group_in : 1;
    d->line = d->width * vector;
    int64_t pieces = d->call->shape.batch * d->vector_groups;
    d->blocks = conv_min(conv_divide_up(ENOUGH_PIECES, pieces),
                         conv_max(d->rows / BLOCK_ROWS, 1));
    int64_t strip_rows = conv_min(STRIP_FLOATS / (vectors * planes * d->line), STRIP_ROWS);
    d->batch = 1 + conv_max(strip_rows - d->extent, 0) / g->h.step;
    d->batch = conv_min(d->batch, conv_divide_up(d->rows, d->blocks));
    if (d->watch) {
        int64_t floats = g->h.spread * g->result_w * g->result_c;
        d->batch = conv_min(d->batch, conv_divide_up(WATCHED_FLOATS, floats));
    }
    d->strip_rows = (d->batch - 1) * g->h.step + d->extent;
    d->plane = d->strip_rows * d->line + vector; /* not a power of two apart */
    d->vector_plane = d->plane * planes;
    d->strip_size = vectors * d->vector_plane;
    for (int i = 0; i < d->count; i++) {
        grouped_grid *part = &d->grids[i];
        const conv_axis *h = &part->grid.h, *w = &part->grid.w;
        part->top = h->first - d->first_row;
        part->left = w->first - d->first_pixel;
        part->weights_first = d->weights_size;
        part->shape = (grouped_shape){.taps_h = h->taps, .taps_w = w->taps,
                                      .channels = g->group_in, .tap_rows = h->tap_step,
                                      .step = w->step, .lanes = d->lanes, .index = d->index,
                                      .plane = d->lanes == GROUPED_REPEATED ? 1
                                               : d->spread                  ? d->plane
                                                                            : 0};
        d->weights_size += (1 + part->grid.depth) * vector;
    }
}

static void add_grid(grouped *d, conv_grid grid) {
    if (grid.h.count > 0 && grid.w.count > 0) d->grids[d->count++].grid = grid;
}

/* ---- Forward and backward-data -------------------------------------------------------------- */

/* A vector of weights: a lane's is at from + offset[lane]. */
static float *pack_lanes(const float *from, const int64_t *offset, int64_t used, int64_t lanes,
                         float *to) {
    for (int64_t l = 0; l < used; l++) to[l] = from[offset[l]];
    for (int64_t l = used; l < lanes; l++) to[l] = 0;
    return to + lanes;
}

static void pack_weights(const grouped *d, const conv_grid *g, int64_t vector, float *to) {
    const conv_shape *s = &d->call->shape;
    bool forward = d->call->pass == CONV_FORWARD;
    int64_t lanes = d->call->kernels->vector, first = vector * d->in_vector * g->group_out;
    int64_t used = lanes_of(d, vector), offset[MAXIMUM_LANES];
    for (int64_t l = 0; l < used; l++) {
        int64_t channel = first + l, group = channel / g->group_out;
        offset[l] = forward ? channel : channel % g->group_out * s->out_c + group * g->group_in;
        to[l] = d->call->bias ? d->call->bias[channel] : 0;
    }
    for (int64_t l = used; l < lanes; l++) to[l] = 0;
    to += lanes;
    int64_t tap_size = s->in_c / s->groups * s->out_c, step = forward ? s->out_c : 1;
    for (int64_t i = 0; i < g->h.taps * g->group_in * g->w.taps; i++) {
        int64_t tap_w = i % g->w.taps, c = i / g->w.taps % g->group_in;
        int64_t y = g->h.kernel_first + i / g->w.taps / g->group_in * g->h.kernel_step;
        int64_t x = g->w.kernel_first + tap_w * g->w.kernel_step;
        to = pack_lanes(d->call->weights + (y * s->kernel_w + x) * tap_size + c * step, offset,
                        used, lanes, to);
    }
}

static void weights_piece(void *argument, int64_t vector, int worker) {
    (void)worker;
    const grouped *d = argument;
    for (int i = 0; i < d->count; i++) {
        const grouped_grid *part = &d->grids[i];
        pack_weights(d, &part->grid, vector,
                     d->weights + vector * d->weights_size + part->weights_first);
    }
}

/* Rows [i, i + count) of a grid and one vector of the strips. */
static void multiply_rows(const grouped *d, const strips *s, const grouped_grid *part,
                          int64_t vector, int64_t i, int64_t count, const float *const *strip) {
    const conv_grid *g = &part->grid;
    const grouped_rows rows = {
        .rows = conv_min(count, g->h.count - i), .count = g->w.count, .strip = strip + part->top,
        .row_step = g->h.step,
        .place = (vector - s->vector) * d->vector_plane + part->left * d->call->kernels->vector,
        .result = conv_result_pixel(g, (s->image * g->h.count + i) * g->w.count) +
                  vector * d->in_vector * g->group_out,
        .result_row = g->h.spread * g->result_w * g->result_c,
        .result_step = g->w.spread * g->result_c, .lanes = lanes_of(d, vector),
        .add = d->call->add, .gaps = g->w.spread > 1};
    d->call->kernels->grouped_rows(&part->shape, &rows,
                                   d->weights + vector * d->weights_size + part->weights_first);
    for (int64_t row = 0; row < rows.rows; row++) {
        conv_finish(d->call, rows.result + row * rows.result_row, rows.count,
                    vector * d->in_vector * g->group_out, rows.lanes);
    }
}

/* Shows rows [i, i + count) of all grids. */
static void show_rows(const grouped *d, int64_t piece, int64_t image, int64_t i, int64_t count,
                      int worker) {
    const conv_grid *g = first_grid(d);
    int64_t first = i * g->h.spread;
    int64_t last = conv_min((i + count) * g->h.spread, g->result_h);
    d->watch->pixels(d->watch, piece, (image * g->result_h + first) * g->result_w,
                     (last - first) * g->result_w, worker);
}

static void grid_piece(void *argument, int64_t piece, int worker) {
    const grouped *d = argument;
    const float *rows[STRIP_ROWS];
    int64_t row, row_last;
    strips s = begin_piece(d, piece, d->strips + worker * d->strip_size, &row, &row_last);
    for (int64_t i = row; i < row_last; i += d->batch) {
        int64_t count = conv_min(d->batch, row_last - i);
        fill_strips(d, &s, (i - row) * first_grid(d)->h.step, count, rows);
        for (int64_t v = s.vector; v < s.vector_last; v++) {
            for (int part = 0; part < d->count; part++) {
                multiply_rows(d, &s, &d->grids[part], v, i, count, rows);
            }
        }
        if (d->watch) show_rows(d, piece, s.image, i, count, worker);
    }
}

static resin_status run_grids(resin_context *context, grouped *d) {
    if (d->count == 0) return RESIN_OK;
    cut(d);
    RESIN_TRY(conv_reserve(context, d->vectors, d->weights_size, &d->weights));
    RESIN_TRY(conv_reserve(context, resin_workers(context), d->strip_size, &d->strips));
    resin_parallel(context, d->vectors, weights_piece, d);
    int64_t pieces = d->vector_groups * d->blocks * d->call->shape.batch;
    if (d->watch) {
        const conv_grid *g = first_grid(d);
        RESIN_TRY(d->watch->begin(d->watch, g->result, g->result_c, pieces));
    }
    resin_parallel(context, pieces, grid_piece, d);
    return RESIN_OK;
}

static void release(resin_context *context, grouped *d) {
    resin_deallocate(context, d->strips);
    resin_deallocate(context, d->weights);
    resin_deallocate(context, d->partial);
}

/* All grids at once; with larger strides one after another. */
static resin_status run_backward_data(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    bool together = s->stride_h * s->stride_w <= MAXIMUM_GRIDS;
    grouped d = {.call = call, .watch = together ? call->watch : NULL};
    for (int64_t rest = 0; rest < s->stride_h * s->stride_w; rest++) {
        add_grid(&d, conv_backward_data_grid(call, rest / s->stride_w, rest % s->stride_w));
        if (together && rest + 1 < s->stride_h * s->stride_w) continue;
        resin_status status = run_grids(context, &d);
        release(context, &d);
        RESIN_TRY(status);
        d = (grouped){.call = call};
    }
    return RESIN_OK;
}

/* ---- Backward-weights ----------------------------------------------------------------------- */

/* A piece sums a group of vectors over one part of the blocks of rows; parts are added in order. */

/* Adds rows [i, i + count) of the result's gradient to the sums of all vectors of the strips. */
static void add_rows(const grouped *d, strips *s, int64_t first_row, int64_t i, int64_t count,
                     float *gradient, float *sums) {
    const grouped_grid *part = &d->grids[0];
    const conv_grid *g = &part->grid;
    const conv_kernels *kernels = d->call->kernels;
    const float *rows[STRIP_ROWS];
    int64_t lanes = d->in_vector * g->group_out, size = count * g->w.count;
    int64_t plane = size * kernels->vector;
    fill_strips(d, s, (i - first_row) * g->h.step, count, rows);
    kernels->grouped_copy(size, groups_of(d, s->vector, s->vector_last) * g->group_out, (int)lanes,
                          d->call->dy + (s->image * g->h.count + i) * g->w.count * g->result_c +
                              s->vector * lanes,
                          g->result_c, NULL, NULL, gradient, plane);
    for (int64_t v = s->vector; v < s->vector_last; v++) {
        const grouped_pixels pixels = {.rows = count, .count = g->w.count, .gradient = gradient,
                                       .gradient_row = g->w.count * kernels->vector, .strip = rows,
                                       .row_step = g->h.step,
                                       .place = (v - s->vector) * d->vector_plane};
        kernels->grouped_gradient(&part->shape, &pixels, sums);
        gradient += plane;
        sums += d->sums_size;
    }
}

/* The sums of a vector, by rows, channels and taps, as weights: rows, taps, channels. */
static void write_sums(const grouped *d, int64_t vector, const float *sums, float *dweights) {
    const conv_grid *g = first_grid(d);
    int64_t lanes = d->call->kernels->vector, channel = vector * d->in_vector * g->group_out;
    size_t size = (size_t)lanes_of(d, vector) * sizeof(float);
    for (int64_t i = 0; i < g->depth; i++) {
        int64_t tap = i % g->w.taps, c = i / g->w.taps % g->group_in;
        int64_t row = i / g->w.taps / g->group_in;
        int64_t place = (row * g->w.taps + tap) * g->group_in + c;
        memcpy(dweights + place * g->result_c + channel, sums + i * lanes, size);
    }
}

static int64_t copies_size(const grouped *d) {
    int64_t vectors = conv_divide_up(d->vectors, d->vector_groups);
    return d->strip_size + vectors * (d->gradient_size + d->sums_size);
}

static void sum_piece(void *argument, int64_t piece, int worker) {
    const grouped *d = argument;
    int64_t group = piece % d->vector_groups, part = piece / d->vector_groups, first, last;
    int64_t vectors = conv_divide_up(d->vectors, d->vector_groups);
    float *floats = d->strips + worker * copies_size(d), *gradient = floats + d->strip_size;
    float *sums = gradient + vectors * d->gradient_size;
    strips s = {.image = 0};
    memset(sums, 0, (size_t)(vectors * d->sums_size) * sizeof(float));
    resin_piece_bounds(d->blocks * d->call->shape.batch, d->parts, part, &first, &last);
    for (int64_t block = first; block < last; block++) {
        int64_t row, row_last;
        s = begin_piece(d, block * d->vector_groups + group, floats, &row, &row_last);
        for (int64_t i = row; i < row_last; i += d->batch) {
            add_rows(d, &s, row, i, conv_min(d->batch, row_last - i), gradient, sums);
        }
    }
    for (int64_t v = s.vector; v < s.vector_last; v++) {
        write_sums(d, v, sums + (v - s.vector) * d->sums_size,
                   d->parts > 1 ? d->partial + part * d->partial_size : first_grid(d)->result);
    }
}

static resin_status run_weights(resin_context *context, grouped *d) {
    const conv_grid *g = first_grid(d);
    const conv_kernels *kernels = d->call->kernels;
    cut(d);
    d->partial_size = g->depth * g->result_c;
    d->parts = conv_divide_up(ENOUGH_PIECES, d->vector_groups);
    d->parts = conv_min(d->parts, g->pixels * g->result_c / d->partial_size / PART_SHARE);
    d->parts = conv_max(conv_min(d->parts, d->blocks * d->call->shape.batch), 1);
    d->sums_size = g->depth * kernels->vector;
    d->gradient_size = d->batch * g->w.count * kernels->vector;
    RESIN_TRY(conv_reserve(context, resin_workers(context), copies_size(d), &d->strips));
    if (d->parts > 1) RESIN_TRY(conv_reserve(context, d->parts, d->partial_size, &d->partial));
    resin_parallel(context, d->vector_groups * d->parts, sum_piece, d);
    if (d->parts > 1) {
        conv_add_parts(context, kernels, d->partial, d->parts, d->partial_size,
                       g->result);
    }
    return RESIN_OK;
}

resin_status conv_grouped_run(resin_context *context, const conv_call *call) {
    if (!fits_strips(call)) return conv_direct_run(context, call);
    if (call->pass == CONV_BACKWARD_DATA) return run_backward_data(context, call);
    grouped d = {.call = call, .watch = call->pass == CONV_FORWARD ? call->watch : NULL};
    add_grid(&d, conv_forward_grid(call));
    resin_status status = call->pass == CONV_FORWARD ? run_grids(context, &d)
                                                     : run_weights(context, &d);
    release(context, &d);
    return status;
}
