/* dispatch.c: which instruction set's kernels run.
 *
 * The sets are the levels of the x86-64 psABI (v2, v3, v4), and "generic", which every machine has.
 * The Makefile defines RESIN_HAVE_V2 and so on for the sets it built. RESIN_ISA in the environment
 * lowers the choice, so that a lower set can be tested and results of another machine repeated; a
 * set that was not built or that the processor lacks, and a name that is none, change nothing.
 */
#include "core/kernels/kernels.h"
#include "core/resin.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(RESIN_HAVE_V2) || defined(RESIN_HAVE_V3) || defined(RESIN_HAVE_V4)
#include <cpuid.h>

typedef struct processor_features {
    unsigned leaf1_ecx, leaf7_ebx, extended_ecx;
} processor_features;

static processor_features read_features(void) {
    processor_features features = {0, 0, 0};
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) features.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) features.leaf7_ebx = ebx;
    if (__get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx)) features.extended_ecx = ecx;
    return features;
}

static bool has_all(unsigned features, unsigned needed) {
    return (features & needed) == needed;
}

/* The features of each level: x86-64 psABI, section 3.1.1 ("Processor Architecture"). */
static bool processor_has_v2(void) {
    processor_features features = read_features();
    return has_all(features.leaf1_ecx, bit_CMPXCHG16B | bit_POPCNT | bit_SSE3 | bit_SSSE3 |
                                           bit_SSE4_1 | bit_SSE4_2) &&
           has_all(features.extended_ecx, bit_LAHF_LM);
}

static bool processor_has_v3(void) {
    processor_features features = read_features();
    /* The builtin also asks whether the system saves the wide registers. */
    return processor_has_v2() && __builtin_cpu_supports("avx2") &&
           has_all(features.leaf1_ecx, bit_AVX | bit_F16C | bit_FMA | bit_MOVBE | bit_OSXSAVE) &&
           has_all(features.leaf7_ebx, bit_AVX2 | bit_BMI | bit_BMI2) &&
           has_all(features.extended_ecx, bit_LZCNT);
}

static bool processor_has_v4(void) {
    processor_features features = read_features();
    return processor_has_v3() && __builtin_cpu_supports("avx512f") &&
           has_all(features.leaf7_ebx,
                   bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL);
}
#endif

static bool always(void) {
    return true;
}

/* table.c, once per set. */
void resin_kernel_fill_v4(resin_kernel_table *table);
void resin_kernel_fill_v3(resin_kernel_table *table);
void resin_kernel_fill_v2(resin_kernel_table *table);
void resin_kernel_fill_generic(resin_kernel_table *table);

typedef struct kernel_set {
    const char *isa;
    bool (*processor_has)(void);
    void (*fill)(resin_kernel_table *table);
} kernel_set;

/* The sets that were built, best first. */
static const kernel_set sets[] = {
#ifdef RESIN_HAVE_V4
    {"v4", processor_has_v4, resin_kernel_fill_v4},
#endif
#ifdef RESIN_HAVE_V3
    {"v3", processor_has_v3, resin_kernel_fill_v3},
#endif
#ifdef RESIN_HAVE_V2
    {"v2", processor_has_v2, resin_kernel_fill_v2},
#endif
    {"generic", always, resin_kernel_fill_generic},
};
enum { SET_COUNT = sizeof sets / sizeof sets[0] };

/* Written once, read by every context. A set that the processor lacks has no name in its table. */
static resin_kernel_table tables[SET_COUNT];
static const resin_kernel_table *chosen;
static pthread_once_t filled = PTHREAD_ONCE_INIT;

static const resin_kernel_table *find_table(const char *isa) {
    for (int i = 0; i < SET_COUNT; i++) {
        if (tables[i].isa && strcmp(tables[i].isa, isa) == 0) return &tables[i];
    }
    return NULL;
}

static void fill_tables(void) {
    for (int i = 0; i < SET_COUNT; i++) {
        if (!sets[i].processor_has()) continue;
        sets[i].fill(&tables[i]);
        if (!chosen) chosen = &tables[i];
    }
    const char *wanted = getenv("RESIN_ISA");
    const resin_kernel_table *lower = wanted ? find_table(wanted) : NULL;
    if (lower) chosen = lower;
}

const resin_kernel_table *resin_kernels(void) {
    pthread_once(&filled, fill_tables);
    return chosen;
}

const resin_kernel_table *resin_kernels_of(const char *isa) {
    pthread_once(&filled, fill_tables);
    return find_table(isa);
}

const char *resin_instruction_set(void) {
    return resin_kernels()->isa;
}
