/* parameters.h: parameters in one flat buffer: the internal side. */
#ifndef RESIN_OPTIM_PARAMETERS_H
#define RESIN_OPTIM_PARAMETERS_H

#include "core/tensor/tensor.h"

/* A run of elements of one segment. Pieces of work are runs that follow each other: small segments
 * share a piece, large ones take several. Cut once, by the segments' lengths. */
typedef struct parameter_run {
    int segment;
    int64_t first, length; /* in the flat buffers */
} parameter_run;

struct resin_parameters {
    atomic_int references;
    resin_context *context; /* held */
    resin_dtype dtype;
    resin_tensor *flat, *flat_grad;
    int count;
    resin_tensor **tensor, **grad; /* by segment, held: the parameter, its part of flat_grad */
    resin_segment *segment;
    bool *active; /* by segment, while a sweep runs: it has a gradient and is not frozen */
    parameter_run *run;
    int64_t runs, pieces;
    int64_t *piece_first; /* pieces + 1 */
};

/* Brings stray gradients into the flat buffer and sets `active`; an error if a parameter's storage
 * is no longer the flat buffer. */
resin_status parameters_prepare(resin_parameters *parameters);
/* body(argument, run) for the runs of all active segments, in parallel. */
typedef void (*parameters_body)(void *argument, int64_t run);
void parameters_sweep(resin_parameters *parameters, parameters_body body, void *argument);
/* The norm of the active segments' gradients. */
resin_status parameters_norm(resin_parameters *parameters, double *norm);

static inline void *parameters_at(const resin_parameters *parameters, const resin_tensor *flat,
                                  int64_t element) {
    return (char *)tensor_data(flat) + (size_t)element * resin_dtype_size(parameters->dtype);
}

#endif
