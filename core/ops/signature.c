/* signature.c: parses the signatures of the table of ops (grammar: op.h) and checks attributes. */
#include "core/ops/signature.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The parsed table: made once, read only afterwards -------------------------------------- */

enum { MAX_OPS = 160 };
static op_signature parsed[MAX_OPS];
static bool valid[MAX_OPS];
static int by_name[MAX_OPS]; /* row numbers in the order of names */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static char *trim(char *text) {
    while (*text == ' ') text++;
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == ' ') text[--length] = 0;
    return text;
}

static bool parse_tensor(op_signature *signature, char *text) {
    if (signature->tensors == SIGNATURE_MAX_TENSORS) return false;
    resin_op_argument *tensor = &signature->tensor[signature->tensors++];
    size_t length = strlen(text);
    bool deferred = length && text[length - 1] == '~';
    if (deferred) text[--length] = 0;
    char mark = length ? text[length - 1] : 0;
    *tensor = (resin_op_argument){.name = text, .kind = "tensor", .fallback = "required",
                                  .optional = mark == '?', .variadic = mark == '*'};
    signature->deferred[signature->tensors - 1] = deferred;
    if (mark == '?' || mark == '*') text[length - 1] = 0;
    if (tensor->variadic) signature->variadic = true;
    if (!tensor->optional) signature->required_tensors = signature->tensors;
    return text[0] != 0;
}

static bool parse_default(const char *kind, const char *text, op_value *value) {
    if (strcmp(text, "required") == 0) return true;
    if (strcmp(kind, "string") == 0) {
        snprintf(value->string, sizeof value->string, "%s", text);
    } else if (strcmp(kind, "bool") == 0) {
        value->integer = strcmp(text, "true") == 0;
        return value->integer || strcmp(text, "false") == 0;
    } else if (strcmp(kind, "ints") == 0 || strcmp(kind, "axes") == 0) {
        if (strcmp(text, "none") == 0) return true;
        value->count = 1;
        value->ints[0] = strtoll(text, NULL, 10);
    } else if (strcmp(kind, "number") == 0 || strcmp(kind, "int") == 0 ||
               strcmp(kind, "axis") == 0 || strcmp(kind, "base") == 0) {
        value->number = strtod(text, NULL);
        value->integer = strcmp(kind, "number") == 0 ? 0 : strtoll(text, NULL, 10);
    } else {
        return false;
    }
    return true;
}

/* "name: kind = default" */
static bool parse_attribute(op_signature *signature, char *text) {
    if (signature->attributes == RESIN_MAX_ATTRIBUTES) return false;
    char *colon = strchr(text, ':'), *equals = strchr(text, '=');
    if (!colon || !equals || equals < colon) return false;
    *colon = *equals = 0;
    int index = signature->attributes++;
    resin_op_argument *attribute = &signature->attribute[index];
    *attribute = (resin_op_argument){.name = trim(text), .kind = trim(colon + 1),
                                     .fallback = trim(equals + 1)};
    return parse_default(attribute->kind, attribute->fallback, &signature->fallback[index]);
}

static bool parse(const char *text, op_signature *signature) {
    int length = snprintf(signature->text, sizeof signature->text, "%s", text);
    if (length >= (int)sizeof signature->text) return false;
    char *rest = signature->text, *tensors = strsep(&rest, ";");
    for (char *part; (part = strsep(&tensors, ",")) != NULL;)
        if (!parse_tensor(signature, trim(part))) return false;
    for (char *part; rest && (part = strsep(&rest, ",")) != NULL;)
        if (!parse_attribute(signature, trim(part))) return false;
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(op_table[*(const int *)a].name, op_table[*(const int *)b].name);
}

static void parse_all(void) {
    for (int i = 0; i < op_table_count && i < MAX_OPS; i++) {
        valid[i] = parse(op_table[i].signature, &parsed[i]);
        by_name[i] = i;
    }
    qsort(by_name, (size_t)op_table_count, sizeof by_name[0], compare_names);
}

int signature_find(const char *name) {
    pthread_once(&once, parse_all);
    int low = 0, high = op_table_count - 1;
    while (low <= high) {
        int middle = (low + high) / 2, order = strcmp(name, op_table[by_name[middle]].name);
        if (order == 0) return by_name[middle];
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return -1;
}

const op_signature *signature_of(int index) {
    pthread_once(&once, parse_all);
    return &parsed[index];
}

bool signature_valid(int index) {
    pthread_once(&once, parse_all);
    return valid[index];
}

int resin_op_count(void) { return op_table_count; }

resin_op_info resin_op_describe(int index) {
    const op_row *row = &op_table[index];
    const op_signature *signature = signature_of(index);
    return (resin_op_info){.name = row->name, .signature = row->signature, .doc = row->doc,
                           .check = row->check, .tensor_count = signature->tensors,
                           .attribute_count = signature->attributes,
                           .tensor = signature->tensor, .attribute = signature->attribute};
}

/* ---- The attributes of a call --------------------------------------------------------------- */

static resin_status wrong_kind(resin_context *context, const char *op,
                               const resin_op_argument *attribute) {
    return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: %s must be %s%s", op, attribute->name,
                      strchr("aeiou", attribute->kind[0]) ? "an " : "a ", attribute->kind);
}

static resin_status convert(resin_context *context, const char *op,
                            const resin_op_argument *attribute, const resin_attribute *given,
                            op_value *value) {
    const char *kind = attribute->kind;
    bool integral = given->kind == RESIN_VALUE_INT ||
                    (given->kind == RESIN_VALUE_NUMBER &&
                     given->number >= -0x1p53 && given->number <= 0x1p53 &&
                     given->number == (double)(int64_t)given->number);
    int64_t integer = given->kind == RESIN_VALUE_INT || given->kind == RESIN_VALUE_BOOL
                          ? given->integer
                          : integral ? (int64_t)given->number : 0;
    *value = (op_value){0};
    if (strcmp(kind, "string") == 0) {
        if (given->kind != RESIN_VALUE_STRING || !given->string)
            return wrong_kind(context, op, attribute);
        snprintf(value->string, sizeof value->string, "%s", given->string);
    } else if (strcmp(kind, "bool") == 0) {
        if (given->kind != RESIN_VALUE_BOOL) return wrong_kind(context, op, attribute);
        value->integer = given->integer != 0;
    } else if (strcmp(kind, "number") == 0) {
        if (given->kind != RESIN_VALUE_NUMBER && given->kind != RESIN_VALUE_INT)
            return wrong_kind(context, op, attribute);
        value->number = given->kind == RESIN_VALUE_INT ? (double)given->integer : given->number;
    } else if (strcmp(kind, "ints") == 0 || strcmp(kind, "axes") == 0) {
        if (given->kind == RESIN_VALUE_INTS) {
            if (given->count < 0 || given->count > RESIN_MAX_INTS)
                return resin_fail(context, RESIN_ERROR_ARGUMENT,
                                  "%s: %s takes at most %d integers, got %d", op, attribute->name,
                                  RESIN_MAX_INTS, given->count);
            value->count = given->count;
            memcpy(value->ints, given->ints, sizeof value->ints);
        } else if (integral) {
            value->count = 1;
            value->ints[0] = integer;
        } else {
            return wrong_kind(context, op, attribute);
        }
    } else {
        if (!integral) return wrong_kind(context, op, attribute);
        value->integer = integer;
    }
    return RESIN_OK;
}

resin_status signature_values(resin_context *context, int index, const resin_attribute *given,
                              int count, op_value value[RESIN_MAX_ATTRIBUTES]) {
    const op_signature *signature = signature_of(index);
    const char *op = op_table[index].name;
    bool set[RESIN_MAX_ATTRIBUTES] = {false};
    memcpy(value, signature->fallback, sizeof signature->fallback);
    for (int g = 0; g < count; g++) {
        int a = 0;
        while (a < signature->attributes &&
               strcmp(signature->attribute[a].name, given[g].name) != 0)
            a++;
        if (a == signature->attributes)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "%s: there is no option \"%s\"; its arguments are (%s)", op,
                              given[g].name, op_table[index].signature);
        RESIN_TRY(convert(context, op, &signature->attribute[a], &given[g], &value[a]));
        set[a] = true;
    }
    for (int a = 0; a < signature->attributes; a++)
        if (!set[a] && strcmp(signature->attribute[a].fallback, "required") == 0)
            return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: %s must be given; its arguments "
                              "are (%s)", op, signature->attribute[a].name,
                              op_table[index].signature);
    return RESIN_OK;
}
