/* optimizer_kernels.h: optimizer steps over one segment of the flat parameter buffer, one pass each:
 * weights, gradient and state are read and written once. */
#ifndef RESIN_KERNELS_OPTIMIZER_KERNELS_H
#define RESIN_KERNELS_OPTIMIZER_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* g below is scale * gradient + decay * w + l1 * sign(w), in each. */
typedef struct optimizer_step {
    float scale; /* clipping */
    float decay; /* L2, coupled: added to the gradient */
    float l1;
    float rate;  /* learning rate of the segment */
    float decoupled_decay; /* AdamW: w -= rate * decoupled_decay * w first */
    float momentum, dampening;
    bool nesterov, keras; /* SGD: whose rule */
    float beta1, beta2, epsilon;
    float correction1, correction2; /* Adam: 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
    bool keras_epsilon; /* Adam: epsilon inside the bias correction, as in Keras */
    float alpha; /* RMSprop: weight of the old value */
    bool centered; /* RMSprop, with the mean in a third state */
    bool first; /* the first step of this segment: velocity = gradient (PyTorch) */
} optimizer_step;

typedef struct optimizer_kernels {
    void (*sgd)(int64_t n, float *w, const float *gradient, float *velocity,
                const optimizer_step *step);
    void (*adam)(int64_t n, float *w, const float *gradient, float *m, float *v,
                 const optimizer_step *step);
    void (*rmsprop)(int64_t n, float *w, const float *gradient, float *square, float *velocity,
                    float *mean, const optimizer_step *step);
    /* Sum of squares of n values in double. */
    double (*sum_squares)(int64_t n, const float *x);
} optimizer_kernels;

#endif
