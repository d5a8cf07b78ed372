/* set_open.c -- opens a set, a file or a stream, and proves that it is whole.
 *
 * Everything is read and verified once and is mapped from then on, so memory is the page cache's. A
 * stream is first copied, blob by blob, to a file without a name. */
#include "shard/shard_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static void file_add(struct set *s, const char *name, const void *bytes, size_t n,
                     const char *where)
{
    char hash[17];
    hash_hex(hash, hash_xxh3(bytes, n));
    if (!strcmp(name, "tokenizer.json") && strcmp(hash, s->info.tokenizer_hash))
        die_damaged("%s: its tokenizer.json is not the tokenizer that made the rows", where);
    for (int64_t i = 0; i < s->files; i++)
        if (!strcmp(s->file[i].name, name)) {
            const struct buf *first = &s->file[i].bytes;
            s->file[i].torn |= first->len != n || (n && memcmp(first->data, bytes, n));
            return;
        }
    s->file = xrealloc(s->file, (size_t)(s->files + 1) * sizeof *s->file);
    struct file *f = &s->file[s->files++];
    *f = (struct file){.name = xstrdup(name)};
    buf_add(&f->bytes, bytes, n);
}

/* Takes a verified blob whose tensors lie in the mapping. */
static const struct rows *group_add(struct set *s, const struct blob *b, void *map, size_t bytes,
                                    const char *where)
{
    struct set_info info;
    char *why = set_info_get(&info, b);
    if (why)
        die_damaged("%s: %s", where, why);
    if (!s->info.seq)
        set_info_copy(&s->info, &info);
    const char *what = set_info_differ(&s->info, &info);
    if (what)
        die_damaged("%s: %s of row group %lld is not that of those before it", where, what,
                    (long long)s->groups);
    set_info_release(&info);

    if ((s->groups & (s->groups - 1)) == 0)
        s->group = xrealloc(s->group, (size_t)MAX(8, 2 * s->groups) * sizeof *s->group);
    struct group *g = &s->group[s->groups++];
    *g = (struct group){.first = s->sequences, .first_row = s->rows, .map = map, .bytes = bytes};
    if ((why = rows_view(&g->rows, &s->info, b)) || (why = rows_check(&g->rows, s->info.seq)))
        die_damaged("%s: row group %lld: %s", where, (long long)s->groups - 1, why);
    fingerprint_add(&s->print, &g->rows);
    s->sequences += g->rows.sequences;
    s->rows += g->rows.rows;
    s->tokens += g->rows.tokens;
    for (int64_t i = 0; i < b->tensors; i++)
        if (!strncmp(b->tensor[i].name, "file.", 5))
            file_add(s, b->tensor[i].name + 5, b->tensor[i].data, (size_t)b->tensor[i].bytes,
                     where);
    madvise(map, bytes, MADV_DONTNEED); /* as set_forget() */
    return &g->rows;
}

/* Maps one shard file and verifies all of it.  own: receives the header's hash. */
static const struct rows *shard_add(struct set *s, const char *path, char own[17])
{
    struct shard_file *f = shard_open(path);
    size_t bytes;
    void *map = shard_map(f, &bytes);
    const struct blob *b = shard_header(f);
    for (int64_t i = 0; i < b->tensors; i++) {
        const struct tensor *t = &b->tensor[i];
        char *why = tensor_verify(b, t, hash_xxh3(t->data, (size_t)t->bytes));
        if (why)
            die_damaged("%s: %s", path, why);
    }
    const struct rows *r = group_add(s, b, map, bytes, path);
    memcpy(own, blob_get(b, "xxh3.header"), 17);
    shard_close(f);
    return r;
}

static int spool_open(void)
{
    const char *dir = getenv("TMPDIR");
    dir = dir && *dir ? dir : "/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* not every file system can */
        char *name = path_join(dir, "moeutils-XXXXXX");
        fd = mkostemp(name, O_CLOEXEC);
        if (fd < 0 || unlink(name))
            die("open a temporary file in %s:", dir);
        free(name);
    }
    return fd;
}

static void stream_add(struct set *s, const char *path)
{
    const char *name = strcmp(path, "-") ? path : "stdin";
    struct stream *in = stream_open(path);
    int fd = spool_open();
    int64_t page = sysconf(_SC_PAGESIZE), at = 0;
    struct blob b;
    while (stream_next(in, &b)) {
        int64_t n = MAX(header_data_bytes(&b), 1);
        if (lseek(fd, at, SEEK_SET) < 0 || write_all(fd, n > 1 ? b.memory : "", (size_t)n))
            die("write a temporary file:");
        void *map = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, fd, at);
        if (map == MAP_FAILED)
            die("map a temporary file:");
        for (int64_t i = 0; i < b.tensors; i++)
            b.tensor[i].data = (char *)map + b.tensor[i].at;
        group_add(s, &b, map, (size_t)n, name);
        at += (n + page - 1) / page * page;
    }
    close(fd);
    stream_close(in);
}

/* ---- manifest.json ---- */

static const char *need_text(const char *path, struct json object, const char *key)
{
    struct json v;
    size_t n;
    const char *s = json_get(object, key, &v) ? json_string(v, &n) : NULL;
    if (!s)
        die_damaged("%s: lacks the text \"%s\"", path, key);
    return s;
}

static int64_t need_count(const char *path, struct json object, const char *key, int64_t least)
{
    struct json v;
    int64_t n;
    if (!json_get(object, key, &v) || json_int(v, &n) || n < least)
        die_damaged("%s: lacks the count \"%s\"", path, key);
    return n;
}

static void same_count(const char *path, const char *of, const char *what, int64_t said, int64_t is)
{
    if (said != is)
        die_damaged("%s: %s: %lld %s, but there are %lld", path, of, (long long)said, what,
                    (long long)is);
}

static void manifest_file(struct set *s, const char *manifest, struct json entry)
{
    const char *name = need_text(manifest, entry, "name");
    if (!*name || *name == '.' || strchr(name, '/'))
        die_damaged("%s: \"%s\" is not the name of a file here", manifest, name);
    char *path = path_join(s->path, name), own[17];
    struct stat st;
    if (stat(path, &st))
        die_damaged("%s: missing, though manifest.json names it", path);
    same_count(manifest, name, "bytes", need_count(manifest, entry, "bytes", 0), st.st_size);
    struct json v;
    if (json_get(entry, "rows", &v)) {
        const struct rows *r = shard_add(s, path, own);
        if (strcmp(own, need_text(manifest, entry, "xxh3.header")))
            die_damaged("%s: is not the file that manifest.json describes", path);
        same_count(manifest, name, "rows", need_count(manifest, entry, "rows", 0), r->rows);
        same_count(manifest, name, "tokens", need_count(manifest, entry, "tokens", 0), r->tokens);
        same_count(manifest, name, "sequences", need_count(manifest, entry, "sequences", 0),
                   r->sequences);
    } else {
        struct buf bytes = read_file(path);
        char sha256[65];
        hash_sha256(sha256, bytes.data, bytes.len);
        if (strcmp(sha256, need_text(manifest, entry, "sha256")))
            die_damaged("%s: damaged: its SHA-256 is not that of manifest.json", path);
        file_add(s, name, bytes.data, bytes.len, s->path);
        buf_release(&bytes);
    }
    free(path);
}

static struct json_doc *manifest_parse(const char *folder, struct json *root, struct json *files)
{
    char *path = path_join(folder, "manifest.json");
    if (!path_exists(path))
        die_damaged("%s: no manifest.json: not a set, or not a finished one", folder);
    struct buf text = read_file(path);
    struct json_doc *doc = json_doc_new();
    const char *why;
    if (json_parse(doc, text.data, text.len, root, &why))
        die_damaged("%s: %s", path, why);
    if ((why = json_duplicate_key(*root)))
        die_damaged("%s: the key \"%s\" stands twice", path, why);
    if (json_type(*root) != JSON_OBJECT ||
        strcmp(need_text(path, *root, "schema"), "moeutils.set") ||
        need_count(path, *root, "version", 1) != 1)
        die_damaged("%s: not the manifest of a set, or of another version", path);
    if (!json_get(*root, "files", files) || json_type(*files) != JSON_ARRAY)
        die_damaged("%s: lacks the list \"files\"", path);
    buf_release(&text);
    free(path);
    return doc;
}

static void manifest_add(struct set *s)
{
    struct json root, files;
    struct json_doc *doc = manifest_parse(s->path, &root, &files);
    char *path = path_join(s->path, "manifest.json");
    s->info = (struct set_info){
        .seq = need_count(path, root, "seq", 1),
        .tokenizer_hash = xstrdup(need_text(path, root, "tokenizer")),
        .columns = xstrdup(need_text(path, root, "columns")),
        .template = xstrdup(need_text(path, root, "template")),
        .bos = need_count(path, root, "bos", -1),
        .eos = need_count(path, root, "eos", -1),
    };
    struct json_iter i;
    for (json_iter_init(&i, files); json_iter_next(&i);)
        manifest_file(s, path, i.value);
    same_count(path, "in all", "sequences", need_count(path, root, "sequences", 0), s->sequences);
    same_count(path, "in all", "rows", need_count(path, root, "rows", 0), s->rows);
    same_count(path, "in all", "tokens", need_count(path, root, "tokens", 0), s->tokens);
    fingerprint_end(&s->print, &s->info, s->hash);
    if (strcmp(s->hash, need_text(path, root, "fingerprint")))
        die_damaged("%s: the data are not those it describes", path);
    json_doc_free(doc);
    free(path);
}

void set_check_files(const struct set *s)
{
    struct json root, files;
    struct json_doc *doc = manifest_parse(s->path, &root, &files);
    struct json_iter i;
    int64_t shards, named = 0;
    for (json_iter_init(&i, files); json_iter_next(&i);) {
        const char *name = need_text(s->path, i.value, "name");
        char *path = path_join(s->path, name), sha256[65];
        struct json rows;
        if (hash_sha256_file(sha256, path))
            die("read %s:", path);
        if (strcmp(sha256, need_text(s->path, i.value, "sha256")))
            die_damaged("%s: damaged: its SHA-256 is not that of manifest.json", path);
        named += json_get(i.value, "rows", &rows);
        free(path);
    }
    char **name = shard_list(s->path, &shards);
    if (shards != named)
        die_damaged("%s: %lld shards, manifest.json names %lld", s->path, (long long)shards,
                    (long long)named);
    for (int64_t k = 0; k < shards; k++)
        free(name[k]);
    free(name);
    json_doc_free(doc);
}

struct set *set_open(const char *path)
{
    struct set *s = xcalloc(1, sizeof *s);
    char own[17];
    s->path = xstrdup(path);
    fingerprint_start(&s->print);
    if (strcmp(path, "-") && path_is_dir(path)) {
        manifest_add(s);
        return s;
    }
    if (shard_is_file(path))
        shard_add(s, path, own);
    else
        stream_add(s, path);
    fingerprint_end(&s->print, &s->info, s->hash);
    return s;
}
