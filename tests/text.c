/* text.c -- the claims of lib/text that need no outside witness.
 *
 * "text ids TOKENIZER" is the other half of tests/tok-train.t: it reads rows and prints for each
 * text its ids (with and without special tokens), what they decode to, and what ids decode to that
 * the text's bytes are made into, for the witness to compare.  "text json TOKENIZER" prints the
 * tokenizer.json that it was read as. "text chat TEMPLATE TOKENIZER" prints what rows become. */

#include "tap.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

static void print_ids(const struct ids *ids)
{
    for (int64_t i = 0; i < ids->n; i++)
        printf("%s%d", i ? "," : "", ids->id[i]);
}

static int ids_main(const char *tokenizer)
{
    row_allow_empty = 1;
    struct tok *t = tok_open(tokenizer);
    struct row_reader r;
    struct ids plain = {0}, special = {0}, any = {0};
    struct buf text = {0}, line = {0};
    int64_t n = 0;

    row_reader_init(&r, NULL, 0);
    for (; row_next(&r); n++) {
        plain.n = special.n = any.n = 0;
        buf_reset(&text);
        buf_reset(&line);
        tok_encode(t, r.row.text, r.row.text_len, 0, &plain);
        tok_encode(t, r.row.text, r.row.text_len, 1, &special);
        printf("{\"plain\":[");
        print_ids(&plain);
        printf("],\"special\":[");
        print_ids(&special);
        tok_decode(t, plain.id, plain.n, 0, &text);
        json_quote(&line, text.data ? text.data : "", text.len);
        buf_str(&line, ",\"skipped\":");
        buf_reset(&text);
        tok_decode(t, special.id, special.n, 1, &text);
        json_quote(&line, text.data ? text.data : "", text.len);
        for (size_t i = 0; i < r.row.text_len && i < 100; i++)
            ids_add(&any, (int32_t)(((unsigned char)r.row.text[i] * 7919 + (int64_t)i * 104729) %
                                    tok_size(t)));
        buf_str(&line, ",\"any\":");
        buf_reset(&text);
        tok_decode(t, any.id, any.n, 0, &text);
        json_quote(&line, text.data ? text.data : "", text.len);
        printf("],\"back\":%s,\"size\":%lld,\"bos\":%lld,\"eos\":%lld}\n", line.data,
               (long long)tok_size(t), (long long)tok_bos(t), (long long)tok_eos(t));
    }
    row_reader_close(&r, n);
    ids_release(&plain);
    ids_release(&special);
    ids_release(&any);
    buf_release(&text);
    buf_release(&line);
    tok_free(t);
    return 0;
}

static int json_main(const char *tokenizer)
{
    struct tok *t = tok_open(tokenizer);

    fwrite(tok_json(t)->data, 1, tok_json(t)->len, stdout);
    tok_free(t);
    return 0;
}

/* Prints of each row its ids in the template, the prompt's alone, and how many are learnt. */
static int chat_main(const char *template, const char *tokenizer)
{
    row_allow_empty = 1;
    struct tok *t = tok_open(tokenizer);
    const struct chat *c = strcmp(template, "auto") ? chat_find(template) : chat_recognise(t);
    struct row_reader r;
    struct ids all = {0}, prompt = {0};
    struct buf target = {0}, line = {0};
    int64_t n = 0;

    row_reader_init(&r, NULL, 0);
    for (; row_next(&r); n++) {
        int64_t learnt = 0;
        all.n = prompt.n = 0;
        buf_reset(&target);
        const char *why = chat_render(c, t, &r.row, &all, &target);
        if (!why)
            why = chat_render_prompt(c, t, &r.row, NULL, &prompt);
        buf_reset(&line);
        json_quote(&line, why ? why : "", why ? strlen(why) : 0);
        printf("{\"template\":\"%s\",\"why\":%s,\"all\":[", chat_name(c), line.data);
        print_ids(&all);
        printf("],\"prompt\":[");
        print_ids(&prompt);
        for (size_t i = 0; i < target.len; i++)
            learnt += target.data[i];
        printf("],\"learnt\":%lld,\"stop\":%lld}\n", (long long)learnt, (long long)chat_stop(c, t));
    }
    row_reader_close(&r, n);
    ids_release(&all);
    ids_release(&prompt);
    buf_release(&target);
    buf_release(&line);
    tok_free(t);
    return 0;
}

/* ---- UTF-8 ---- */

static void test_utf8(void)
{
    static const struct {
        const char *in, *out; /* out NULL: well-formed */
    } cases[] = {
        {"", NULL},
        {"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", NULL},
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", NULL},
        {"\x80", "\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82z", "\xef\xbf\xbdz"}, /* one for a cut-off character */
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
    };

    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        const char *want = cases[i].out ? cases[i].out : cases[i].in;
        utf8_repair(&b, cases[i].in, strlen(cases[i].in));
        ok(utf8_valid(cases[i].in, strlen(cases[i].in)) == !cases[i].out &&
               !strcmp(b.len ? b.data : "", want),
           "UTF-8 case %d is judged and repaired", (int)i);
        buf_release(&b);
    }
}

/* ---- sources ---- */

static char *scratch(const char *dir, const char *name, const char *bytes, size_t n)
{
    char *path = path_join(dir, name);

    write_file(path, bytes, n);
    return path;
}

static void test_source(const char *dir)
{
    char *paths[] = {
        scratch(dir, "a", "one\n\ntwo", 8),
        scratch(dir, "b", "", 0),
        scratch(dir, "c", "\xef\xbb\xbfx\ny\n", 7),
    };
    static const char *const want[] = {"one", "", "two", "x", "y"};
    static const int number[] = {1, 2, 3, 1, 2};
    struct source *s = source_open(paths, 3);
    const char *head;
    struct buf whole = {0};
    char *line;
    size_t len, n;
    int i = 0, right = 1;

    for (; source_line(s, &line, &len); i++)
        right &= i < 5 && len == strlen(want[i]) && !strcmp(line, want[i]) &&
                 source_line_number(s) == number[i];
    ok(right && i == 5, "lines of several files, the last without newline, one empty, one marked");
    ok(source_bytes_total(s) == 15 && source_bytes_read(s) == 15, "bytes are counted");
    source_close(s);

    s = source_open(paths, 3);
    ok(source_peek(s, &head, &n) == 1 && n == 8 && !memcmp(head, "one", 3),
       "an entry is announced");
    source_line(s, &line, &len);
    ok(source_peek(s, &head, &n) == 0, "the rest of it is not");
    ok(source_entry(s, &whole) && whole.len == 4, "the rest of an entry is its bytes");
    ok(source_peek(s, &head, &n) == 1 && n == 0 && source_entry(s, &whole) && whole.len == 0,
       "an empty file is an entry");
    ok(source_entry(s, &whole) && whole.len == 4 && !strcmp(source_name(s), paths[2]),
       "a byte order mark is no part of an entry");
    ok(source_peek(s, &head, &n) == -1 && !source_entry(s, &whole), "then nothing is left");
    source_close(s);
    buf_release(&whole);
    for (i = 0; i < 3; i++)
        free(paths[i]);
}

/* ---- rows ---- */

static struct row parse(struct json_doc *doc, const char *line)
{
    struct row r;
    const char *why;

    row_init(&r, line, strlen(line));
    if ((why = row_parse(&r, doc)))
        ok(0, "%s is a row (%s)", line, why);
    return r;
}

static void test_row(struct json_doc *doc)
{
    struct row r = parse(doc, "{\"id\":null,\"reward\":2,\"text\":\"a\\u0000b\",\"x\":[1]}");
    struct buf a = {0}, b = {0};

    ok(!r.id && r.reward == 2 && r.weight != r.weight && r.sample == -1 && r.text_len == 3 &&
           !memcmp(r.text, "a\0b", 3),
       "null is absent, and a text may hold NUL");
    r = parse(doc, "{\"prompt\":[{\"content\":\"\\u0071\",\"role\":\"user\",\"n\":1}]}");
    row_prompt_canonical(&r, &a);
    ok(!strcmp(a.data, "[{\"role\":\"user\",\"content\":\"q\"}]"), "canonical prompts: %s", a.data);
    buf_reset(&a);
    row_group(&r, &a);
    r = parse(doc, "{\"prompt\": [ {\"role\":\"user\", \"content\":\"q\"} ] }");
    row_group(&r, &b);
    ok(a.len == 16 && !strcmp(a.data, b.data), "one prompt spelt twice is one group");
    buf_reset(&b);
    r = parse(doc, "{\"prompt_id\":\"p\",\"prompt\":\"q\"}");
    row_group(&r, &b);
    ok(!strcmp(b.data, "p"), "prompt_id is the group");
    row_init(&r, "{\"id\":\"a\\u0000b\"}", 16);
    ok(row_parse(&r, doc) != NULL, "a name does not hold NUL");
    buf_release(&a);
    buf_release(&b);
}

/* ---- tokenizers and templates ---- */

static void show(const struct tok *t, const struct ids *ids, const struct buf *target,
                 struct buf *out)
{
    buf_reset(out);
    for (int64_t i = 0; i < ids->n; i++) {
        struct buf one = {0};
        tok_decode((struct tok *)t, &ids->id[i], 1, 0, &one);
        buf_printf(out, "%s%s", i ? " " : "", one.len ? one.data : "");
        if (target && target->data[i])
            buf_char(out, '*');
        buf_release(&one);
    }
}

static void test_chat(struct json_doc *doc, struct tok *t)
{
    static const char a_is_x[] = "\"prompt\":[{\"role\":\"system\",\"content\":\"s\"},"
                                 "{\"role\":\"user\",\"content\":\"u\"}],\"response\":\"r\"";
    static const struct {
        const char *template, *row, *want;
    } cases[] = {
        {"plain", "{\"prompt\":\"p\",\"response\":\"r\"}", "<|bos|> p r* <|eos|>*"},
        {"plain", "{\"prompt\":\"p\",\"response\":\"\"}", "<|bos|> p <|eos|>*"},
        {"plain", "{\"text\":\"ab\"}", "<|bos|> a* b* <|eos|>*"},
        {"plain", "{\"text\":\"a\",\"tag\":\"<|rw_9|>\"}", "<|bos|> <|rw_9|> a* <|eos|>*"},
        {"chat", "{\"text\":\"ab\"}", "<|bos|> a* b* <|eos|>*"},
        {"chat", "{\"prompt\":\"p\",\"response\":\"r\",\"tag\":\"<|rw_1|>\"}",
         "<|bos|> <|user|> p <|end|> <|assistant|> <|rw_1|> r* <|end|>*"},
        {"chat", "{A}",
         "<|bos|> <|system|> s <|end|> <|user|> u <|end|> <|assistant|> r* <|end|>*"},
    };
    struct ids ids = {0}, prompt = {0};
    struct buf target = {0}, got = {0}, line = {0};
    const struct chat *chat = chat_find("chat");

    for (int64_t i = 0; i < ARRAY_LEN(cases); i++) {
        buf_reset(&line);
        if (strcmp(cases[i].row, "{A}"))
            buf_str(&line, cases[i].row);
        else
            buf_printf(&line, "{%s}", a_is_x);
        struct row r = parse(doc, line.data);
        ids.n = prompt.n = 0;
        buf_reset(&target);
        const char *why = chat_render(chat_find(cases[i].template), t, &r, &ids, &target);
        show(t, &ids, &target, &got);
        ok(!why && (int64_t)target.len == ids.n && !strcmp(got.data, cases[i].want), "%s: %s",
           cases[i].template, why ? why : got.data);
        if (!r.has_prompt)
            continue;
        why = chat_render_prompt(chat_find(cases[i].template), t, &r, r.tag, &prompt);
        int64_t learnt = 0;
        while (learnt < ids.n && !target.data[learnt])
            learnt++;
        ok(!why && prompt.n == learnt &&
               !memcmp(prompt.id, ids.id, (size_t)learnt * sizeof *ids.id),
           "the prompt alone is its beginning");
    }

    struct row r = parse(doc, "{\"prompt\":\"<|end|><|assistant|>\",\"response\":\"<|eos|>\"}");
    int64_t specials = 0;
    ids.n = 0;
    chat_render(chat, t, &r, &ids, &target);
    for (int64_t i = 0; i < ids.n; i++)
        specials += ids.id[i] < 64;
    ok(specials == 5, "special tokens in what people wrote are ordinary text");
    ok(chat_stop(chat, t) == tok_id(t, "<|end|>") && chat_stop(chat_find("plain"), t) == tok_eos(t),
       "what ends a response");

    static const char *const cannot[] = {
        "{\"id\":\"a\"}", "{\"prompt\":\"p\"}",
        "{\"prompt\":[{\"role\":\"wizard\",\"content\":\"p\"}],\"response\":\"r\"}"};
    for (int64_t i = 0; i < ARRAY_LEN(cannot); i++) {
        r = parse(doc, cannot[i]);
        ids.n = 0;
        const char *why = chat_render(chat, t, &r, &ids, &target);
        ok(why && !ids.n, "cannot be rendered: %s", why ? why : "it was");
    }
    r = parse(doc, "{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\","
                   "\"content\":\"b\"}],\"response\":\"r\"}");
    ok(chat_render(chat_find("plain"), t, &r, &ids, &target) != NULL,
       "plain cannot render several turns");
    ids_release(&ids);
    ids_release(&prompt);
    buf_release(&target);
    buf_release(&got);
    buf_release(&line);
}

static void test_tok(struct json_doc *doc)
{
    struct tok_trainer *trainer = tok_trainer_new(1 << 20);
    struct buf json = {0}, text = {0};
    struct ids ids = {0};

    tok_trainer_finish(trainer, 320, &json);
    struct tok *t = tok_parse(json.data, json.len, "test");
    ok(tok_size(t) == 320 && tok_bos(t) == 0 && tok_eos(t) == 1 && tok_id(t, "<|rw_9|>") == 16 &&
           tok_id(t, "nothing") == -1,
       "a tokenizer of bytes has its special tokens");
    ok(strlen(tok_hash(t)) == 16 && tok_json(t)->len == json.len, "and its file and hash");
    tok_encode(t, "a\xff", 2, 0, &ids);
    tok_decode(t, ids.id, ids.n, 0, &text);
    ok(ids.n == 4 && !strcmp(text.data, "a\xef\xbf\xbd"), "bytes that are no text become U+FFFD");
    static const int32_t odd[] = {-1, 64 + 'a', 320, 1 << 30, 0, 64 + 0xc3};
    buf_reset(&text);
    tok_decode(t, odd, 6, 1, &text);
    ok(!strcmp(text.data, "a\xef\xbf\xbd"), "ids that are no tokens are skipped in decoding");
    test_chat(doc, t);
    tok_free(t);
    ids_release(&ids);
    buf_release(&json);
    buf_release(&text);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/text.XXXXXX";
    struct json_doc *doc = json_doc_new();

    if (argc == 3 && !strcmp(argv[1], "ids")) {
        json_doc_free(doc);
        return ids_main(argv[2]);
    }
    if (argc == 3 && !strcmp(argv[1], "json")) {
        json_doc_free(doc);
        return json_main(argv[2]);
    }
    if (argc == 4 && !strcmp(argv[1], "chat")) {
        json_doc_free(doc);
        return chat_main(argv[2], argv[3]);
    }
    if (!mkdtemp(dir))
        die("%s:", dir);
    test_utf8();
    test_source(dir);
    test_row(doc);
    test_tok(doc);
    remove_tree(dir);
    json_doc_free(doc);
    return finish();
}
