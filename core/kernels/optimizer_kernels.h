/* optimizer_kernels.h: optimizer steps over a run of parameters in one pass: weights, gradient and
 * state are read and written once. The same loops exist for float and double; arrays given as void
 * pointers have that type. */
#ifndef RESIN_KERNELS_OPTIMIZER_KERNELS_H
#define RESIN_KERNELS_OPTIMIZER_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* In each step g = scale * gradient + decay * w + l1 * sign(w), and w is first multiplied by
 * `shrink` (decoupled weight decay; g is taken before). */
typedef struct optimizer_step {
    double scale; /* clipping */
    double decay, l1;
    double shrink; /* 1: none */
    double rate;
    double momentum, dampening;
    bool nesterov;
    bool keras; /* SGD and RMSprop: the learning rate goes into the velocity */
    bool first; /* SGD (PyTorch): the first step of a parameter takes velocity = g */
    double beta1, beta2;
    double epsilon;
    double root_scale;   /* Adam: w -= rate * m / (sqrt(v) * root_scale + epsilon); */
    double outer, inner; /* RMSprop: epsilon, outside of the root (PyTorch) or inside (Keras) */
    double alpha;        /* RMSprop: weight of the old mean square */
} optimizer_step;

typedef struct optimizer_loops {
    /* PyTorch: v = m v + (1 - dampening) g; w -= rate * (nesterov ? g + m v : v)
     * Keras:   v = m v - rate g;            w += nesterov ? m v - rate g : v
     * velocity may be NULL: w -= rate * g. */
    void (*sgd)(int64_t n, void *w, const void *gradient, void *velocity,
                const optimizer_step *step);
    /* m and v: running means of g and g^2. */
    void (*adam)(int64_t n, void *w, const void *gradient, void *m, void *v,
                 const optimizer_step *step);
    /* s = alpha s + (1 - alpha) g^2; with `mean` (or NULL), centered: s - mean^2 under the root;
     * d = g / (sqrt(s + inner) + outer); with `velocity` (or NULL)
     * PyTorch: velocity = m velocity + d;       w -= rate * velocity
     * Keras:   velocity = m velocity + rate * d; w -= velocity */
    void (*rmsprop)(int64_t n, void *w, const void *gradient, void *square, void *velocity,
                    void *mean, const optimizer_step *step);
    /* Sum of squares in double. */
    double (*sum_squares)(int64_t n, const void *x);
    /* Whether all are finite. */
    bool (*finite)(int64_t n, const void *x);
    /* x *= factor. */
    void (*scale)(int64_t n, void *x, double factor);
} optimizer_loops;

typedef struct optimizer_kernels {
    optimizer_loops of[2]; /* RESIN_FLOAT32, RESIN_FLOAT64 */
} optimizer_kernels;

#endif
