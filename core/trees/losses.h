/* losses.h: what boosting asks of a loss: first values, gradients, values of leaves. */
#ifndef RESIN_TREES_LOSSES_H
#define RESIN_TREES_LOSSES_H

#include "core/base/context.h"

typedef struct weighted_value {
    double value, weight;
} weighted_value;

/* A training set in the course of a fit. Arrays are by row of the table. */
typedef struct boosting_data {
    resin_context *context;
    const resin_trees_settings *settings;
    int64_t rows, outputs;
    const double *y;      /* for the log loss: the class, from 0 */
    const double *weight; /* NULL: all 1 */
    double *score;        /* (outputs, rows): the sums so far */
    double *target;       /* (outputs, rows): negative gradients */
    double *hessian;      /* (outputs, rows): second derivatives; NULL where nobody asks */
    double gamma;         /* Huber's: where the loss becomes linear */
    weighted_value *pair; /* (rows): values to select from */
} boosting_data;

/* The best constant for each output. */
void loss_start(const boosting_data *data, const uint32_t *rows, int64_t count, double *initial);
/* Fills `target` and `hessian` for these rows, and gamma from them. */
void loss_gradient(boosting_data *data, const uint32_t *rows, int64_t count);
/* The value of a leaf with these rows, by scikit-learn's rules; pair[first ...] is scratch. */
double loss_leaf(const boosting_data *data, const uint32_t *rows, int64_t first, int64_t count,
                 int64_t output);
/* The mean loss over rows, with scikit-learn's constants. */
double loss_mean(const boosting_data *data, const uint32_t *rows, int64_t count);

#endif
