/* fuzz_files.c: the parsers of safetensors, npy, IDX, PNG and JPEG files on bytes nobody meant.
 *
 * An input's first byte chooses the parser, the rest is the file. Whatever the file, the engine
 * gives RESIN_OK or RESIN_ERROR_FILE (or _MEMORY), holds nothing afterwards, and takes no more
 * memory than the file can account for. Three ways to run it:
 *
 *     make fuzz                        a fixed number of mutated inputs, the same each time
 *     BUILD/tests/fuzz_files N SEED    N inputs from another seed; with files as arguments, these
 *     clang -fsanitize=fuzzer,address -DRESIN_LIBFUZZER ...   libFuzzer (AFL has the same entry) */
#include "core/resin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_INPUT = 1 << 16, PARSERS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The file that the parsers read: in memory where the system can. */
static int fuzz_file = -1;
static char fuzz_path[64];
static bool fuzz_file_named;

static void fail(const char *message) {
    fprintf(stderr, "fuzz_files: %s\n", message);
    abort();
}

static void open_fuzz_file(void) {
#ifdef __linux__
    fuzz_file = memfd_create("resin-fuzz", 0);
    snprintf(fuzz_path, sizeof fuzz_path, "/proc/self/fd/%d", fuzz_file);
#else
    snprintf(fuzz_path, sizeof fuzz_path, "/tmp/resin-fuzz-XXXXXX");
    fuzz_file = mkstemp(fuzz_path);
    fuzz_file_named = fuzz_file >= 0;
#endif
    if (fuzz_file < 0) fail("cannot make a temporary file");
}

static void write_fuzz_file(const uint8_t *data, size_t size) {
    if (ftruncate(fuzz_file, 0) != 0 || pwrite(fuzz_file, data, size, 0) != (ssize_t)size)
        fail("cannot write the temporary file");
}

static resin_status parse_safetensors(resin_context *context) {
    resin_safetensors *file = NULL;
    resin_status status = resin_safetensors_open(context, fuzz_path, &file);
    for (int64_t i = 0; status == RESIN_OK && i < resin_safetensors_count(file); i++) {
        resin_tensor *tensor = NULL;
        resin_safetensors_info info = resin_safetensors_describe(file, i);
        if (resin_safetensors_find(file, info.name) != i) fail("a name is found elsewhere");
        status = resin_safetensors_load(file, i, &tensor);
        if (status == RESIN_OK && resin_safetensors_load_into(file, i, tensor) != RESIN_OK)
            fail("a tensor is loaded once and not twice");
        resin_release(tensor);
    }
    resin_safetensors_close(file);
    return status;
}

static resin_status parse_array(resin_context *context, int parser) {
    resin_tensor *tensor = NULL;
    resin_status (*const readers[])(resin_context *, const char *, resin_tensor **) = {
        NULL, resin_npy_read, resin_idx_read, resin_image_read};
    resin_status status = readers[parser](context, fuzz_path, &tensor);
    resin_release(tensor);
    return status;
}

/* An arena rounds up; gzip packs at most 1032 to 1; 16-bit numbers double, and a column order needs
 * the array twice. A byte of a PNG's rows may be eight pixels, that is 24 bytes. */
static size_t most_memory(size_t size) { return ((size_t)1 << 20) + 30 * 1032 * size; }

/* Gives the input to its parser and looks at what is left. */
static resin_status parse(const uint8_t *data, size_t size) {
    static resin_context *context;
    if (!context) {
        context = resin_context_new();
        if (!context) fail("out of memory");
        resin_set_threads(context, 1);
        open_fuzz_file();
    }
    write_fuzz_file(data + 1, size - 1);
    resin_memory_reset_peak(context);
    int parser = data[0] % PARSERS;
    resin_status status = parser == 0 ? parse_safetensors(context) : parse_array(context, parser);
    if (status != RESIN_OK && status != RESIN_ERROR_FILE && status != RESIN_ERROR_MEMORY)
        fail(resin_error_message(context));
    if (resin_memory(context).held != 0) fail("memory is lost");
    if (resin_memory(context).peak > most_memory(size)) fail("much memory for a small file");
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 1 && size <= MAX_INPUT) parse(data, size);
    return 0;
}

#ifndef RESIN_LIBFUZZER

/* ---- Inputs without a fuzzer: good files, and changes of them -------------------------------- */

typedef struct input {
    uint8_t bytes[MAX_INPUT];
    size_t size;
} input;

static uint64_t random_state;

/* xorshift64* (Vigna 2016). */
static uint32_t random_below(uint32_t count) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)(((random_state * UINT64_C(0x2545F4914F6CDD1D)) >> 32) * count >> 32);
}

#define TEXT(literal) {literal, sizeof literal - 1}
#define LENGTH "\0\0\0\0\0\0\0\0" /* of a safetensors header, see repair_length */

static const struct { const char *bytes; size_t size; } seeds[] = {
    TEXT("\0" LENGTH "{}"),
    TEXT("\0" LENGTH
         "{\"__metadata__\":{\"format\":\"pt\"},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
         "\"b\\u00e9\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[8,10]},"
         "\"c\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[10,13]}}"
         "0123456789abc"),
    TEXT("\0" LENGTH
         "{\"a\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8],"
         "\"more\":[1,{\"x\":-2.5e3}]},"
         "\"e\":{\"dtype\":\"I8\",\"shape\":[0,4],\"data_offsets\":[8,8]}}"
         "\1\0\0\0\0\0\0\0"),
    TEXT("\1\x93NUMPY\1\0\x3e\x00"
         "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n"
         "0123456789abcdefghijklmn"),
    TEXT("\1\x93NUMPY\1\0\x3d\x00"
         "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }  \n"
         "0123456789ab"),
    TEXT("\1\x93NUMPY\2\0\x3c\x00\x00\x00"
         "{'descr': '|b1', 'fortran_order': False, 'shape': (4,), }  \n"
         "0123"),
    TEXT("\2\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\3" "012345"),
    TEXT("\2\0\0\x0d\1\0\0\0\2" "01234567"),
#ifdef RESIN_HAVE_ZLIB
    TEXT("\2" /* the first of the two, gzipped */
         "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x63\x60\xe0\x60\x66\x60\x60\x60\x02\x62\x46"
         "\x20\x66\x36\x30\x34\x32\x36\x31\x05\x00\x9b\x5f\xe9\xc7\x16\x00\x00\x00"),
#endif
#ifdef RESIN_HAVE_PNG /* RGB; a palette with transparency; 16 bits of grey, interlaced */
    TEXT("\3"
         "\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x02"
         "\x00\x00\x00\xfd\xd4\x9as\x00\x00\x00\x16IDATx\xda\x63HLJNIMcL\xcf\xc8\xcc\xca\xce"
         "\x01\x00!\x16\x04\xd0\xb2^gz\x00\x00\x00\x00IEND\xae\x42`\x82"),
    TEXT("\3"
         "\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x05\x00\x00\x00\x02\x04\x03"
         "\x00\x00\x00\x62\x44\x0bn\x00\x00\x00\x09PLTEabcdefghi\xe8\xc3u\xc1\x00\x00\x00\x02t"
         "RNS\x10\x80\xd1\xe9\x5cI\x00\x00\x00\x10IDATx\xda\x63`Td`\x10\x12P\x00\x00\x01K\x00"
         "\x65\xb9\xad\x92\xbd\x00\x00\x00\x00IEND\xae\x42`\x82"),
    TEXT("\3"
         "\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x10\x00"
         "\x00\x00\x01pJ\xbe-\x00\x00\x00\x13IDATx\xda\x63`db`fa`\xe0\x64\xe0\x00\x00\x00w\x00"
         "\x1c\xcen\xa6\x91\x00\x00\x00\x00IEND\xae\x42`\x82"),
#endif
#ifdef RESIN_HAVE_JPEG /* grey; colour, progressive */
    TEXT("\3"
         "\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb\x00\x43"
         "\x00\x1b\x12\x14\x17\x14\x11\x1b\x17\x16\x17\x1e\x1c\x1b (B+(%%(Q:=0B`Ued_U][jx\x99"
         "\x81jq\x90s[]\x85\xb5\x86\x90\x9e\xa3\xab\xad\xabg\x80\xbc\xc9\xba\xa6\xc7\x99\xa8"
         "\xab\xa4\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xc4\x00\x14\x00\x01"
         "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xc4\x00\x17\x10"
         "\x00\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x05\x62\xff"
         "\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x17\x0b\x07\xff\xd9"),
    TEXT("\3"
         "\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb\x00\x43"
         "\x00\x1b\x12\x14\x17\x14\x11\x1b\x17\x16\x17\x1e\x1c\x1b (B+(%%(Q:=0B`Ued_U][jx\x99"
         "\x81jq\x90s[]\x85\xb5\x86\x90\x9e\xa3\xab\xad\xabg\x80\xbc\xc9\xba\xa6\xc7\x99\xa8"
         "\xab\xa4\xff\xdb\x00\x43\x01\x1c\x1e\x1e(#(N++N\xa4n]n\xa4\xa4\xa4\xa4\xa4\xa4\xa4"
         "\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4"
         "\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4\xa4"
         "\xa4\xff\xc2\x00\x11\x08\x00\x08\x00\x10\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff"
         "\xc4\x00\x14\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
         "\xff\xc4\x00\x15\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
         "\x02\x03\xff\xda\x00\x0c\x03\x01\x00\x02\x10\x03\x10\x00\x00\x01\x09\x3f\xff\xc4\x00"
         "\x16\x10\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x03"
         "\xff\xda\x00\x08\x01\x01\x00\x01\x05\x02\x92\x92S\xff\xc4\x00\x18\x11\x00\x02\x03"
         "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03!\xff\xda\x00"
         "\x08\x01\x03\x01\x01\x3f\x01u\xc7O\xff\xc4\x00\x18\x11\x00\x02\x03\x00\x00\x00\x00"
         "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03!\xff\xda\x00\x08\x01\x02\x01"
         "\x01\x3f\x01v\xcbO\xff\xc4\x00\x14\x10\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
         "\x00\x00\x00\x00\x00\x10\xff\xda\x00\x08\x01\x01\x00\x06\x3f\x02\x3f\xff\xc4\x00\x14"
         "\x10\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\xff\xda\x00"
         "\x08\x01\x01\x00\x01\x3f!\x03\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x00"
         "\x10\x0f\xff\xc4\x00\x15\x11\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
         "\x00\x00\x00\x41\xff\xda\x00\x08\x01\x03\x01\x01\x3f\x10\x90\xff\xc4\x00\x15\x11\x01"
         "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x41\xff\xda\x00\x08"
         "\x01\x02\x01\x01\x3f\x10\xbc\xff\xc4\x00\x16\x10\x00\x03\x00\x00\x00\x00\x00\x00\x00"
         "\x00\x00\x00\x00\x00\x00\x00\x00!1\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10\x82 \x8f"
         "\xff\xd9"),
#endif
};
enum { SEEDS = sizeof seeds / sizeof seeds[0] };

/* Pieces that mean something to a parser. */
static const char *const words[] = {
    "{", "}", "[", "]", "(", ")", ",", ":", "\"", "'", "\\", "\\u0000", "\\ud800", "\"a\":",
    "-", "0", "9", "1e9", "4294967296", "9223372036854775807", "18446744073709551616",
    "\"dtype\":", "\"shape\":[",
    "\"data_offsets\":[0,", "\"F64\"", "\"BF16\"", "'descr': '", "'shape': (", "True",
    "__metadata__",
    "\xff\xff\xff\xff", "\x7f\xff\xff\xff", "\xe2\x82\xac", "\xed\xa0\x80", "[[[[[[[[[[[[[[[[[[[[",
};
enum { WORDS = sizeof words / sizeof words[0] };

/* Replaces `removed` bytes at `at` by `size` others. */
static void replace(input *file, size_t at, size_t removed, const void *bytes, size_t size) {
    if (removed > file->size - at) removed = file->size - at;
    if (file->size - removed + size > MAX_INPUT) return;
    memmove(file->bytes + at + size, file->bytes + at + removed, file->size - at - removed);
    memcpy(file->bytes + at, bytes, size);
    file->size += size - removed;
}

static void mutate(input *file) {
    if (file->size < 2) return;
    uint8_t copy[32], byte = (uint8_t)random_below(256);
    size_t at = 1 + random_below((uint32_t)file->size - 1);
    const char *word = words[random_below(WORDS)];
    size_t some = random_below(sizeof copy) + 1, from = random_below((uint32_t)file->size);
    if (some > file->size - from) some = file->size - from;
    memcpy(copy, file->bytes + from, some);
    switch (random_below(7)) {
    case 0: file->bytes[at] ^= (uint8_t)(1u << random_below(8)); break;
    case 1: file->bytes[at] = byte; break;
    case 2: replace(file, at, some, "", 0); break;
    case 3: replace(file, at, 0, copy, some); break;
    case 4: replace(file, at, random_below(2) ? strlen(word) : 0, word, strlen(word)); break;
    case 5: replace(file, at, 1, &"0123456789"[random_below(10)], 1); break;
    default: file->size = at + 1; break;
    }
}

/* Makes the length in a safetensors header true, so that most inputs get past it. */
static void repair_length(input *file) {
    if (file->size < 9 || file->bytes[0] % PARSERS != 0) return;
    size_t end = file->size;
    while (end > 9 && file->bytes[end - 1] != '}') end--;
    for (int i = 0; i < 8; i++) file->bytes[1 + i] = (uint8_t)((uint64_t)(end - 9) >> 8 * i);
}

static uint32_t checksum(const uint8_t *bytes, size_t size) {
    uint32_t sum = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        sum ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) sum = sum & 1u ? 0xedb88320u ^ (sum >> 1) : sum >> 1;
    }
    return ~sum;
}

/* Makes the checksums of a PNG's chunks true, as far as their lengths lead. */
static void repair_chunks(input *file) {
    if (file->bytes[0] % PARSERS != 3) return;
    for (size_t at = 9; at + 12 <= file->size;) {
        uint8_t *chunk = file->bytes + at;
        size_t length = 0;
        for (int i = 0; i < 4; i++) length = length << 8 | chunk[i];
        if (length > file->size - at - 12) return;
        uint32_t sum = checksum(chunk + 4, length + 4);
        for (int i = 0; i < 4; i++) chunk[8 + length + i] = (uint8_t)(sum >> (24 - 8 * i));
        at += length + 12;
    }
}

static void take_seed(input *file, uint32_t seed) {
    file->size = seeds[seed].size;
    memcpy(file->bytes, seeds[seed].bytes, file->size);
    repair_length(file);
}

static void run_mutations(long count) {
    static input file;
    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        take_seed(&file, seed);
        if (parse(file.bytes, file.size) != RESIN_OK) fail("a good file is refused");
    }
    for (long i = 0; i < count; i++) {
        take_seed(&file, random_below(SEEDS));
        for (uint32_t changes = 1 + random_below(6); changes > 0; changes--) mutate(&file);
        if (random_below(8) != 0) repair_length(&file);
        if (random_below(8) != 0 && file.bytes[1] == 0x89) repair_chunks(&file);
        parse(file.bytes, file.size);
    }
}

static void run_file(const char *path) {
    static input file;
    FILE *stream = fopen(path, "rb");
    if (!stream) fail("cannot open an input");
    file.size = fread(file.bytes, 1, sizeof file.bytes, stream);
    fclose(stream);
    LLVMFuzzerTestOneInput(file.bytes, file.size);
}

int main(int count, char **arguments) {
    char *end = NULL;
    long inputs = count > 1 ? strtol(arguments[1], &end, 10) : 50000;
    random_state = count > 2 && end && *end == '\0' ? strtoull(arguments[2], NULL, 10) | 1 : 1;
    if (count > 1 && *end != '\0') {
        for (int i = 1; i < count; i++) run_file(arguments[i]);
        inputs = count - 1;
    } else {
        run_mutations(inputs);
    }
    if (fuzz_file_named) unlink(fuzz_path);
    printf("fuzz_files: %ld inputs\n", inputs);
    return 0;
}

#endif
