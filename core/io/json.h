/* json.h: a small, strict parser for JSON headers (RFC 8259), and writing of JSON strings.
 *
 * The caller says what it expects next; nothing is built in memory. Strings are decoded in
 * place, in the text itself: an escape is never shorter than what it stands for, and the closing
 * quote makes room for a zero byte. Strings must be UTF-8 without zero bytes. */
#ifndef RESIN_IO_JSON_H
#define RESIN_IO_JSON_H

#include "core/base/context.h"

typedef struct json_reader {
    char *text, *at, *end;
    const char *problem; /* of the first failure, after which every call fails */
} json_reader;

json_reader json_start(char *text, size_t length);

/* Each skips white space first, and gives false with a `problem` when the text is not as
 * expected. */
bool json_expect(json_reader *json, char token);
bool json_string(json_reader *json, char **string);
/* An integer without sign, fraction or exponent, at most INT64_MAX. */
bool json_count(json_reader *json, int64_t *count);
/* Any value; at most JSON_MAX_DEPTH arrays and objects in one another. */
enum { JSON_MAX_DEPTH = 16 };
bool json_skip_value(json_reader *json);
/* Only white space may be left. */
bool json_finish(json_reader *json);

/* Whether the next character is this one; not consumed, and no failure otherwise. */
bool json_next_is(json_reader *json, char token);
/* Steps through an array or object: with *first true takes `open`, then `,` between members; gives
 * false at `close` (consumed) or on failure (then problem is set). */
bool json_more(json_reader *json, char open, char close, bool *first);

bool json_valid_utf8(const char *text, size_t length);
/* The length of a string as a JSON literal with its quotes; written to `out` too unless it is
 * NULL. */
size_t json_quote(const char *string, char *out);

#endif
