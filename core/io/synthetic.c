/* synthetic.c: the embedded set of images. Ten classes of figures and textures, 32x32 in colour,
 * drawn from formulas, so that a network can be trained on a machine without any data.
 *
 * Image i depends on (seed, split, i) only: its random numbers are the Philox blocks of item i
 * under a key made of seed and split. Only sums, products, quotients and square roots are used,
 * which IEEE arithmetic rounds alike everywhere: every machine draws the same images.
 *
 * What tells the classes apart is shape. Colours, position, size, rotation, light, clutter and
 * noise are drawn independently of the class, and figure and ground change roles freely, so the
 * mean image of every class is grey and a linear model on pixels has little to hold on to. */
#include "core/base/context.h"
#include "core/base/threads.h"
#include "core/io/dice.h"

#include <inttypes.h>
#include <math.h>

enum { SIDE = 32, CHANNELS = 3, CLASSES = 10, PIXELS = SIDE * SIDE, SPECKS = 8 };
enum { IMAGES_PER_PIECE = 32 };

typedef struct point { double x, y; } point;
typedef struct colour { double channel[CHANNELS]; } colour;
typedef struct turn { double cosine, sine; } turn;

/* One figure or texture: where it lies, its size (a radius, or a period) and the width of
 * strokes. */
typedef struct pose {
    point centre;
    turn rotation;
    double size, stroke;
} pose;

/* ---- Shapes: the signed distance to the edge in pixels, negative inside ---------------------- */

static double length(double x, double y) { return sqrt(x * x + y * y); }

static double box(point p, double half_width, double half_height) {
    return fmax(fabs(p.x) - half_width, fabs(p.y) - half_height);
}

static double disk(point p, const pose *figure) { return length(p.x, p.y) - figure->size; }

static double ring(point p, const pose *figure) {
    return fabs(length(p.x, p.y) - figure->size + 0.5 * figure->stroke) - 0.5 * figure->stroke;
}

static double square(point p, const pose *figure) {
    return box(p, 0.85 * figure->size, 0.85 * figure->size);
}

static double cross(point p, const pose *figure) {
    double half = 0.5 * figure->stroke, arm = 1.1 * figure->size;
    return fmin(box(p, arm, half), box(p, half, arm));
}

/* Equilateral: the largest of the distances to the three sides, whose normals point along y and,
 * 120 degrees away, to both sides of it. */
static double triangle(point p, const pose *figure) {
    double slanted = 0.8660254037844386 * fabs(p.x) - 0.5 * p.y;
    return fmax(slanted, p.y) - 0.65 * figure->size;
}

/* A wave of straight lines: positive for one half of each period, negative for the other. */
static double wave(double x, double period) {
    double phase = x / period;
    return period * (fabs(phase - floor(phase) - 0.5) - 0.25);
}

static double stripes(point p, const pose *figure) { return wave(p.y, 0.75 * figure->size); }

/* Ground where both waves have the same sign. */
static double checkerboard(point p, const pose *figure) {
    double across = wave(p.x, figure->size), down = wave(p.y, figure->size);
    double edge = fmin(fabs(across), fabs(down));
    return (across > 0.0) == (down > 0.0) ? edge : -edge;
}

static double dots(point p, const pose *figure) {
    double x = p.x / figure->size, y = p.y / figure->size;
    return figure->size * (length(x - floor(x) - 0.5, y - floor(y) - 0.5) - 0.3);
}

/* ---- Classes --------------------------------------------------------------------------------- */

typedef enum freedom { ANY_ANGLE, ALONG, ACROSS, DIAGONAL } freedom;

static const struct class_row {
    const char *name;
    double (*distance)(point p, const pose *figure);
    freedom rotation;
} classes[CLASSES] = {
    {"disk", disk, ANY_ANGLE},
    {"square", square, ANY_ANGLE},
    {"triangle", triangle, ANY_ANGLE},
    {"cross", cross, ANY_ANGLE},
    {"ring", ring, ANY_ANGLE},
    {"horizontal stripes", stripes, ALONG},
    {"vertical stripes", stripes, ACROSS},
    {"diagonal stripes", stripes, DIAGONAL},
    {"checkerboard", checkerboard, ANY_ANGLE},
    {"dots", dots, ANY_ANGLE},
};

const char *resin_synthetic_class_name(int label) {
    return label >= 0 && label < CLASSES ? classes[label].name : NULL;
}

/* ---- What is drawn at random ----------------------------------------------------------------- */

static double sign(resin_dice *dice) { return resin_dice_bits(dice) & 1u ? 1.0 : -1.0; }

/* The turn by 2 atan(tangent): rational, so that no library's sine is needed. */
static turn turn_from_half_tangent(double tangent) {
    double square_sum = 1.0 + tangent * tangent;
    return (turn){(1.0 - tangent * tangent) / square_sum, 2.0 * tangent / square_sum};
}

static turn turn_compose(turn a, turn b) {
    return (turn){a.cosine * b.cosine - a.sine * b.sine, a.sine * b.cosine + a.cosine * b.sine};
}

static turn random_turn(resin_dice *dice, freedom rotation) {
    static const double HALF_ROOT = 0.7071067811865476;
    if (rotation == ANY_ANGLE) {
        turn half_circle = turn_from_half_tangent(resin_dice_between(dice, -1.0, 1.0));
        double side = sign(dice);
        return (turn){side * half_circle.cosine, side * half_circle.sine};
    }
    turn base = {1.0, 0.0};
    if (rotation == ACROSS) base = (turn){0.0, 1.0};
    if (rotation == DIAGONAL) base = (turn){HALF_ROOT, HALF_ROOT * sign(dice)};
    return turn_compose(base, turn_from_half_tangent(resin_dice_between(dice, -0.07, 0.07)));
}

static pose random_pose(resin_dice *dice, freedom rotation) {
    pose figure;
    figure.size = resin_dice_between(dice, 5.0, 12.0);
    figure.stroke = figure.size * resin_dice_between(dice, 0.4, 0.65);
    double reach = SIDE / 2.0 - 0.8 * figure.size;
    figure.centre.x = SIDE / 2.0 + resin_dice_between(dice, -reach, reach);
    figure.centre.y = SIDE / 2.0 + resin_dice_between(dice, -reach, reach);
    figure.rotation = random_turn(dice, rotation);
    return figure;
}

static colour random_colour(resin_dice *dice) {
    colour c;
    for (int k = 0; k < CHANNELS; k++) c.channel[k] = resin_dice_between(dice, 20.0, 235.0);
    return c;
}

/* A colour that stands out against another: it is drawn again, some times, while it is near. */
static colour random_contrast(resin_dice *dice, colour ground) {
    colour c = random_colour(dice);
    for (int attempt = 0; attempt < 16; attempt++) {
        double distance = 0.0;
        for (int k = 0; k < CHANNELS; k++) {
            double difference = c.channel[k] - ground.channel[k];
            distance += difference * difference;
        }
        if (distance >= 75.0 * 75.0) break;
        c = random_colour(dice);
    }
    return c;
}

/* ---- Drawing --------------------------------------------------------------------------------- */

typedef struct canvas { double pixel[PIXELS][CHANNELS]; } canvas;

static point pixel_centre(int index) {
    return (point){index % SIDE + 0.5, index / SIDE + 0.5};
}

/* How much of a pixel lies inside of an edge at this signed distance. */
static double coverage(double distance) { return fmin(fmax(0.5 - distance, 0.0), 1.0); }

static void blend(double pixel[CHANNELS], const colour *paint, double light, double cover) {
    for (int k = 0; k < CHANNELS; k++)
        pixel[k] += cover * (paint->channel[k] * light - pixel[k]);
}

/* Fills the canvas with the ground and draws the figure, both in a slanting light. */
static void draw_figure(canvas *picture, resin_dice *dice, const struct class_row *class) {
    pose figure = random_pose(dice, class->rotation);
    colour ground = random_colour(dice), paint = random_contrast(dice, ground);
    double slope_x = resin_dice_between(dice, -0.012, 0.012);
    double slope_y = resin_dice_between(dice, -0.012, 0.012);
    turn rotation = figure.rotation;
    for (int i = 0; i < PIXELS; i++) {
        point at = pixel_centre(i);
        double x = at.x - figure.centre.x, y = at.y - figure.centre.y;
        point turned = {rotation.cosine * x + rotation.sine * y,
                        rotation.cosine * y - rotation.sine * x};
        double light = 1.0 + slope_x * (at.x - SIDE / 2.0) + slope_y * (at.y - SIDE / 2.0);
        blend(picture->pixel[i], &ground, light, 1.0);
        blend(picture->pixel[i], &paint, light, coverage(class->distance(turned, &figure)));
    }
}

/* Small specks and short dashes of any colour, over everything. */
static void draw_clutter(canvas *picture, resin_dice *dice) {
    uint32_t count = resin_dice_below(dice, SPECKS + 1);
    for (uint32_t speck = 0; speck < count; speck++) {
        point centre = {resin_dice_between(dice, 0.0, SIDE), resin_dice_between(dice, 0.0, SIDE)};
        double half_width = resin_dice_between(dice, 0.5, 1.2);
        double half_length = resin_dice_between(dice, 0.5, 4.0);
        turn rotation = random_turn(dice, ANY_ANGLE);
        colour paint = random_colour(dice);
        for (int i = 0; i < PIXELS; i++) {
            point at = pixel_centre(i);
            double x = at.x - centre.x, y = at.y - centre.y;
            point turned = {rotation.cosine * x + rotation.sine * y,
                            rotation.cosine * y - rotation.sine * x};
            blend(picture->pixel[i], &paint, 1.0, coverage(box(turned, half_length, half_width)));
        }
    }
}

/* The canvas in bytes, with noise: the sum of four random bytes is nearly normal. */
static void finish(const canvas *picture, resin_dice *dice, uint8_t *bytes) {
    double amplitude = resin_dice_between(dice, 2.0, 26.0);
    const double deviation = 147.8; /* of the sum of four bytes: sqrt(4 (256^2 - 1) / 12) */
    for (int i = 0; i < PIXELS * CHANNELS; i++) {
        uint32_t bits = resin_dice_bits(dice);
        int sum = (int)(bits & 255u) + (int)(bits >> 8 & 255u) + (int)(bits >> 16 & 255u) +
                  (int)(bits >> 24);
        double value = picture->pixel[i / CHANNELS][i % CHANNELS];
        value += amplitude * (sum - 510) / deviation;
        bytes[i] = (uint8_t)(fmin(fmax(value, 0.0), 255.0) + 0.5);
    }
}

/* ---- Whole sets ------------------------------------------------------------------------------ */

typedef struct set {
    uint64_t key;
    int64_t count, pieces, image_bytes;
    uint32_t classes;
    uint8_t *images;
    int64_t *labels;
} set;

/* Makes both tensors and fills them by pieces. */
static resin_status make_set(resin_context *context, set *work, const int64_t shape[4],
                             resin_piece fill_piece, resin_tensor **images, resin_tensor **labels) {
    resin_tensor *pixels = NULL, *numbers = NULL;
    RESIN_TRY(resin_empty(context, RESIN_UINT8, 4, shape, &pixels));
    resin_status status = resin_empty(context, RESIN_INT64, 1, shape, &numbers);
    if (status != RESIN_OK) {
        resin_release(pixels);
        return status;
    }
    work->count = shape[0];
    work->image_bytes = shape[1] * shape[2] * shape[3];
    work->pieces = resin_piece_count(work->count, IMAGES_PER_PIECE);
    work->images = resin_tensor_data(pixels);
    work->labels = resin_tensor_data(numbers);
    resin_parallel(context, work->pieces, fill_piece, work);
    *images = pixels;
    *labels = numbers;
    return RESIN_OK;
}

static void draw_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const set *work = argument;
    int64_t first, last;
    resin_piece_bounds(work->count, work->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        canvas picture = {0};
        resin_dice dice = resin_dice_start(work->key, (uint64_t)i);
        int label = (int)(i % CLASSES);
        draw_figure(&picture, &dice, &classes[label]);
        draw_clutter(&picture, &dice);
        finish(&picture, &dice, work->images + i * work->image_bytes);
        work->labels[i] = label;
    }
}

resin_status resin_synthetic_images(resin_context *context, uint64_t seed, bool test, int64_t count,
                                    resin_tensor **images, resin_tensor **labels) {
    if (count < 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "synthetic: expected a count of at least 1, got %" PRId64, count);
    /* The keys keep both splits apart, and away from other uses of the same seed. */
    set work = {.key = seed ^ (test ? UINT64_C(0x746573742073796e) : UINT64_C(0x747261696e73796e))};
    return make_set(context, &work, (int64_t[]){count, SIDE, SIDE, CHANNELS}, draw_piece, images,
                    labels);
}

static void noise_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const set *work = argument;
    int64_t first, last;
    resin_piece_bounds(work->count, work->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        resin_dice dice = resin_dice_start(work->key, (uint64_t)i);
        work->labels[i] = resin_dice_below(&dice, work->classes);
        uint8_t *image = work->images + i * work->image_bytes;
        for (int64_t k = 0; k < work->image_bytes; k++)
            image[k] = (uint8_t)(resin_dice_bits(&dice) >> 24);
    }
}

resin_status resin_random_images(resin_context *context, uint64_t seed, const int64_t shape[4],
                                 int64_t classes_wanted, resin_tensor **images,
                                 resin_tensor **labels) {
    for (int axis = 0; axis < 4; axis++)
        if (shape[axis] < 1)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "random: expected count, height, width and channels of at least 1, "
                              "got %" PRId64, shape[axis]);
    if (classes_wanted < 1 || classes_wanted > INT32_MAX)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "random: expected 1 to 2^31 - 1 classes, got %" PRId64, classes_wanted);
    set work = {.key = seed ^ UINT64_C(0x6e6f697365696d67), .classes = (uint32_t)classes_wanted};
    return make_set(context, &work, shape, noise_piece, images, labels);
}
