/* profile.h: records what resin_profile_start asked for. Each place that records calls
 * profile_begin before its work and profile_end behind it; where no profile is wanted both are one
 * test of a flag. */
#ifndef RESIN_BASE_PROFILE_H
#define RESIN_BASE_PROFILE_H

#include "core/base/context.h"

/* Seconds of a clock that only goes forward. */
double resin_seconds(void);

static inline double profile_begin(const resin_context *context) {
    return context->profile.on ? resin_seconds() : 0;
}

/* Records an event with the mark of now and the seconds since `begun`, unless that is 0. */
void profile_add(resin_context *context, double begun, resin_profile_event event);
static inline void profile_end(resin_context *context, double begun, resin_profile_event event) {
    if (begun != 0) profile_add(context, begun, event);
}

#endif
