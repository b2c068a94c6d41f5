/* optimizer_loops.h: the loops of optimizer.c, for float and double (see real.h). */
#include "core/kernels/real.h"

/* The numbers of a step, in the element type. */
typedef struct REAL_NAME(numbers) {
    real scale, decay, l1, shrink, rate, momentum, dampening;
} REAL_NAME(numbers);

static inline REAL_NAME(numbers) REAL_NAME(read_step)(const optimizer_step *step) {
    return (REAL_NAME(numbers)){(real)step->scale, (real)step->decay, (real)step->l1,
                                (real)step->shrink, (real)step->rate, (real)step->momentum,
                                (real)step->dampening};
}

static ALWAYS_INLINE real REAL_NAME(full_gradient)(real gradient, real w, REAL_NAME(numbers) s) {
    real sign = (real)((w > 0) - (w < 0));
    return s.scale * gradient + s.decay * w + s.l1 * sign;
}

/* ---- SGD ------------------------------------------------------------------------------------ */

static void REAL_NAME(sgd_plain)(int64_t n, real *w, const real *gradient, REAL_NAME(numbers) s) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real g = REAL_NAME(full_gradient)(gradient[i], w[i], s);
        w[i] = w[i] * s.shrink - s.rate * g;
    }
}

static ALWAYS_INLINE void REAL_NAME(sgd_pytorch)(int64_t n, real *w, const real *gradient,
                                          real *velocity, REAL_NAME(numbers) s, bool nesterov) {
    real taken = 1 - s.dampening;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real g = REAL_NAME(full_gradient)(gradient[i], w[i], s);
        real v = s.momentum * velocity[i] + taken * g;
        velocity[i] = v;
        w[i] = w[i] * s.shrink - s.rate * (nesterov ? g + s.momentum * v : v);
    }
}

static ALWAYS_INLINE void REAL_NAME(sgd_keras)(int64_t n, real *w, const real *gradient, real *velocity,
                                        REAL_NAME(numbers) s, bool nesterov) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real change = s.rate * REAL_NAME(full_gradient)(gradient[i], w[i], s);
        real v = s.momentum * velocity[i] - change;
        velocity[i] = v;
        w[i] = w[i] * s.shrink + (nesterov ? s.momentum * v - change : v);
    }
}

static void REAL_NAME(sgd)(int64_t n, void *w, const void *gradient, void *velocity,
                           const optimizer_step *step) {
    REAL_NAME(numbers) s = REAL_NAME(read_step)(step);
    if (!velocity) {
        REAL_NAME(sgd_plain)(n, w, gradient, s);
    } else if (step->keras) {
        if (step->nesterov) REAL_NAME(sgd_keras)(n, w, gradient, velocity, s, true);
        else REAL_NAME(sgd_keras)(n, w, gradient, velocity, s, false);
    } else {
        if (step->first) { /* the velocity is zero, so it becomes g */
            s.dampening = 0;
        }
        if (step->nesterov) REAL_NAME(sgd_pytorch)(n, w, gradient, velocity, s, true);
        else REAL_NAME(sgd_pytorch)(n, w, gradient, velocity, s, false);
    }
}

/* ---- Adam ----------------------------------------------------------------------------------- */

static void REAL_NAME(adam)(int64_t n, void *w_, const void *gradient_, void *m_, void *v_,
                            const optimizer_step *step) {
    REAL_NAME(numbers) s = REAL_NAME(read_step)(step);
    real *w = w_, *m = m_, *v = v_;
    const real *gradient = gradient_;
    real beta1 = (real)step->beta1, beta2 = (real)step->beta2;
    real rest1 = (real)(1 - step->beta1), rest2 = (real)(1 - step->beta2);
    real root_scale = (real)step->root_scale, epsilon = (real)step->epsilon;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real g = REAL_NAME(full_gradient)(gradient[i], w[i], s);
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * g * g;
        w[i] = w[i] * s.shrink - s.rate * m[i] / (real_sqrt(v[i]) * root_scale + epsilon);
    }
}

/* ---- RMSprop -------------------------------------------------------------------------------- */

static ALWAYS_INLINE void REAL_NAME(rmsprop_rows)(int64_t n, real *w, const real *gradient, real *square,
                                           real *velocity, real *mean,
                                           const optimizer_step *step) {
    REAL_NAME(numbers) s = REAL_NAME(read_step)(step);
    real alpha = (real)step->alpha, rest = (real)(1 - step->alpha);
    real outer = (real)step->outer, inner = (real)step->inner;
    real into = step->keras ? s.rate : 1, out = step->keras ? 1 : s.rate;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        real g = REAL_NAME(full_gradient)(gradient[i], w[i], s);
        real power = square[i] = alpha * square[i] + rest * g * g;
        if (mean) {
            mean[i] = alpha * mean[i] + rest * g;
            power -= mean[i] * mean[i];
        }
        real d = into * g / (real_sqrt(power + inner) + outer);
        if (velocity) d = velocity[i] = s.momentum * velocity[i] + d;
        w[i] = w[i] * s.shrink - out * d;
    }
}

static void REAL_NAME(rmsprop)(int64_t n, void *w, const void *gradient, void *square,
                               void *velocity, void *mean, const optimizer_step *step) {
    if (velocity && mean)
        REAL_NAME(rmsprop_rows)(n, w, gradient, square, velocity, mean, step);
    else if (velocity)
        REAL_NAME(rmsprop_rows)(n, w, gradient, square, velocity, NULL, step);
    else if (mean)
        REAL_NAME(rmsprop_rows)(n, w, gradient, square, NULL, mean, step);
    else
        REAL_NAME(rmsprop_rows)(n, w, gradient, square, NULL, NULL, step);
}

/* ---- Looking at gradients -------------------------------------------------------------------- */

static double REAL_NAME(sum_squares)(int64_t n, const void *x_) {
    const real *x = x_;
    double lane[8] = {0}; /* a fixed number of partial sums: the same order for every set */
    int64_t whole = n - n % 8;
    for (int64_t i = 0; i < whole; i += 8)
        for (int k = 0; k < 8; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
    for (int64_t i = whole; i < n; i++) lane[i - whole] += (double)x[i] * (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static bool REAL_NAME(finite)(int64_t n, const void *x_) {
    const real *x = x_;
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = 0; i < n; i++) bad |= !(x[i] - x[i] == 0);
    return !bad;
}

static void REAL_NAME(scale)(int64_t n, void *x_, double factor_) {
    real *x = x_, factor = (real)factor_;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}
