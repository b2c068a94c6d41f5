/* file.h: reading and writing whole files with errors that name them.
 *
 * A reader knows how many bytes the file can still give, so that a forged length in a header is
 * found before any memory is asked for. A writer works on a temporary name in the same folder: the
 * file under its real name is always either the old one or the complete new one. */
#ifndef RESIN_IO_FILE_H
#define RESIN_IO_FILE_H

#include "core/base/context.h"

/* Longest path in an error message; longer ones are cut at the front. */
enum { RESIN_PATH_SHOWN = 400 };
const char *resin_path_shown(const char *path);

bool resin_file_exists(const char *path);

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct resin_reader {
    resin_context *context;
    const char *path; /* the caller's, must outlive the reader */
    void *stream;     /* FILE, or gzFile if compressed */
    bool compressed;
    uint64_t left;    /* bytes to come; of a compressed file at most as many */
} resin_reader;

/* Opens a regular file. One that starts with gzip's magic number is decompressed if `may_be_gzip`,
 * and an error that says so if the engine was built without zlib. */
resin_status resin_reader_open(resin_context *context, const char *path, bool may_be_gzip,
                               resin_reader *reader);
void resin_reader_close(resin_reader *reader);
/* Exactly `size` bytes, or RESIN_ERROR_FILE; `what` names what is read. */
resin_status resin_reader_read(resin_reader *reader, const char *what, void *bytes, size_t size);
/* RESIN_ERROR_FILE if anything follows. */
resin_status resin_reader_expect_end(resin_reader *reader);
/* From the start of a plain file; `size` is the file's. */
resin_status resin_reader_seek(resin_reader *reader, uint64_t position, uint64_t size);

/* ---- Writing --------------------------------------------------------------------------------- */

typedef struct resin_writer {
    resin_context *context;
    const char *path; /* the caller's */
    char *temporary;
    void *stream;
} resin_writer;

resin_status resin_writer_open(resin_context *context, const char *path, resin_writer *writer);
resin_status resin_writer_write(resin_writer *writer, const void *bytes, size_t size);
/* Ends a writer: with `status` RESIN_OK the file is synchronized and takes its real name;
 * otherwise, or if that fails, the temporary file is removed. Returns `status` or the failure. */
resin_status resin_writer_close(resin_writer *writer, resin_status status);

#endif
