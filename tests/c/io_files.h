/* io_files.h: what the tests of core/io share: a context and a folder for each test, files made of
 * bytes, and the places of real data. */
#ifndef RESIN_TESTS_IO_FILES_H
#define RESIN_TESTS_IO_FILES_H

#include "core/resin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

typedef struct io_state {
    resin_context *context;
    char folder[256];
} io_state;

/* Each test gets a context and an empty folder; afterwards no tensor may be alive and the folder is
 * removed. */
int io_setup(void **state);
int io_teardown(void **state);

/* "folder/name"; valid until the fourth call from here. */
const char *io_path(const io_state *state, const char *name);
/* How many files the folder has. */
int io_file_count(const io_state *state);

void io_write(const char *path, const void *bytes, size_t size);
/* The contents, to be freed, with a zero byte after them. */
char *io_read(const char *path, size_t *size);

/* A file of the project's shared data (RESIN_SHARED, or ../shared), or NULL where it is absent. */
const char *io_shared(const char *name);

/* The status must be this one, and the message hold `words`. */
void io_expect_error(const io_state *state, resin_status status, resin_status expected,
                     const char *words);

/* Reads a file and gives back what that made. */
typedef resin_status (*io_reader)(resin_context *context, const char *path);
/* Every shorter version of the file must be an error, and so must a longer one; no version with one
 * byte changed may crash. */
void io_damage(const io_state *state, const char *path, io_reader read);
/* With the first, second, third ... allocation failing until it has enough, the reader must give
 * RESIN_ERROR_MEMORY and keep nothing. */
void io_starve(const io_state *state, const char *path, io_reader read);

#endif
