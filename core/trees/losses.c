/* losses.c: the losses of boosting. Formulas and constants are those of scikit-learn 1.2
 * (ensemble/_gb_losses.py), after Friedman 2001. */
#include "core/trees/losses.h"

#include "core/base/threads.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { ROW_GRAIN = 8192 };

static inline double weight_of(const boosting_data *data, uint32_t row) {
    return data->weight ? data->weight[row] : 1;
}

/* ---- Quantiles ------------------------------------------------------------------------------ */

static int compare_values(const void *a, const void *b) {
    double x = ((const weighted_value *)a)->value, y = ((const weighted_value *)b)->value;
    return (x > y) - (x < y);
}

/* Moves the value of rank `rank` to its place, smaller ones before it: Hoare's selection, with the
 * median of three as the pivot. */
static double select_rank(weighted_value *pair, int64_t count, int64_t rank) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        double a = pair[low].value, b = pair[(low + high) / 2].value, c = pair[high].value;
        double pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        int64_t i = low, j = high;
        while (i <= j) {
            while (pair[i].value < pivot) i++;
            while (pair[j].value > pivot) j--;
            if (i > j) break;
            weighted_value swap = pair[i];
            pair[i++] = pair[j];
            pair[j--] = swap;
        }
        if (rank <= j) high = j;
        else if (rank >= i) low = i;
        else break;
    }
    return pair[rank].value;
}

/* The lowest value up to which the weights make the part `quantile` of all
 * (sklearn.utils.stats._weighted_percentile). */
static double weighted_quantile(weighted_value *pair, int64_t count, double quantile,
                                bool weighted) {
    double total = 0, sum = 0;
    /* The way there through a percentage is part of the result. */
    double part = quantile * 100 / 100;
    if (!weighted) {
        double wanted = part * (double)count;
        int64_t rank = (int64_t)ceil(wanted) - 1;
        return select_rank(pair, count, rank < 0 ? 0 : rank >= count ? count - 1 : rank);
    }
    qsort(pair, (size_t)count, sizeof *pair, compare_values);
    for (int64_t i = 0; i < count; i++) total += pair[i].weight;
    double wanted = part * total;
    if (wanted == 0) wanted = nextafter(0, 1);
    for (int64_t i = 0; i < count; i++) {
        sum += pair[i].weight;
        if (sum >= wanted) return pair[i].value;
    }
    return pair[count - 1].value;
}

/* numpy's percentile: between the neighbours of rank quantile * (count - 1). */
static double interpolated_quantile(weighted_value *pair, int64_t count, double quantile) {
    double rank = quantile * 100 / 100 * (double)(count - 1);
    int64_t lower = (int64_t)floor(rank);
    double low = select_rank(pair, count, lower), part = rank - (double)lower;
    if (lower + 1 >= count) return low;
    double high = select_rank(pair + lower + 1, count - lower - 1, 0);
    return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
}

/* ---- The best constant ---------------------------------------------------------------------- */

static double mean_of_y(const boosting_data *data, const uint32_t *rows, int64_t count) {
    double sum = 0, weight = 0;
    for (int64_t i = 0; i < count; i++) {
        double w = weight_of(data, rows[i]);
        sum += w * data->y[rows[i]];
        weight += w;
    }
    return sum / weight;
}

static double quantile_of_y(const boosting_data *data, const uint32_t *rows, int64_t count,
                            double quantile) {
    for (int64_t i = 0; i < count; i++)
        data->pair[i] = (weighted_value){data->y[rows[i]], weight_of(data, rows[i])};
    return data->weight ? weighted_quantile(data->pair, count, quantile, true)
                        : interpolated_quantile(data->pair, count, quantile);
}

/* Log odds, or logarithms of the classes' parts, kept away from 0 and 1. */
static void class_scores(const boosting_data *data, const uint32_t *rows, int64_t count,
                         double *initial) {
    for (int64_t k = 0; k < data->outputs; k++) {
        double class = data->outputs == 1 ? 1 : (double)k, here = 0, all = 0;
        for (int64_t i = 0; i < count; i++) {
            double w = weight_of(data, rows[i]);
            all += w;
            if (data->y[rows[i]] == class) here += w;
        }
        double part = fmin(fmax(here / all, FLT_EPSILON), 1 - (double)FLT_EPSILON);
        initial[k] = data->outputs == 1 ? log(part / (1 - part)) : log(part);
    }
}

void loss_start(const boosting_data *data, const uint32_t *rows, int64_t count, double *initial) {
    const resin_trees_settings *s = data->settings;
    switch (s->loss) {
    case RESIN_TREES_SQUARED: initial[0] = mean_of_y(data, rows, count); break;
    case RESIN_TREES_ABSOLUTE:
    case RESIN_TREES_HUBER: initial[0] = quantile_of_y(data, rows, count, 0.5); break;
    case RESIN_TREES_QUANTILE: initial[0] = quantile_of_y(data, rows, count, s->alpha); break;
    case RESIN_TREES_LOG: class_scores(data, rows, count, initial); break;
    }
}

/* ---- Gradients ------------------------------------------------------------------------------ */

typedef struct gradient_work {
    boosting_data *data;
    const uint32_t *rows;
    int64_t count, pieces;
    double *partial; /* by piece */
} gradient_work;

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* log(sum of exp) of a row's scores. */
static double log_sum(const boosting_data *d, uint32_t row) {
    double top = d->score[row], sum = 0;
    for (int64_t k = 1; k < d->outputs; k++) top = fmax(top, d->score[k * d->rows + row]);
    for (int64_t k = 0; k < d->outputs; k++) sum += exp(d->score[k * d->rows + row] - top);
    return top + log(sum);
}

static void class_gradient(boosting_data *d, uint32_t row) {
    double normal = d->outputs > 1 ? log_sum(d, row) : 0;
    for (int64_t k = 0; k < d->outputs; k++) {
        int64_t at = k * d->rows + row;
        double p = d->outputs > 1 ? exp(d->score[at] - normal) : sigmoid(d->score[at]);
        double y = d->outputs > 1 ? d->y[row] == (double)k : d->y[row];
        d->target[at] = y - p;
        if (d->hessian) d->hessian[at] = p * (1 - p);
    }
}

static double value_gradient(const boosting_data *d, double difference) {
    switch (d->settings->loss) {
    case RESIN_TREES_ABSOLUTE: return difference > 0 ? 1 : -1;
    case RESIN_TREES_HUBER:
        return fabs(difference) <= d->gamma ? difference : copysign(d->gamma, difference);
    case RESIN_TREES_QUANTILE:
        return difference > 0 ? d->settings->alpha : -(1 - d->settings->alpha);
    default: return difference;
    }
}

static void gradient_piece(void *argument, int64_t piece, int worker) {
    const gradient_work *work = argument;
    boosting_data *d = work->data;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(work->count, work->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        uint32_t row = work->rows[i];
        if (d->settings->loss == RESIN_TREES_LOG) {
            class_gradient(d, row);
            continue;
        }
        d->target[row] = value_gradient(d, d->y[row] - d->score[row]);
    }
}

/* The quantile `alpha` of |y - f|. */
static void find_gamma(boosting_data *d, const uint32_t *rows, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        d->pair[i] = (weighted_value){fabs(d->y[rows[i]] - d->score[rows[i]]),
                                      weight_of(d, rows[i])};
    d->gamma = weighted_quantile(d->pair, count, d->settings->alpha, d->weight != NULL);
}

void loss_gradient(boosting_data *d, const uint32_t *rows, int64_t count) {
    gradient_work work = {.data = d, .rows = rows, .count = count,
                          .pieces = resin_piece_count(count, ROW_GRAIN)};
    if (d->settings->loss == RESIN_TREES_HUBER) find_gamma(d, rows, count);
    resin_parallel(d->context, work.pieces, gradient_piece, &work);
}

/* ---- Values of leaves ----------------------------------------------------------------------- */

/* Friedman's Newton step of the log loss; with K classes times (K - 1) / K. */
static double newton_leaf(const boosting_data *d, const uint32_t *rows, int64_t count,
                          int64_t output) {
    double numerator = 0, denominator = 0;
    const double *target = d->target + output * d->rows;
    for (int64_t i = 0; i < count; i++) {
        uint32_t row = rows[i];
        double w = weight_of(d, row), g = target[row];
        double y = d->outputs > 1 ? d->y[row] == (double)output : d->y[row];
        numerator += w * g;
        denominator += w * (y - g) * (1 - y + g);
    }
    if (d->outputs > 1) numerator *= (double)(d->outputs - 1) / (double)d->outputs;
    return fabs(denominator) < 1e-150 ? 0 : numerator / denominator;
}

/* The median, and what is beside it up to gamma: one step of Huber's estimate. */
static double huber_leaf(const boosting_data *d, weighted_value *pair, int64_t count) {
    double median = weighted_quantile(pair, count, 0.5, d->weight != NULL), sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double difference = pair[i].value - median;
        sum += copysign(fmin(fabs(difference), d->gamma), difference);
    }
    return median + sum / (double)count;
}

double loss_leaf(const boosting_data *d, const uint32_t *rows, int64_t first, int64_t count,
                 int64_t output) {
    if (d->settings->loss == RESIN_TREES_LOG) return newton_leaf(d, rows + first, count, output);
    weighted_value *pair = d->pair + first;
    for (int64_t i = 0; i < count; i++) {
        uint32_t row = rows[first + i];
        pair[i] = (weighted_value){d->y[row] - d->score[row], weight_of(d, row)};
    }
    if (d->settings->loss == RESIN_TREES_HUBER) return huber_leaf(d, pair, count);
    double quantile = d->settings->loss == RESIN_TREES_ABSOLUTE ? 0.5 : d->settings->alpha;
    return weighted_quantile(pair, count, quantile, d->weight != NULL);
}

/* ---- The loss itself ------------------------------------------------------------------------ */

static double row_loss(const boosting_data *d, uint32_t row) {
    double y = d->y[row], score = d->score[row], difference = y - score;
    double alpha = d->settings->alpha, size = fabs(difference);
    switch (d->settings->loss) {
    case RESIN_TREES_SQUARED: return difference * difference;
    case RESIN_TREES_ABSOLUTE: return size;
    case RESIN_TREES_HUBER:
        return size <= d->gamma ? 0.5 * difference * difference
                                : d->gamma * (size - d->gamma / 2);
    case RESIN_TREES_QUANTILE: return difference > 0 ? alpha * size : (1 - alpha) * size;
    default: break;
    }
    if (d->outputs > 1) return log_sum(d, row) - d->score[(int64_t)y * d->rows + row];
    /* log(1 + exp(score)) without overflow; the deviance of two classes is twice the log loss. */
    double soft = score > 0 ? score + log1p(exp(-score)) : log1p(exp(score));
    return 2 * (soft - y * score);
}

static void mean_piece(void *argument, int64_t piece, int worker) {
    const gradient_work *work = argument;
    int64_t first, last;
    double sum = 0, weight = 0;
    (void)worker;
    resin_piece_bounds(work->count, work->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        double w = weight_of(work->data, work->rows[i]);
        sum += w * row_loss(work->data, work->rows[i]);
        weight += w;
    }
    work->partial[2 * piece] = sum;
    work->partial[2 * piece + 1] = weight;
}

double loss_mean(const boosting_data *data, const uint32_t *rows, int64_t count) {
    enum { MAX_PIECES = 256 }; /* of resin_piece_count */
    double partial[2 * MAX_PIECES], sum = 0, weight = 0;
    boosting_data copy = *data;
    gradient_work work = {.data = &copy, .rows = rows, .count = count,
                          .pieces = resin_piece_count(count, ROW_GRAIN), .partial = partial};
    resin_parallel(data->context, work.pieces, mean_piece, &work);
    for (int64_t piece = 0; piece < work.pieces; piece++) {
        sum += partial[2 * piece];
        weight += partial[2 * piece + 1];
    }
    return sum / weight;
}
