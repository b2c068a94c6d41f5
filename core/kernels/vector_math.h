/* vector_math.h: elementary functions of float32 vectors: what libm has for one number at a time,
 * for VECTOR_FLOATS at once. Polynomials and reductions after Moshier's Cephes library (single
 * precision), unless it says otherwise. None is off by more than two units in the last place, but
 * the sigmoid by 2.4 and the normal distribution by five (tests/c/test_functions.c measures it);
 * infinities, NaN, overflow and denormal numbers come out as they should. */
#ifndef RESIN_KERNELS_VECTOR_MATH_H
#define RESIN_KERNELS_VECTOR_MATH_H

#include "core/kernels/kernel.h"

#include <math.h>

typedef uint32_t vbits __attribute__((vector_size(VECTOR_FLOATS * 4)));

/* mask ? a : b by lane; a mask is what a comparison of two vectors gives: all ones or all zeros. */
static inline vfloat vselect(vint mask, vfloat a, vfloat b) {
    return (vfloat)((mask & (vint)a) | (~mask & (vint)b));
}
static inline vfloat vabs(vfloat x) { return (vfloat)((vbits)x & 0x7fffffffu); }
static inline vfloat vcopysign(vfloat size, vfloat sign) {
    return (vfloat)(((vbits)size & 0x7fffffffu) | ((vbits)sign & 0x80000000u));
}
/* NaN stays NaN. */
static inline vfloat vclamp(vfloat x, float low, float high) {
    x = vselect(x < vset(low), vset(low), x);
    return vselect(x > vset(high), vset(high), x);
}

/* x = k ln 2 + r with |r| <= ln 2 / 2. k is rounded by adding 1.5 * 2^23, which leaves it in the
 * last bits of the sum; ln 2 is split so that k times its first part is exact. */
static inline vfloat vreduce_ln2(vfloat x, vint *k) {
    const vfloat magic = vset(0x1.8p23f);
    vfloat shifted = x * 1.44269504088896341f + magic;
    vfloat rounded = shifted - magic;
    *k = (vint)shifted - (vint)magic;
    vfloat r = x - rounded * 0.693359375f;
    return r + rounded * 2.12194440e-4f;
}
/* 2^k for -126 <= k <= 127. */
static inline vfloat vpower_of_2(vint k) { return (vfloat)((vbits)(k + 127) << 23); }

/* e^r - 1 - r for |r| <= ln 2 / 2. */
static inline vfloat vexp_tail(vfloat r) {
    vfloat p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r);
}

/* e^x. The power of two is applied in two halves, so that overflow goes to infinity and the
 * denormal results are rounded once. */
static inline vfloat vexp(vfloat x) {
    vint k;
    vfloat r = vreduce_ln2(vclamp(x, -104, 89), &k);
    vfloat p = vexp_tail(r) + r + 1.0f;
    vint half = k >> 1;
    return p * vpower_of_2(half) * vpower_of_2(k - half);
}

/* e^x - 1, exact near 0, for x <= 88 (larger ones are cut off there). */
static inline vfloat vexpm1(vfloat x) {
    vint k;
    vfloat r = vreduce_ln2(vclamp(x, -30, 88), &k);
    vfloat scale = vpower_of_2(k);
    return scale * (vexp_tail(r) + r) + (scale - 1.0f);
}

/* ln x = e ln 2 + ln m with m in [sqrt(1/2), sqrt(2)). */
static inline vfloat vlog(vfloat x) {
    vint tiny = x < vset(0x1p-126f);
    vint bits = (vint)vselect(tiny, x * 0x1p23f, x);
    vint e = (vint)((vbits)bits - 0x3f3504f3u) >> 23;
    vfloat f = (vfloat)(vint)((vbits)bits - ((vbits)e << 23)) - 1.0f;
    vfloat exponent = __builtin_convertvector(e - (tiny & 23), vfloat);
    vfloat p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    vfloat square = f * f;
    vfloat y = p * f * square - exponent * 2.12194440e-4f;
    y = f + (y - square * 0.5f) + exponent * 0.693359375f;
    y = vselect(x < vset(INFINITY), y, x);    /* infinity and NaN are their own logarithms */
    y = vselect(x == vset(0), vset(-INFINITY), y);
    return vselect(x < vset(0), vset(NAN), y);
}

/* ln(1 + x) for x >= 0: the logarithm of the rounded sum, corrected by what rounding lost. */
static inline vfloat vlog1p(vfloat x) {
    vfloat sum = x + 1.0f;
    return vlog(sum) + (x - (sum - 1.0f)) / sum;
}

static inline vfloat vtanh(vfloat x) {
    vfloat size = vabs(x), z = x * x;
    vfloat p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    vfloat near = p * z * x + x;
    vfloat far = 1.0f - 2.0f / (vexp(size + size) + 1.0f);
    return vselect(size < vset(0.625f), near, vcopysign(far, x));
}

/* 1 / (1 + e^-x), from e^-|x| so that nothing overflows. */
static inline vfloat vsigmoid(vfloat x) {
    vfloat e = vexp((vfloat)((vbits)x | 0x80000000u));
    return vselect(x < vset(0), e, vset(1)) / (e + 1.0f);
}

/* e^(-x x / 2), exact to rounding: the error of the rounded square is found by splitting x (Dekker)
 * and put back as a factor. */
static inline vfloat vexp_minus_half_square(vfloat x) {
    vfloat high = (vfloat)((vbits)x & 0xfffff000u), low = x - high;
    vfloat square = x * x;
    vfloat lost = ((high * high - square) + 2.0f * high * low) + low * low;
    vfloat e = vexp(-0.5f * square);
    return e - e * (0.5f * lost);
}

/* The normal distribution, P(x) = erfc(-x / sqrt 2) / 2, with relative precision in the lower tail:
 * with s = |x| / sqrt 2, (1 + 2 s) e^(s s) erfc(s) is a smooth function of q = (s - 2) / (s + 2),
 * here a polynomial fitted at Chebyshev's nodes of 0 <= s <= 12 (relative error 1.4e-8). Below
 * |x| = 1 it is 1/2 + erf(x / sqrt 2) / 2 with Cephes' polynomial for erf. */
static inline vfloat vnormal(vfloat x) {
    vfloat size = vclamp(vabs(x), 0, 16), s = size * 0.70710678118654752440f, z = s * s;
    vfloat t = z * 7.853861353153693e-5f - 8.010193625184903e-4f;
    t = t * z + 5.188327685732524e-3f;
    t = t * z - 2.685381193529856e-2f;
    t = t * z + 1.128358514861418e-1f;
    t = t * z - 3.761262582423300e-1f;
    t = t * z + 1.128379165726710f;
    vfloat near = 0.5f + x * (0.35355339059327376220f * t);

    vfloat q = (s - 2.0f) / (s + 2.0f);
    vfloat p = q * 4.48822644e-5f - 3.26673613e-4f;
    p = p * q - 1.24959986e-3f;
    p = p * q + 1.23980085e-3f;
    p = p * q + 8.62515979e-3f;
    p = p * q - 8.03503582e-3f;
    p = p * q - 5.42006289e-2f;
    p = p * q + 1.64052191e-1f;
    p = p * q - 1.66031789e-1f;
    p = p * q - 9.27638708e-2f;
    p = p * q + 1.2769784f;
    vfloat tail = vexp_minus_half_square(size) * (0.5f * p / (1.0f + 2.0f * s));
    vfloat far = vselect(x > vset(0), 1.0f - tail, tail);
    return vselect(size < vset(1), near, far);
}

#endif
