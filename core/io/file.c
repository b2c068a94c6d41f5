/* file.c: readers (plain and gzipped) and atomic writers. See file.h. */
#include "core/io/file.h"

#include "core/base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef RESIN_HAVE_ZLIB
#include <zlib.h>
#endif

const char *resin_path_shown(const char *path) {
    size_t length = strlen(path);
    return length > RESIN_PATH_SHOWN ? path + length - RESIN_PATH_SHOWN : path;
}

bool resin_file_exists(const char *path) {
    struct stat facts;
    return stat(path, &facts) == 0 && S_ISREG(facts.st_mode);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static resin_status fail_read(const resin_reader *reader, const char *what, const char *reason) {
    return resin_fail(reader->context, RESIN_ERROR_FILE, "%s: %s %s",
                      resin_path_shown(reader->path), what, reason);
}

/* Deflate codes at most 258 bytes by 2 bits (zlib's technical details: a factor of 1032). */
static uint64_t most_inflated(uint64_t size) {
    uint64_t inflated;
    return __builtin_mul_overflow(size, UINT64_C(1032), &inflated) ? UINT64_MAX : inflated;
}

/* Lets zlib go on where the plain stream stands (at the start). */
static resin_status open_compressed(resin_reader *reader) {
#ifdef RESIN_HAVE_ZLIB
    int copy = dup(fileno(reader->stream));
    gzFile stream = copy < 0 ? NULL : gzdopen(copy, "rb");
    if (!stream) {
        if (copy >= 0) close(copy);
        return resin_fail(reader->context, RESIN_ERROR_SYSTEM, "%s: zlib cannot open it",
                          resin_path_shown(reader->path));
    }
    gzbuffer(stream, 1 << 17);
    fclose(reader->stream);
    reader->stream = stream;
    reader->compressed = true;
    reader->left = most_inflated(reader->left);
    return RESIN_OK;
#else
    (void)most_inflated;
    return resin_fail(reader->context, RESIN_ERROR_FILE,
                      "%s: is gzipped, and resin was built without zlib; install zlib's "
                      "development files (Debian: zlib1g-dev) and build again, or unpack it "
                      "with gunzip",
                      resin_path_shown(reader->path));
#endif
}

/* O_NONBLOCK: opening a named pipe must not wait for somebody who writes. */
static resin_status open_regular(resin_reader *reader) {
    struct stat facts;
    int file = open(reader->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0 && fstat(file, &facts) == 0 && !S_ISREG(facts.st_mode)) {
        close(file);
        return resin_fail(reader->context, RESIN_ERROR_FILE, "%s: is not a file",
                          resin_path_shown(reader->path));
    }
    if (file >= 0) reader->stream = fdopen(file, "rb");
    if (!reader->stream) {
        resin_status status =
            resin_fail(reader->context, RESIN_ERROR_FILE, "cannot open %s: %s",
                       resin_path_shown(reader->path), strerror(errno));
        if (file >= 0) close(file);
        return status;
    }
    reader->left = (uint64_t)facts.st_size;
    return RESIN_OK;
}

static bool starts_like_gzip(FILE *stream) {
    unsigned char magic[2] = {0, 0};
    bool gzip = fread(magic, 1, 2, stream) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
    rewind(stream);
    lseek(fileno(stream), 0, SEEK_SET);
    return gzip;
}

resin_status resin_reader_open(resin_context *context, const char *path, bool may_be_gzip,
                               resin_reader *reader) {
    *reader = (resin_reader){.context = context, .path = path};
    resin_status status = open_regular(reader);
    if (status == RESIN_OK && may_be_gzip && starts_like_gzip(reader->stream))
        status = open_compressed(reader);
    if (status != RESIN_OK) resin_reader_close(reader);
    return status;
}

void resin_reader_close(resin_reader *reader) {
    if (!reader->stream) return;
#ifdef RESIN_HAVE_ZLIB
    if (reader->compressed)
        gzclose(reader->stream);
    else
#endif
        fclose(reader->stream);
    reader->stream = NULL;
}

/* Up to `size` bytes; fewer at the end of the file; -1 for an error. */
static int64_t read_some(resin_reader *reader, void *bytes, size_t size) {
#ifdef RESIN_HAVE_ZLIB
    if (reader->compressed) {
        size_t done = 0;
        while (done < size) {
            size_t wanted = size - done < (1u << 30) ? size - done : 1u << 30;
            int got = gzread(reader->stream, (char *)bytes + done, (unsigned)wanted);
            if (got < 0) return -1;
            if (got == 0) break;
            done += (size_t)got;
        }
        /* A stream that ends in the middle is reported here only. */
        int error = Z_OK;
        gzerror(reader->stream, &error);
        return error == Z_OK || error == Z_STREAM_END ? (int64_t)done : -1;
    }
#endif
    size_t got = fread(bytes, 1, size, reader->stream);
    return got < size && ferror((FILE *)reader->stream) ? -1 : (int64_t)got;
}

resin_status resin_reader_read(resin_reader *reader, const char *what, void *bytes, size_t size) {
    int64_t got = size <= reader->left ? read_some(reader, bytes, size) : 0;
    if (got < 0)
        return fail_read(reader, what, reader->compressed
                                           ? "cannot be unpacked: damaged or truncated gzip data"
                                           : "cannot be read (an error of the disk or the folder)");
    if ((size_t)got < size)
        return fail_read(reader, what, "ends too early; is the file truncated?");
    reader->left -= size;
    return RESIN_OK;
}

resin_status resin_reader_expect_end(resin_reader *reader) {
    char more;
    int64_t got = read_some(reader, &more, 1);
    if (got < 0) return fail_read(reader, "the end", "is damaged (a wrong checksum, or truncated)");
    if (got > 0) return fail_read(reader, "more bytes", "follow after what the header announces");
    return RESIN_OK;
}

resin_status resin_reader_seek(resin_reader *reader, uint64_t position, uint64_t size) {
    if (position > size || position > INT64_MAX || reader->compressed ||
        fseeko(reader->stream, (off_t)position, SEEK_SET) != 0)
        return fail_read(reader, "a position", "cannot be reached");
    reader->left = size - position;
    return RESIN_OK;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static resin_status fail_write(const resin_writer *writer, const char *step) {
    return resin_fail(writer->context, RESIN_ERROR_FILE, "cannot %s %s: %s", step,
                      resin_path_shown(writer->path), strerror(errno));
}

/* A new file beside the final one. Its name is taken by nobody: O_EXCL. */
static int create_temporary(resin_writer *writer, size_t room) {
    for (int attempt = 0; attempt < 100; attempt++) {
        snprintf(writer->temporary, room, "%s.%ld-%d.tmp", writer->path, (long)getpid(), attempt);
        int file = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0 || errno != EEXIST) return file;
    }
    return -1;
}

/* Whether `name` is what create_temporary calls a file for `base`, of a process that is no more. */
static bool is_left_behind(const char *name, const char *base) {
    size_t length = strlen(base);
    if (strncmp(name, base, length) != 0 || name[length] != '.') return false;
    char *end;
    long process = strtol(name + length + 1, &end, 10);
    if (process <= 0 || *end != '-') return false;
    strtol(end + 1, &end, 10);
    if (strcmp(end, ".tmp") != 0) return false;
    return kill((pid_t)process, 0) != 0 && errno == ESRCH;
}

/* Removes what killed processes have left in the folder of path. A file written to within a minute
 * stays: its process may run on another machine. */
static void remove_left_behind(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *name = strndup(path, (size_t)(base - path));
    if (!name) return;
    DIR *entries = opendir(slash ? name : ".");
    free(name);
    if (!entries) return;
    int folder = dirfd(entries);
    for (const struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
        struct stat facts;
        if (is_left_behind(entry->d_name, base) &&
            fstatat(folder, entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(facts.st_mode) && facts.st_mtime < time(NULL) - 60)
            unlinkat(folder, entry->d_name, 0);
    }
    closedir(entries);
}

resin_status resin_writer_open(resin_context *context, const char *path, resin_writer *writer) {
    *writer = (resin_writer){.context = context, .path = path};
    struct stat facts;
    if (stat(path, &facts) == 0 && !S_ISREG(facts.st_mode))
        return resin_fail(context, RESIN_ERROR_FILE, "cannot write %s: it exists and is not a file",
                          resin_path_shown(path));
    size_t room = strlen(path) + 48;
    void *name;
    RESIN_TRY(resin_allocate(context, room, &name));
    writer->temporary = name;
    remove_left_behind(path);
    int file = create_temporary(writer, room);
    if (file >= 0) writer->stream = fdopen(file, "wb");
    if (writer->stream) return RESIN_OK;
    resin_status status = fail_write(writer, "write");
    if (file >= 0) {
        close(file);
        unlink(writer->temporary);
    }
    resin_deallocate(context, writer->temporary);
    writer->temporary = NULL;
    return status;
}

resin_status resin_writer_write(resin_writer *writer, const void *bytes, size_t size) {
    if (size > 0 && fwrite(bytes, 1, size, writer->stream) != size)
        return fail_write(writer, "write");
    return RESIN_OK;
}

/* Makes the new name durable, too. A folder that cannot be synchronized (some network file
 * systems) is no error: the file itself is complete. */
static void synchronize_folder(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path ? 1 : 0] = '\0';
    int folder = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    fsync(folder);
    close(folder);
}

resin_status resin_writer_close(resin_writer *writer, resin_status status) {
    if (!writer->stream) return status;
    if (status == RESIN_OK && (fflush(writer->stream) != 0 || fsync(fileno(writer->stream)) != 0))
        status = fail_write(writer, "write");
    if (fclose(writer->stream) != 0 && status == RESIN_OK) status = fail_write(writer, "write");
    if (status == RESIN_OK && rename(writer->temporary, writer->path) != 0)
        status = fail_write(writer, "give its name to");
    if (status != RESIN_OK)
        unlink(writer->temporary);
    else
        synchronize_folder(writer->temporary);
    resin_deallocate(writer->context, writer->temporary);
    *writer = (resin_writer){0};
    return status;
}
