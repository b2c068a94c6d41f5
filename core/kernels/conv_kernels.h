#ifndef RESIN_KERNELS_CONV_KERNELS_H
#define RESIN_KERNELS_CONV_KERNELS_H
#include <stdint.h>
#include <stdbool.h>
typedef struct conv_kernels { int vector; } conv_kernels;
#endif
