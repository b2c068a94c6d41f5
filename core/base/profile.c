/* profile.c: the events of a profile, in memory that is reserved when it starts, so that recording
 * can neither fail nor take anything from the arena that it measures. */
#include "core/base/profile.h"

#include <stdlib.h>
#include <time.h>

double resin_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

resin_status resin_profile_start(resin_context *context, int64_t capacity) {
    profile_state *p = &context->profile;
    if (capacity < 0 || (uint64_t)capacity > SIZE_MAX / sizeof *p->event)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "profile: cannot keep %lld events", (long long)capacity);
    if (capacity != p->capacity) {
        resin_profile_event *event = calloc((size_t)capacity + 1, sizeof *event);
        if (!event)
            return resin_fail(context, RESIN_ERROR_MEMORY,
                              "profile: out of memory for %lld events", (long long)capacity);
        free(p->event);
        p->event = event;
        p->capacity = capacity;
    }
    p->count = p->lost = p->mark = 0;
    p->on = true;
    return RESIN_OK;
}

void resin_profile_stop(resin_context *context) { context->profile.on = false; }

int64_t resin_profile_mark(resin_context *context, int64_t mark) {
    int64_t before = context->profile.mark;
    context->profile.mark = mark;
    return before;
}

int64_t resin_profile_events(const resin_context *context, const resin_profile_event **events,
                             int64_t *lost) {
    *events = context->profile.event;
    *lost = context->profile.lost;
    return context->profile.count;
}

void profile_add(resin_context *context, double begun, resin_profile_event event) {
    profile_state *p = &context->profile;
    event.seconds = resin_seconds() - begun;
    event.mark = p->mark;
    if (p->count == p->capacity)
        p->lost++;
    else
        p->event[p->count++] = event;
}
