/* normalized.h: the output of a batch normalization with relu that is not computed unless somebody
 * needs it: y = relu(x * scale + shift) by channel. A convolution or a maximum over windows reads x
 * and normalizes while it reads, so that y never goes to memory. */
#ifndef RESIN_OPS_NORMALIZED_H
#define RESIN_OPS_NORMALIZED_H

#include "core/tensor/tensor.h"

/* y of the shape of the contiguous float32 x; scale and shift (a number for each channel) are
 * copied. */
resin_status normalized_new(resin_tensor *x, const float *scale, const float *shift,
                            resin_tensor **y);

typedef struct normalized_parts {
    const float *x, *scale, *shift;
} normalized_parts;

/* Whether y is such a tensor whose elements do not exist (yet), and what they are made of. */
bool normalized_read(const resin_tensor *y, normalized_parts *parts);

#endif
