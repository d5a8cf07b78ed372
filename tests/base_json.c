/* base_json.c -- claims on reading, writing and editing JSON. */
#include "base/base.h"
#include "tap.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct json_doc *doc;

static struct json parse(const char *text)
{
    struct json v = {0};
    const char *why;
    if (json_parse(doc, text, strlen(text), &v, &why))
        die("%s: %s", text, why);
    return v;
}

static int refuses(const char *text, size_t len, const char *reason)
{
    struct json v;
    const char *why = "accepted";
    if (json_parse(doc, text, len, &v, &why) && !strcmp(why, reason))
        return 1;
    printf("# %.*s: %s\n", (int)MIN(len, 60), text, why);
    return 0;
}

static void test_refusals(void)
{
    static const char misplaced[] =
        "not JSON: a comma, brace, bracket, colon or key is missing or misplaced";
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "empty document"},
        {" \n", "empty document"},
        {"{\"a\":1,}", misplaced},
        {"[1,]", misplaced},
        {"[1] 2", misplaced},
        {"{}{}", misplaced},
        {"{a:1}", misplaced},
        {"{\"a\" 1}", misplaced},
        {"[1", misplaced},
        {"'a'", misplaced},
        {"NaN", misplaced},
        {"// c\n1", misplaced},
        {"\xef\xbb\xbf{}", misplaced}, /* a byte-order mark */
        {"truth", "malformed true, false or null"},
        {"[nul]", "malformed true, false or null"},
        {"[01]", "malformed number"},
        {"[1.]", "malformed number"},
        {"[\"1.\",-]", "malformed number"},
        {"[1e]", "malformed number"},
        {"[0x10]", "malformed number"},
        {"[1e999]", "number out of range"},
        {"[\"\\\"01\", 18446744073709551616]", "number out of range"},
        {"-9223372036854775809", "number out of range"},
        {"\"\\x\"", "malformed string"},
        {"\"\\ud800\"", "malformed string"},
        {"\"\\udc00\\ud800\"", "malformed string"},
        {"\"a", "string without an end"},
        {"\"a\nb\"", "control character in a string"},
        {"\"\xff\"", "not valid UTF-8"},
        {"\"\xc0\x80\"", "not valid UTF-8"},
        {"\"\xed\xa0\x80\"", "not valid UTF-8"}, /* a surrogate */
    };
    for (int i = 0; i < ARRAY_LEN(cases); i++)
        ok(refuses(cases[i].text, strlen(cases[i].text), cases[i].why), "refuses case %d: %s", i,
           cases[i].why);
    ok(refuses("1\0", 2, "malformed number") && refuses("[]\0", 3, misplaced), "refuses a NUL");
    char deep[4000];
    memset(deep, '[', 2000);
    memset(deep + 2000, ']', 2000);
    ok(refuses(deep, 4000, "nested deeper than 1024 levels"), "refuses 2000 levels");
    struct json v;
    const char *why;
    ok(!json_parse(doc, deep + 1000, 2000, &v, &why), "takes 1000 levels");
}

static void test_values(void)
{
    struct json v =
        parse(" {\"i\":-5,\"u\":18446744073709551615,\"r\":2.5,\"s\":\"a\\u0000\\ud83d\\ude00\","
              "\"t\":true,\"n\":null,\"l\":[1,[2,3],{}],\"\":7, \"min\":-9223372036854775808}\n");
    struct json x;
    int64_t n;
    double r;
    int b;
    size_t len;
    ok(json_type(v) == JSON_OBJECT && json_count(v) == 9, "an object of nine members");
    ok(json_get(v, "i", &x) && json_type(x) == JSON_INT && !json_int(x, &n) && n == -5, "integer");
    ok(json_get(v, "min", &x) && !json_int(x, &n) && n == INT64_MIN, "the least integer");
    ok(json_get(v, "u", &x) && json_type(x) == JSON_INT && json_int(x, &n) && !json_real(x, &r) &&
           r == 0x1p64,
       "an integer of 64 bits without sign is no int64_t, but a number");
    ok(json_get(v, "r", &x) && json_type(x) == JSON_REAL && json_int(x, &n) && !json_real(x, &r) &&
           r == 2.5,
       "a real is no integer");
    const char *s = json_get(v, "s", &x) ? json_string(x, &len) : NULL;
    ok(s && len == 6 && !memcmp(s, "a\0\xf0\x9f\x98\x80", 7), "a string with a NUL and a pair");
    ok(json_get(v, "t", &x) && !json_bool(x, &b) && b == 1 && json_int(x, &n), "true");
    ok(json_get(v, "n", &x) && json_type(x) == JSON_NULL && json_bool(x, &b), "null");
    ok(json_get(v, "", &x) && !json_int(x, &n) && n == 7, "the empty key");
    ok(!json_get(v, "missing", &x) && !json_get(x, "a", &x), "what is not there is not found");
    ok(!json_string(v, &len) && json_real(v, &r), "an object is neither string nor number");
    struct json_iter i;
    int members = 0;
    for (json_iter_init(&i, v); json_iter_next(&i);)
        members += i.key_len == strlen(i.key);
    ok(members == 9, "iteration meets every member");
    ok(json_get(v, "l", &x) && json_count(x) == 3, "an array counts its own elements");
    struct buf out = {0};
    for (json_iter_init(&i, x); json_iter_next(&i);) {
        json_write(&out, i.value);
        buf_char(&out, i.key ? '!' : ';');
    }
    ok(!strcmp(out.data, "1;[2,3];{};"), "iteration steps over nested values");
    json_iter_init(&i, (json_get(v, "i", &x), x));
    ok(!json_iter_next(&i) && json_count(x) == 0, "a number has no elements");
    buf_reset(&out);
    json_write(&out, v);
    ok(!strcmp(out.data,
               "{\"i\":-5,\"u\":18446744073709551615,\"r\":2.5,\"s\":\"a\\u0000\xf0\x9f\x98\x80\","
               "\"t\":true,\"n\":null,\"l\":[1,[2,3],{}],\"\":7,\"min\":-9223372036854775808}"),
       "json_write is compact, exact and keeps the order");
    buf_release(&out);
}

static void test_duplicates(void)
{
    static const char *const none[] = {"{\"a\":1,\"b\":{\"a\":2}}", "[{\"a\":1},{\"a\":1}]",
                                       "{\"a\":\"a\",\"aa\":1}", "\"a\"", "[]"};
    int clean = 1;
    for (int i = 0; i < ARRAY_LEN(none); i++)
        clean &= !json_duplicate_key(parse(none[i]));
    ok(clean, "equal keys in different objects are no duplicates");
    const char *key =
        json_duplicate_key(parse("[0,{\"x\":{\"b\":1,\"c\":[1.5,{}],\"\\u0062\":2}}]"));
    ok(key && !strcmp(key, "b"), "a duplicate is found deep down, however it is escaped");
    struct buf b = {0};
    for (int i = 0; i < 30000; i++)
        buf_printf(&b, "%s\"k%d\":%d", i ? "," : "{", i, i);
    buf_str(&b, "}");
    ok(!json_duplicate_key(parse(b.data)), "30000 different keys");
    b.len--;
    buf_str(&b, ",\"k777\":0}");
    key = json_duplicate_key(parse(b.data));
    ok(key && !strcmp(key, "k777"), "one duplicate among 30001 keys");
    buf_release(&b);
}

static void test_large(void)
{
    /* simdjson's own count saturates at 2^24 - 1. */
    int64_t n = (1 << 24) + 5;
    struct buf b = {0};
    buf_reserve(&b, (size_t)n * 2 + 2);
    for (int64_t i = 0; i < n; i++) {
        b.data[b.len++] = i ? ',' : '[';
        b.data[b.len++] = '0';
    }
    buf_str(&b, "]");
    struct json v;
    const char *why;
    ok(!json_parse(doc, b.data, b.len, &v, &why) && json_count(v) == n,
       "an array of more than 2^24 elements is counted");
    buf_release(&b);
}

static int number_is(double x, const char *text)
{
    struct buf b = {0};
    json_number(&b, x);
    int same = !strcmp(b.data, text);
    if (!same)
        printf("# %s, wanted %s\n", b.data, text);
    buf_release(&b);
    return same;
}

static void test_numbers(void)
{
    ok(number_is(3, "3") && number_is(-1e6, "-1000000") && number_is(0, "0"), "integers are plain");
    ok(number_is(0.1, "0.1") && number_is(1.0 / 3, "0.3333333333333333") &&
           number_is(0.1 + 0.2, "0.30000000000000004"),
       "15, 16 or 17 digits");
    ok(number_is(1e300, "1e+300") && number_is(5e-324, "5e-324"), "very large and very small");
    ok(number_is(-0.0, "-0.0"), "minus zero keeps its sign");
    ok(number_is(NAN, "null") && number_is(-INFINITY, "null"), "what is not finite is null");
    int same = 1;
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t r[4];
        double x, y;
        rng_bits(r, 1, 0, i);
        memcpy(&x, r, 8);
        if (!isfinite(x))
            continue;
        struct buf b = {0};
        json_number(&b, x);
        same &= !json_real(parse(b.data), &y) && !memcmp(&x, &y, 8);
        buf_release(&b);
    }
    ok(same, "20000 random doubles read back to the same bits");
    static const char *const commas[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *locale = NULL;
    for (int i = 0; i < ARRAY_LEN(commas) && !locale; i++)
        locale = setlocale(LC_ALL, commas[i]);
    if (locale)
        ok(number_is(0.5, "0.5"), "a locale with a decimal comma changes nothing");
    else
        skip("a locale with a decimal comma changes nothing", "no such locale is installed");
    setlocale(LC_ALL, "C");
}

static void test_quote(void)
{
    char all[256];
    struct buf b = {0};
    size_t len;
    for (int i = 0; i < 128; i++)
        all[i] = (char)i;
    json_quote(&b, all, 128);
    const char *s = json_string(parse(b.data), &len);
    ok(len == 128 && !memcmp(s, all, 128), "every ASCII character survives quoting");
    buf_reset(&b);
    json_quote(&b, "\"\\\n\x01\x7f\xc3\xa9", 7);
    ok(!strcmp(b.data, "\"\\\"\\\\\\n\\u0001\x7f\xc3\xa9\""), "no more is escaped than must be");
    buf_reset(&b);
    json_quote(&b, NULL, 0);
    ok(!strcmp(b.data, "\"\""), "nothing is the empty string");
    buf_release(&b);
}

static void test_edit(void)
{
    static const struct {
        const char *text, *key, *value, *want;
    } cases[] = {
        {"{}", "a", "1", "{\"a\":1}"},
        {" { } \n", "a", "1", " {\"a\":1 } \n"},
        {"{\"a\": 1.50 , \"b\":2}\n", "c", "3", "{\"a\": 1.50 , \"b\":2,\"c\":3}\n"},
        {"{\"a\": 1.50 , \"b\":2}\n", "b", "[3]", "{\"a\": 1.50 , \"b\":[3]}\n"},
        {"{\"a\": 1.50 , \"b\":2}\n", "a", "null", "{\"a\": null , \"b\":2}\n"},
        {"{\"a\": 1.50 , \"b\":2}", "a", NULL, "{\"b\":2}"},
        {"{\"a\": 1.50 , \"b\":2}", "b", NULL, "{\"a\": 1.50}"},
        {"{\"a\":1,\"b\":2,\"c\":3}", "b", NULL, "{\"a\":1,\"c\":3}"},
        {"{ \"a\":1 }", "a", NULL, "{  }"},
        {"{\"a\":1}", "z", NULL, "{\"a\":1}"},
        {"{\"x\":{\"a\":[\"}\",\"\\\"]\"]},\"a\":true}", "a", "0",
         "{\"x\":{\"a\":[\"}\",\"\\\"]\"]},\"a\":0}"},
        {"{\"x\":\"\\\\\",\"a\":-1e5}", "a", "0", "{\"x\":\"\\\\\",\"a\":0}"},
        {"{\"\\u0061\":1}", "a", "2", "{\"\\u0061\":2}"},
        {"{\"a\\n\":1}", "a", "2", "{\"a\\n\":1,\"a\":2}"},
        {"{\"a\":1}", "q\"", "2", "{\"a\":1,\"q\\\"\":2}"},
    };
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        char *exact = xmemdup(cases[i].text, strlen(cases[i].text)); /* no NUL to lean on */
        json_edit(&b, exact, strlen(cases[i].text), cases[i].key, cases[i].value);
        ok(!strcmp(b.data, cases[i].want), "edit %d: %s", i, b.data);
        free(exact);
        buf_release(&b);
    }
}

int main(void)
{
    doc = json_doc_new();
    test_refusals();
    test_values();
    test_duplicates();
    test_large();
    test_numbers();
    test_quote();
    test_edit();
    json_doc_free(doc);
    return finish();
}
