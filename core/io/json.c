/* json.c: see json.h. */
#include "core/io/json.h"

#include <stdio.h>
#include <string.h>

json_reader json_start(char *text, size_t length) {
    return (json_reader){.text = text, .at = text, .end = text + length};
}

static bool fail(json_reader *json, const char *problem) {
    if (!json->problem) json->problem = problem;
    return false;
}

static void skip_space(json_reader *json) {
    while (json->at < json->end && memchr(" \t\n\r", *json->at, 4)) json->at++;
}

bool json_next_is(json_reader *json, char token) {
    skip_space(json);
    return !json->problem && json->at < json->end && *json->at == token;
}

bool json_expect(json_reader *json, char token) {
    if (!json_next_is(json, token)) {
        switch (token) {
        case '{': return fail(json, "expected an object");
        case '[': return fail(json, "expected an array");
        case ':': return fail(json, "expected a colon");
        case '}': return fail(json, "expected a comma or the end of the object");
        case ']': return fail(json, "expected a comma or the end of the array");
        default: return fail(json, "unexpected character");
        }
    }
    json->at++;
    return true;
}

bool json_more(json_reader *json, char open, char close, bool *first) {
    if (*first) {
        *first = false;
        if (!json_expect(json, open)) return false;
        if (!json_next_is(json, close)) return !json->problem;
    } else if (json_next_is(json, ',')) {
        json->at++;
        return true;
    }
    json_expect(json, close);
    return false;
}

bool json_finish(json_reader *json) {
    skip_space(json);
    return !json->problem && (json->at == json->end || fail(json, "text after the end"));
}

/* ---- Strings --------------------------------------------------------------------------------- */

/* Bytes of the character that starts here, 0 if it is not well-formed UTF-8: RFC 3629, section
 * 4. */
static size_t utf8_length(const unsigned char *c, size_t left) {
    if (c[0] < 0x80) return 1;
    size_t length = c[0] >= 0xC2 && c[0] <= 0xDF ? 2 : (c[0] & 0xF0) == 0xE0 ? 3
                  : c[0] >= 0xF0 && c[0] <= 0xF4 ? 4 : 0;
    if (length == 0 || left < length) return 0;
    for (size_t i = 1; i < length; i++)
        if ((c[i] & 0xC0) != 0x80) return 0;
    bool overlong = (c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xF0 && c[1] < 0x90);
    bool surrogate = c[0] == 0xED && c[1] >= 0xA0, beyond = c[0] == 0xF4 && c[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

bool json_valid_utf8(const char *text, size_t length) {
    while (length > 0) {
        size_t step = utf8_length((const unsigned char *)text, length);
        if (step == 0) return false;
        text += step;
        length -= step;
    }
    return true;
}

static bool hexadecimal(json_reader *json, uint32_t *code) {
    if (json->end - json->at < 4) return fail(json, "an escape is cut off");
    *code = 0;
    for (int i = 0; i < 4; i++, json->at++) {
        char c = *json->at;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return fail(json, "a \\u escape needs four hexadecimal digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return true;
}

static char *put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xE0 | code >> 12);
        } else {
            *to++ = (char)(0xF0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 63));
        }
        *to++ = (char)(0x80 | (code >> 6 & 63));
    }
    *to++ = (char)(0x80 | (code & 63));
    return to;
}

/* After "\u": one code, or the two halves of a surrogate pair. */
static bool unicode_escape(json_reader *json, char **to) {
    uint32_t code, low;
    if (!hexadecimal(json, &code)) return false;
    if (code == 0) return fail(json, "a string holds a zero byte");
    if (code >= 0xDC00 && code <= 0xDFFF) return fail(json, "half of a surrogate pair");
    if (code >= 0xD800 && code <= 0xDBFF) {
        if (json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u')
            return fail(json, "half of a surrogate pair");
        json->at += 2;
        if (!hexadecimal(json, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return fail(json, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    *to = put_utf8(*to, code);
    return true;
}

/* After a backslash. */
static bool escape(json_reader *json, char **to) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (json->at == json->end) return fail(json, "an escape is cut off");
    char c = *json->at++;
    if (c == 'u') return unicode_escape(json, to);
    const char *which = c ? strchr(names, c) : NULL;
    if (!which) return fail(json, "an unknown escape");
    *(*to)++ = values[which - names];
    return true;
}

bool json_string(json_reader *json, char **string) {
    if (!json_next_is(json, '"')) return fail(json, "expected a string");
    char *to = ++json->at;
    *string = to;
    while (json->at < json->end) {
        unsigned char c = (unsigned char)*json->at;
        if (c == '"') {
            json->at++;
            *to = '\0';
            return true;
        }
        if (c < 0x20) return fail(json, "a control character in a string");
        if (c == '\\') {
            json->at++;
            if (!escape(json, &to)) return false;
            continue;
        }
        size_t length = utf8_length((unsigned char *)json->at, (size_t)(json->end - json->at));
        if (length == 0) return fail(json, "a string is not UTF-8");
        memmove(to, json->at, length);
        to += length;
        json->at += length;
    }
    return fail(json, "a string does not end");
}

/* One character as it stands in a literal: itself, or its escape. */
static size_t quote_character(char c, char piece[8]) {
    if (c == '"' || c == '\\') return (size_t)snprintf(piece, 8, "\\%c", c);
    if ((unsigned char)c < 0x20) return (size_t)snprintf(piece, 8, "\\u%04x", (unsigned)c);
    piece[0] = c;
    return 1;
}

size_t json_quote(const char *string, char *out) {
    size_t length = 1;
    for (const char *c = string; *c; c++) {
        char piece[8];
        size_t size = quote_character(*c, piece);
        if (out) memcpy(out + length, piece, size);
        length += size;
    }
    if (out) out[0] = out[length] = '"';
    return length + 1;
}

/* ---- Other values ---------------------------------------------------------------------------- */

bool json_count(json_reader *json, int64_t *count) {
    skip_space(json);
    const char *start = json->at;
    *count = 0;
    while (!json->problem && json->at < json->end && *json->at >= '0' && *json->at <= '9') {
        if (__builtin_mul_overflow(*count, 10, count) ||
            __builtin_add_overflow(*count, *json->at - '0', count))
            return fail(json, "an integer beyond 64 bits");
        json->at++;
    }
    if (json->problem || json->at == start) return fail(json, "expected a non-negative integer");
    if (*start == '0' && json->at - start > 1) return fail(json, "a number with a leading zero");
    if (json->at < json->end && memchr(".eE+-", *json->at, 5))
        return fail(json, "expected a whole number");
    return true;
}

static bool digits(json_reader *json) {
    const char *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9') json->at++;
    return json->at > start || fail(json, "a malformed number");
}

static bool skip_number(json_reader *json) {
    if (json->at < json->end && *json->at == '-') json->at++;
    const char *start = json->at;
    if (!digits(json)) return false;
    if (*start == '0' && json->at - start > 1) return fail(json, "a number with a leading zero");
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (!digits(json)) return false;
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-')) json->at++;
        if (!digits(json)) return false;
    }
    return true;
}

static bool skip_word(json_reader *json, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(json->end - json->at) < length || memcmp(json->at, word, length) != 0)
        return fail(json, "expected a value");
    json->at += length;
    return true;
}

/* Recursion is bounded by JSON_MAX_DEPTH. */
static bool skip_nested(json_reader *json, int depth) {
    skip_space(json);
    if (json->problem || json->at == json->end) return fail(json, "expected a value");
    char c = *json->at, *string;
    bool first = true;
    if (c == '"') return json_string(json, &string);
    if (c == '-' || (c >= '0' && c <= '9')) return skip_number(json);
    if (c == 't') return skip_word(json, "true");
    if (c == 'f') return skip_word(json, "false");
    if (c == 'n') return skip_word(json, "null");
    if (c != '[' && c != '{') return fail(json, "expected a value");
    if (depth == JSON_MAX_DEPTH) return fail(json, "nested too deeply");
    while (json_more(json, c, c == '{' ? '}' : ']', &first)) {
        if (c == '{' && !(json_string(json, &string) && json_expect(json, ':'))) return false;
        if (!skip_nested(json, depth + 1)) return false;
    }
    return !json->problem;
}

bool json_skip_value(json_reader *json) { return skip_nested(json, 0); }
