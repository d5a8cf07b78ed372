/* json_parse.cc -- simdjson's DOM parser behind three C functions.
 *
 * simdjson checks UTF-8 and reads up to 64 bytes past the text, so the text is copied into a padded
 * buffer that the document keeps and reuses. */
#include "json_tape.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <simdjson.h>

namespace
{
struct document : json_doc {
    simdjson::dom::parser parser;
    char *padded = nullptr;
    size_t room = 0;
};

/* The end of the number at p, or NULL when it breaks the grammar.  A number that simdjson refuses
 * and that is sound was refused for its size. */
const char *number_end(const char *p, const char *end)
{
    auto digits = [&] {
        const char *from = p;
        while (p < end && *p >= '0' && *p <= '9')
            p++;
        return p - from;
    };
    if (p < end && *p == '-')
        p++;
    bool zero = p < end && *p == '0';
    ptrdiff_t whole = digits();
    if (whole == 0 || (zero && whole > 1))
        return nullptr;
    if (p < end && *p == '.' && (p++, digits() == 0))
        return nullptr;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        if (digits() == 0)
            return nullptr;
    }
    return p == end || std::memchr(",]} \t\r\n", *p, 7) ? p : nullptr;
}

/* simdjson has one error for numbers that are malformed and for those too large. */
const char *number_complaint(const char *text, size_t len)
{
    const char *p = text, *end = text + len;
    while (p < end) {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++)
                if (*p == '\\')
                    p++;
            p++;
        } else if (*p == '-' || (*p >= '0' && *p <= '9')) {
            if (!(p = number_end(p, end)))
                return "malformed number";
        } else {
            p++;
        }
    }
    return "number out of range";
}

const char *complaint(simdjson::error_code e)
{
    switch (e) {
    case simdjson::CAPACITY:
        return "document larger than 4 GiB";
    case simdjson::MEMALLOC:
        return "out of memory";
    case simdjson::DEPTH_ERROR:
        return "nested deeper than 1024 levels";
    case simdjson::STRING_ERROR:
        return "malformed string";
    case simdjson::UNCLOSED_STRING:
        return "string without an end";
    case simdjson::UNESCAPED_CHARS:
        return "control character in a string";
    case simdjson::UTF8_ERROR:
        return "not valid UTF-8";
    case simdjson::EMPTY:
        return "empty document";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR:
        return "malformed true, false or null";
    default:
        return "not JSON: a comma, brace, bracket, colon or key is missing or misplaced";
    }
}
} // namespace

struct json_doc *json_doc_new(void)
{
    document *d = new (std::nothrow) document;
    if (!d)
        std::abort();
    return d;
}

void json_doc_free(struct json_doc *doc)
{
    document *d = static_cast<document *>(doc);
    if (d)
        std::free(d->padded);
    delete d;
}

int json_tape_parse(struct json_doc *doc, const char *text, size_t len, const char **why)
{
    document *d = static_cast<document *>(doc);
    size_t need = len + simdjson::SIMDJSON_PADDING;
    if (need > d->room) {
        size_t room = need + need / 2;
        char *p = static_cast<char *>(std::realloc(d->padded, room));
        if (!p) {
            *why = complaint(simdjson::MEMALLOC);
            return -1;
        }
        d->padded = p;
        d->room = room;
    }
    if (len)
        std::memcpy(d->padded, text, len);
    std::memset(d->padded + len, ' ', simdjson::SIMDJSON_PADDING);
    simdjson::error_code e = d->parser.parse(d->padded, len, false).error();
    if (e) {
        *why = e == simdjson::NUMBER_ERROR ? number_complaint(d->padded, len) : complaint(e);
        return -1;
    }
    d->tape = d->parser.doc.tape.get();
    d->strings = d->parser.doc.string_buf.get();
    return 0;
}
