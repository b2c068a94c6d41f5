/* conv_names.h: names of the convolution kernels of one instruction set, which the kernel files
 * share; everybody else calls them through the table (conv_kernels.h says what they do). */
#ifndef RESIN_KERNELS_CONV_NAMES_H
#define RESIN_KERNELS_CONV_NAMES_H

#include "core/kernels/conv_kernels.h"
#include "core/kernels/kernel.h"

void KERNEL(product_panel)(int64_t rows, int columns, int64_t depth, const float *a,
                           int64_t a_step, bool a_by_columns, const float *b, int64_t b_step,
                           float *c, int64_t c_step, bool accumulate);
void KERNEL(product_ahead)(int64_t rows, int columns, int64_t depth, const float *a,
                           int64_t a_step, bool a_by_columns, const float *b, int64_t b_step,
                           float *c, int64_t c_step, bool accumulate);
void KERNEL(product_segments)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                              int columns, int64_t depth, const float *a, int64_t a_step,
                              bool a_by_columns, const float *b, int64_t b_step, float *c,
                              int64_t c_step, bool accumulate, const conv_epilogue *epilogue);
#if VECTOR_FLOATS == 16
/* `product` of matrices of rows of one vector, without gaps: a by rows, or as many of its columns. */
void KERNEL(product_narrow)(int64_t rows, const float *a, const float *b, float *c);
void KERNEL(product_narrow_columns)(int64_t depth, const float *a, const float *b, float *c,
                                    bool accumulate);
#endif
void KERNEL(product_fetch)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                           int columns, int64_t depth, const float *a, int64_t a_step,
                           bool a_by_columns, const float *b, int64_t b_step, float *c,
                           int64_t c_step, bool accumulate, const conv_fetch *fetch,
                           const conv_epilogue *epilogue);
void KERNEL(few_rows)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_row,
                      int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step);
void KERNEL(few_dots)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_step,
                      const float *b, int64_t b_step, float *c, int64_t c_step, bool accumulate);
void KERNEL(few_outer)(int depth, int64_t rows, int64_t columns, const float *a, int64_t a_row,
                       int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step,
                       bool accumulate, bool past);
void KERNEL(pack)(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                  bool transposed, float *to, int64_t width);
void KERNEL(normalize)(int64_t pixels, int64_t channels, const float *x, int64_t x_step,
                       const float *scale, const float *shift, float *to, int64_t to_step);
void KERNEL(normalize_sum)(int64_t pixels, int64_t channels, const float *x, const float *scale,
                           const float *shift, const float *shortcut, const float *sum_scale,
                           const float *sum_shift, float *to);
void KERNEL(finish)(int64_t pixels, int64_t channels, const float *z, int64_t z_step,
                    const conv_epilogue *epilogue, float *y, int64_t y_step);
void KERNEL(fold_norm)(int64_t channels, const float *mean, const float *variance,
                       const float *gamma, const float *beta, const float *bias, double epsilon,
                       float *scale, float *shift);
void KERNEL(norm_gradient)(int64_t pixels, int64_t channels, const float *dy, const float *x,
                           int64_t x_step, const conv_norm *norm, int64_t first, float *to,
                           int64_t to_step);
void KERNEL(column_sums)(int64_t rows, int64_t columns, const float *a, int64_t a_step, float *sums,
                         bool accumulate);
void KERNEL(strassen_sums)(int64_t rows, int64_t columns, float sign, const float *const x[4],
                           int64_t x_step, float *to, int64_t to_step, int64_t plane);
void KERNEL(strassen_block)(const strassen_block *block);
void KERNEL(add_patches)(int64_t pixels, int64_t runs, int64_t length, const float *from,
                         int64_t from_step, float *to, int64_t to_row, int64_t to_step);
void KERNEL(winograd_input)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                            int64_t row_step, int64_t pixel_step, float *v, int64_t v_step,
                            int64_t plane);
void KERNEL(winograd_output)(int taps, int64_t channels, const float *m, int64_t plane,
                             const float *bias, float *pixels, int64_t row_step,
                             int64_t pixel_step, int rows, int columns, bool add,
                             const conv_epilogue *epilogue);
void KERNEL(winograd_gradient)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                               int64_t row_step, int64_t pixel_step, float *m, int64_t m_step,
                               int64_t plane);
void KERNEL(winograd_weights)(int taps, int64_t rows, int64_t columns, const float *w,
                              int64_t tap_step, int64_t row_step, bool rotated, float *u,
                              int64_t plane, int64_t width);
void KERNEL(winograd_few)(const winograd_few *call, float *scratch);
void KERNEL(winograd_weights_gradient)(int taps, int64_t rows, int64_t columns, const float *du,
                                       int64_t plane, int64_t width, float *dw, int64_t tap_step,
                                       int64_t row_step);
void KERNEL(phases_source)(int64_t items, int64_t channels, const float *from,
                           phases_steps from_steps, float *to, phases_steps to_steps);
/* Tiles whose sums stay in registers, with two vectors of each. */
enum { PHASES_TILES = VECTOR_FLOATS == 16 ? 7 : 6 };
void KERNEL(phases_row)(int columns, int64_t lanes, const float *v, phases_steps v_steps,
                        const float *u, float *half);
void KERNEL(phases_gradient)(int64_t items, int64_t channels, const float *from,
                             phases_steps from_steps, float *to, phases_steps to_steps);
void KERNEL(phases_finish)(int64_t channels, const float *from, phases_steps from_steps,
                           const float *bias, const conv_epilogue *epilogue, float *to,
                           int64_t row_step, int64_t pixel_step, int rows, int columns);
void KERNEL(phases_weights)(int64_t channels, const float *w, int64_t tap_step, float *u,
                            int64_t point_step);
void KERNEL(phases_weights_gradient)(int64_t channels, const float *du, int64_t point_step,
                                     float *dw, int64_t tap_step);
void KERNEL(strided_transform)(strided_kind name, int64_t channels, const float *from,
                               const strided_steps *steps, float *to,
                               const strided_steps *to_steps);
void KERNEL(strided_result)(strided_kind name, int64_t channels, const float *from,
                            const strided_steps *steps, const strided_result *result);
void KERNEL(grouped_rows)(const grouped_shape *shape, const grouped_rows *rows,
                          const float *weights);
void KERNEL(grouped_gradient)(const grouped_shape *shape, const grouped_pixels *pixels,
                              float *sums);
void KERNEL(grouped_copy)(int64_t pixels, int64_t channels, int lanes, const float *x,
                          int64_t x_step, const float *scale, const float *shift, float *to,
                          int64_t plane);
void KERNEL(grouped_spread)(int64_t pixels, int lanes, int64_t group_in, int64_t group_out,
                            const float *x, int64_t x_step, const float *scale,
                            const float *shift, float *to, int64_t plane);

#endif
