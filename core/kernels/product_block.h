/* product_block.h: the size of the register block of the matrix product (product.c). */
#ifndef RESIN_KERNELS_PRODUCT_BLOCK_H
#define RESIN_KERNELS_PRODUCT_BLOCK_H

#include "core/kernels/kernel.h"

#if VECTOR_FLOATS == 16
#define BLOCK_ROWS 14
#else
#define BLOCK_ROWS 6
#endif
#define BLOCK_COLUMNS (2 * VECTOR_FLOATS)

#endif
