/* sanitize.h: AddressSanitizer sees what the system gave, not the arena's reuse of it: the arena
 * tells it what may be touched. */
#ifndef RESIN_BASE_SANITIZE_H
#define RESIN_BASE_SANITIZE_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#endif
