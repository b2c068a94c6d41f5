/* io_files.c: see io_files.h. */
#include "tests/c/io_files.h"

#include "core/base/memory.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int io_setup(void **state) {
    io_state *test = calloc(1, sizeof *test);
    assert_non_null(test);
    const char *parent = getenv("TMPDIR");
    snprintf(test->folder, sizeof test->folder, "%s/resin-test-XXXXXX", parent ? parent : "/tmp");
    assert_non_null(mkdtemp(test->folder));
    test->context = resin_context_new();
    assert_non_null(test->context);
    *state = test;
    return 0;
}

/* Calls `visit` for each file of the folder; returns how many there are. */
static int each_file(const io_state *test, int (*visit)(const char *path)) {
    DIR *folder = opendir(test->folder);
    assert_non_null(folder);
    int count = 0;
    for (struct dirent *file; (file = readdir(folder));) {
        if (file->d_name[0] == '.') continue;
        count++;
        if (visit) visit(io_path(test, file->d_name));
    }
    closedir(folder);
    return count;
}

int io_file_count(const io_state *state) { return each_file(state, NULL); }

int io_teardown(void **state) {
    io_state *test = *state;
    size_t held = resin_memory(test->context).held;
    each_file(test, remove);
    rmdir(test->folder);
    resin_context_release(test->context);
    free(test);
    return held == 0 ? 0 : -1;
}

const char *io_path(const io_state *state, const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", state->folder, name);
    return path;
}

void io_write(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

char *io_read(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    bytes[*size] = '\0';
    fclose(file);
    return bytes;
}

const char *io_shared(const char *name) {
    static char path[1024];
    const char *folder = getenv("RESIN_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", folder ? folder : "../shared", name);
    return access(path, R_OK) == 0 ? path : NULL;
}

void io_expect_error(const io_state *state, resin_status status, resin_status expected,
                     const char *words) {
    const char *message = resin_error_message(state->context);
    if (status == expected && strstr(message, words)) return;
    fail_msg("expected %s with \"%s\", got %s: %s", resin_status_name(expected), words,
             resin_status_name(status), status == RESIN_OK ? "" : message);
}

void io_damage(const io_state *state, const char *path, io_reader read) {
    size_t size;
    char *bytes = io_read(path, &size);
    assert_int_equal(read(state->context, path), RESIN_OK);
    for (size_t shorter = 0; shorter < size; shorter++) {
        io_write(path, bytes, shorter);
        if (read(state->context, path) != RESIN_ERROR_FILE)
            fail_msg("no error when cut to %zu of %zu bytes", shorter, size);
    }
    io_write(path, bytes, size + 1);
    assert_int_equal(read(state->context, path), RESIN_ERROR_FILE);
    for (size_t at = 0; at < size; at++)
        for (unsigned change = 1; change < 256; change = 2 * change + 1) {
            char kept = bytes[at];
            bytes[at] = (char)(kept ^ (char)change);
            io_write(path, bytes, size);
            resin_status status = read(state->context, path);
            assert_true(status == RESIN_OK || status == RESIN_ERROR_FILE);
            bytes[at] = kept;
        }
    free(bytes);
    assert_int_equal(resin_memory(state->context).held, 0);
}

void io_starve(const io_state *state, const char *path, io_reader read) {
    resin_status status = RESIN_ERROR_MEMORY;
    for (long allowed = 0; status != RESIN_OK; allowed++) {
        assert_true(allowed < 100);
        resin_arena_fail_after(state->context, allowed);
        status = read(state->context, path);
        resin_arena_fail_after(state->context, -1);
        if (status != RESIN_OK) assert_int_equal(status, RESIN_ERROR_MEMORY);
        assert_int_equal(resin_memory(state->context).held, 0);
    }
}
