/* table.c: the table of kernels of one instruction set (compiled once for each). */
#include "core/kernels/kernel.h"
#include "core/kernels/kernels.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

extern const conv_kernels KERNEL(conv);
extern const pointwise_kernels KERNEL(pointwise);
extern const norm_kernels KERNEL(norm);
extern const optimizer_kernels KERNEL(optimizer);
extern const pool_kernels KERNEL(pool);
extern const peak_kernels KERNEL(peak);

void KERNEL(fill)(resin_kernel_table *table);
void KERNEL(fill)(resin_kernel_table *table) {
    table->isa = STRING(KERNEL_ISA);
    table->conv = KERNEL(conv);
    table->pointwise = KERNEL(pointwise);
    table->norm = KERNEL(norm);
    table->optimizer = KERNEL(optimizer);
    table->pool = KERNEL(pool);
    table->peak = KERNEL(peak);
}
