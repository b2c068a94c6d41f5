/* normalized.h: the output of a batch normalization that is not computed unless somebody needs it:
 *
 *   y = x * scale + shift                       by channel
 *   y = relu(x * scale + shift)
 *   y = relu(x * scale + shift + shortcut)
 *
 * A convolution or a maximum over windows reads x and normalizes while it reads: y of the second
 * kind never goes to memory. y of the third is written by a convolution on the way, which saves a
 * pass; a shortcut may itself be y of the first kind, which then is not computed either. */
#ifndef RESIN_OPS_NORMALIZED_H
#define RESIN_OPS_NORMALIZED_H

#include "core/ops/conv.h"
#include "core/tensor/tensor.h"

/* y of the shape of the contiguous float32 x; scale and shift (a number for each channel) are
 * copied. A shortcut (or NULL), of the same shape and type and only with relu, must not be changed
 * before y is computed: that is an error then. */
resin_status normalized_new(resin_tensor *x, const float *scale, const float *shift, bool relu,
                            resin_tensor *shortcut, resin_tensor **y);

/* The sum's `to` is the reader's. */
typedef struct normalized_parts {
    const float *x, *scale, *shift;
    conv_sum sum;
} normalized_parts;

/* Whether y is such a tensor, with relu, whose elements do not exist (yet), and what they are made
 * of; of those with a shortcut only the second tells. */
bool normalized_read(const resin_tensor *y, normalized_parts *parts);
bool normalized_read_sum(const resin_tensor *y, normalized_parts *parts);

#endif
