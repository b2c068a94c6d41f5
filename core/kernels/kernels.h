/* kernels.h: the table of kernels: one filled table per instruction set, chosen once at run time
 * (dispatch.c). Each kernel's meaning stands in its own header. */
#ifndef RESIN_KERNELS_KERNELS_H
#define RESIN_KERNELS_KERNELS_H

#include "core/kernels/conv_kernels.h"
#include "core/kernels/pointwise.h"
#include "core/kernels/norm_kernels.h"
#include "core/kernels/optimizer_kernels.h"
#include "core/kernels/pool_kernels.h"
#include "core/kernels/peak.h"

typedef struct resin_kernel_table {
    const char *isa;
    conv_kernels conv;
    pointwise_kernels pointwise;
    norm_kernels norm;
    optimizer_kernels optimizer;
    pool_kernels pool;
    peak_kernels peak;
} resin_kernel_table;

/* The kernels of this processor, or of the lower set that RESIN_ISA names. */
const resin_kernel_table *resin_kernels(void);
/* The kernels of one set, NULL if it was not built or the processor lacks it: for tests. */
const resin_kernel_table *resin_kernels_of(const char *isa);

#endif
