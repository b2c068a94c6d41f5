/* conv_scatter.h: backward-data into few channels (conv_scatter.c), a way of the method "product". */
#ifndef RESIN_OPS_CONV_SCATTER_H
#define RESIN_OPS_CONV_SCATTER_H

#include "core/ops/conv_call.h"

/* Whether so few channels are better scattered than gathered. */
bool conv_scatter_fits(const conv_shape *shape, conv_pass pass);
resin_status conv_scatter_run(resin_context *context, const conv_call *call);

#endif
