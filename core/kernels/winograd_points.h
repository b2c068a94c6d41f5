/* winograd_points.h: values at the points 0, 1, -1, 2, -2 and infinity, which the Winograd methods
 * have in common (conv_winograd.c; conv_phases.c with one point more): the one-dimensional
 * transforms B^T and A of F(4x4, 3x3). */
#ifndef RESIN_KERNELS_WINOGRAD_POINTS_H
#define RESIN_KERNELS_WINOGRAD_POINTS_H

#include "core/kernels/kernel.h"

/* B^T d */
static ALWAYS_INLINE void six_points_of_source(const vfloat d[6], vfloat t[6]) {
    vfloat even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1];
    vfloat even_2 = d[4] - d[2], odd_2 = d[3] - d[1];
    t[0] = 4.0f * d[0] + (d[4] - 5.0f * d[2]);
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even_2 + 2.0f * odd_2;
    t[4] = even_2 - 2.0f * odd_2;
    t[5] = 4.0f * d[1] + (d[5] - 5.0f * d[3]);
}

/* A y */
static ALWAYS_INLINE void six_points_of_gradient(const vfloat y[4], vfloat m[6]) {
    vfloat even = y[0] + y[2], odd = y[1] + y[3];
    vfloat even_2 = y[0] + 4.0f * y[2], odd_2 = y[1] + 4.0f * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even_2 + 2.0f * odd_2;
    m[4] = even_2 - 2.0f * odd_2;
    m[5] = y[3];
}

#endif
