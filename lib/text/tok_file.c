/* tok_file.c -- writes a tokenizer.json. */

#include "text/tok_file.h"

#include <stdlib.h>
#include <string.h>

enum { ID_MAX = 1 << 24 };

void tok_file_init(struct tok_file *f)
{
    *f = (struct tok_file){.bos = -1, .unk = -1};
}

void tok_file_token(struct tok_file *f, int64_t id, const char *name, size_t len, const char *who)
{
    if (id < 0 || id > ID_MAX)
        die_misused("%s: a token has the id %lld", who, (long long)id);
    if (id >= f->cap) {
        int64_t cap = MAX(id + 1, 2 * f->cap);
        f->name = xrealloc(f->name, (size_t)cap * sizeof *f->name);
        memset(f->name + f->cap, 0, (size_t)(cap - f->cap) * sizeof *f->name);
        f->cap = cap;
    }
    if (f->name[id].data)
        die_misused("%s: two tokens have the id %lld", who, (long long)id);
    f->size = MAX(f->size, id + 1);
    buf_add(&f->name[id], name, len);
}

static struct file_added *find_added(struct tok_file *f, int64_t id)
{
    for (int64_t i = 0; i < f->addeds; i++)
        if (f->added[i].id == id)
            return &f->added[i];
    return NULL;
}

struct file_added *tok_file_added(struct tok_file *f, int64_t id)
{
    int64_t at = f->addeds;

    if (find_added(f, id))
        return find_added(f, id);
    f->added = xrealloc(f->added, (size_t)(f->addeds + 1) * sizeof *f->added);
    for (; at && f->added[at - 1].id > id; at--)
        f->added[at] = f->added[at - 1];
    f->addeds++;
    f->added[at] = (struct file_added){.id = id};
    return &f->added[at];
}

void byte_level_text(struct buf *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        utf8_add(out, byte_level_char((uint8_t)bytes[i]));
}

void tok_file_byte_level(struct tok_file *f, const char *pattern)
{
    static const char bytes[] =
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":";

    if (pattern) {
        buf_str(&f->pre_tokenizer, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                                   "\"pattern\":{\"Regex\":");
        json_quote(&f->pre_tokenizer, pattern, strlen(pattern));
        buf_printf(&f->pre_tokenizer, "},\"behavior\":\"Isolated\",\"invert\":false},%sfalse}]}",
                   bytes);
    } else {
        buf_printf(&f->pre_tokenizer, "%strue}", bytes);
    }
    buf_printf(&f->decoder, "%strue}", bytes);
}

static int read_flag(struct json v, const char *key)
{
    struct json x;
    int yes = 0;

    return json_get(v, key, &x) && !json_bool(x, &yes) && yes;
}

/* {"content": ..., flags} */
static void take_added(struct tok_file *f, int64_t id, struct json v, const char *path)
{
    struct json content;
    size_t len = 0;
    const char *name = json_get(v, "content", &content) ? json_string(content, &len) : NULL;
    struct buf *old = id >= 0 && id < f->size ? &f->name[id] : NULL;

    if (!len)
        die_misused("%s: added token %lld has no \"content\"", path, (long long)id);
    for (int64_t i = 0; i < f->size; i++)
        if (i != id && f->name[i].len == len && !memcmp(f->name[i].data, name, len))
            die_misused("%s: added token \"%s\" has the id %lld, and is token %lld", path, name,
                        (long long)id, (long long)i);
    if (old && old->data && (old->len != len || memcmp(old->data, name, len))) {
        if (!find_added(f, id))
            die_misused("%s: added token \"%s\" has the id %lld, which is \"%s\"", path, name,
                        (long long)id, old->data);
        buf_release(old);
    }
    if (!old || !old->data)
        tok_file_token(f, id, name, len, path);
    struct file_added *a = tok_file_added(f, id);
    a->special = read_flag(v, "special");
    a->normalized = read_flag(v, "normalized");
    a->lstrip = read_flag(v, "lstrip");
    a->rstrip = read_flag(v, "rstrip");
    a->single_word = read_flag(v, "single_word");
}

void tok_file_config(struct tok_file *f, const char *path)
{
    char *config = tok_beside(path, "tokenizer_config.json"), *end;
    struct json_doc *doc = json_doc_new();
    struct buf text = {0};
    struct json root, list;
    struct json_iter i;
    const char *why;

    if (config) {
        text = read_file(config);
        if (json_parse(doc, text.data, text.len, &root, &why))
            die_misused("%s: %s", config, why);
        if (json_get(root, "added_tokens_decoder", &list) && json_type(list) == JSON_OBJECT)
            for (json_iter_init(&i, list); json_iter_next(&i);) {
                int64_t id = strtoll(i.key, &end, 10);
                if (*end || end == i.key)
                    die_misused("%s: \"%s\" is no id of an added token", config, i.key);
                take_added(f, id, i.value, config);
            }
    }
    buf_release(&text);
    json_doc_free(doc);
    free(config);
}

static void write_name(const struct tok_file *f, int64_t id, struct buf *json)
{
    json_quote(json, f->name[id].data, f->name[id].len);
}

static const char *flag(int yes)
{
    return yes ? "true" : "false";
}

static void write_added(const struct tok_file *f, struct buf *json)
{
    for (int64_t i = 0; i < f->addeds; i++) {
        const struct file_added *a = &f->added[i];
        buf_printf(json, "%s\n{\"id\":%lld,\"content\":", i ? "," : "", (long long)a->id);
        write_name(f, a->id, json);
        buf_printf(json,
                   ",\"single_word\":%s,\"lstrip\":%s,\"rstrip\":%s,\"normalized\":%s,"
                   "\"special\":%s}",
                   flag(a->single_word), flag(a->lstrip), flag(a->rstrip), flag(a->normalized),
                   flag(a->special));
    }
}

static void write_post_processor(const struct tok_file *f, struct buf *json)
{
    struct buf bos = {0};

    if (f->bos < 0) {
        buf_str(json, "null");
        return;
    }
    write_name(f, f->bos, &bos);
    buf_printf(json,
               "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":%s,"
               "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{"
               "\"SpecialToken\":{\"id\":%s,\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
               "\"type_id\":0}},{\"SpecialToken\":{\"id\":%s,\"type_id\":1}},{\"Sequence\":{"
               "\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{%s:{\"id\":%s,\"ids\":[%lld],"
               "\"tokens\":[%s]}}}",
               bos.data, bos.data, bos.data, bos.data, bos.data, (long long)f->bos, bos.data);
    buf_release(&bos);
}

void tok_file_write(struct tok_file *f, struct buf *json)
{
    const struct buf *const steps[] = {&f->normalizer, &f->pre_tokenizer, &f->decoder};
    const char *step[3];
    int64_t written = 0;

    for (int i = 0; i < 3; i++)
        step[i] = steps[i]->len ? steps[i]->data : "null";
    buf_str(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    write_added(f, json);
    buf_printf(json, "],\n\"normalizer\":%s,\n\"pre_tokenizer\":", step[0]);
    buf_printf(json, "%s,\n\"post_processor\":", step[1]);
    write_post_processor(f, json);
    buf_printf(
        json,
        ",\n\"decoder\":%s,\n\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":", step[2]);
    if (f->unk < 0)
        buf_str(json, "null");
    else
        write_name(f, f->unk, json);
    buf_printf(json,
               ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,"
               "\"byte_fallback\":%s,\"ignore_merges\":%s,\n\"vocab\":{",
               flag(f->fuse_unk), flag(f->byte_fallback), flag(f->ignore_merges));
    for (int64_t i = 0; i < f->size; i++) {
        if (!f->name[i].data)
            continue;
        buf_str(json, written++ ? ",\n" : "\n");
        write_name(f, i, json);
        buf_printf(json, ":%lld", (long long)i);
    }
    buf_str(json, "},\n\"merges\":[");
    for (int64_t i = 0; i < f->merge.n; i += 2) {
        struct buf both = {0}; /* no token that merges has a space */
        const struct buf *a = &f->name[f->merge.id[i]], *b = &f->name[f->merge.id[i + 1]];
        buf_add(&both, a->data, a->len);
        buf_char(&both, ' ');
        buf_add(&both, b->data, b->len);
        buf_str(json, i ? ",\n" : "\n");
        json_quote(json, both.data, both.len);
        buf_release(&both);
    }
    buf_str(json, "]}}\n");
}

void tok_file_release(struct tok_file *f)
{
    for (int64_t i = 0; i < f->size; i++)
        buf_release(&f->name[i]);
    free(f->name);
    free(f->added);
    ids_release(&f->merge);
    buf_release(&f->normalizer);
    buf_release(&f->pre_tokenizer);
    buf_release(&f->decoder);
}
