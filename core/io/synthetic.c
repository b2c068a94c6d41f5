/* synthetic.c: the embedded set of images. Ten classes of figures and textures, 32x32 in colour,
 * drawn from a formula, so that a network can be trained on a machine without any data.
 *
 * Image i depends on (seed, split, i) only: its random numbers are Philox blocks counted from 0
 * under a key made of seed and split. Only sums, products, quotients and square roots are used,
 * which IEEE arithmetic rounds alike everywhere, so every machine draws the same images.
 *
 * What tells the classes apart is shape. Colours, position, size, rotation, light, clutter and noise are
 * drawn independently of the class, figure and ground change roles freely, and so the mean image of
 * every class is grey: a linear model on pixels has little to hold on to. */
#include "core/io/dice.h"
#include "core/base/context.h"
#include "core/base/threads.h"

#include <math.h>

enum { SIDE = 32, CHANNELS = 3, CLASSES = 10, SPECKS = 4, IMAGES_PER_PIECE = 64 };

typedef struct point { double x, y; } point;
typedef struct colour { double channel[CHANNELS]; } colour;

/* One image's figure or texture: `centre`, `size` (radius or half a period) and the rotation, whose
 * cosine and sine turn the image's axes into the figure's. */
typedef struct pose {
    point centre;
    double cosine, sine, size, thickness;
} pose;

/* ---- Shapes: the signed distance to the edge in pixels, negative inside -------------------------- */

static double length(double x, double y) { return sqrt(x * x + y * y); }

static double box(point p, double half_width, double half_height) {
    return fmax(fabs(p.x) - half_width, fabs(p.y) - half_height);
}

static double disk(point p, const pose *figure) { return length(p.x, p.y) - figure->size; }

static double ring(point p, const pose *figure) {
    return fabs(length(p.x, p.y) - 0.85 * figure->size) - 0.5 * figure->thickness;
}

static double square(point p, const pose *figure) {
    return box(p, 0.85 * figure->size, 0.85 * figure->size);
}

static double cross(point p, const pose *figure) {
    double half = 0.6 * figure->thickness;
    return fmin(box(p, figure->size, half), box(p, half, figure->size));
}

/* Equilateral, its corners a little beyond `size` from the centre: the largest of the distances to
 * the three sides, whose normals point down and, at 60 degrees (sine 0.866), up to both sides. */
static double triangle(point p, const pose *figure) {
    double slanted = 0.8660254037844386 * fabs(p.x) - 0.5 * p.y;
    return fmax(slanted, p.y) - 0.6 * figure->size;
}

/* ---- Textures, endless in the plane -------------------------------------------------------------- */

/* A wave of straight lines between -1/2 and 1/2 times the half period, zero at its edges. */
static double wave(double x, double half_period) {
    double phase = x / (2.0 * half_period);
    return half_period * (2.0 * fabs(phase - floor(phase) - 0.5) - 0.5);
}

static double stripes(point p, const pose *figure) { return wave(p.y, 0.5 * figure->size); }

/* Where exactly one of the two waves is positive. */
static double checkerboard(point p, const pose *figure) {
    double half = 0.65 * figure->size, across = wave(p.x, half), down = wave(p.y, half);
    double edge = fmin(fabs(across), fabs(down));
    return (across > 0.0) == (down > 0.0) ? edge : -edge;
}

static double dots(point p, const pose *figure) {
    double period = figure->size;
    double x = p.x / period, y = p.y / period;
    x = period * (x - floor(x) - 0.5);
    y = period * (y - floor(y) - 0.5);
    return length(x, y) - 0.3 * period;
}

/* ---- The classes --------------------------------------------------------------------------------- */

/* How a class turns: its axes start at `upright` (a tangent of half the angle) and turn by up to
 * `freedom` (likewise) to both sides. 1 is a quarter of a circle. */
static const double ANY_ANGLE = 1.0, A_LITTLE = 0.06, EIGHTH = 0.41421356237309503;

typedef struct class_row {
    const char *name;
    double (*distance)(point p, const pose *figure);
    bool texture;
    double upright;
    const double *freedom;
} class_row;

static const class_row classes[CLASSES] = {
    {"disk", disk, false, 0.0, &ANY_ANGLE},
    {"square", square, false, 0.0, &ANY_ANGLE},
    {"triangle", triangle, false, 0.0, &ANY_ANGLE},
    {"cross", cross, false, 0.0, &ANY_ANGLE},
    {"ring", ring, false, 0.0, &ANY_ANGLE},
    {"horizontal stripes", stripes, true, 0.0, &A_LITTLE},
    {"vertical stripes", stripes, true, 1.0, &A_LITTLE},
    {"diagonal stripes", stripes, true, EIGHTH, &A_LITTLE},
    {"checkerboard", checkerboard, true, 0.0, &ANY_ANGLE},
    {"dots", dots, true, 0.0, &ANY_ANGLE},
};
