/* shard.c -- the container from the inside: what is written is read back, what is damaged is
 * refused by name, packing loses nothing, and the order of data is what mix_sample() promises. */
#include "shard/shard.h"
#include "tap.h"

#include <fcntl.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/shard-test-XXXXXX";

static char *in_dir(const char *name)
{
    return path_join(dir, name);
}

/* Whether use(path) ends the process with this status and words that match. */
static int dies(int status, const char *pattern, void (*use)(const char *), const char *path)
{
    char words[2000] = {0};
    int fd[2], end;
    if (pipe(fd))
        return 0;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(fd[1], STDERR_FILENO);
        use(path);
        _exit(0);
    }
    close(fd[1]);
    for (size_t n = 0; n + 1 < sizeof words;) {
        ssize_t got = read(fd[0], words + n, sizeof words - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fd[0]);
    waitpid(child, &end, 0);
    regex_t re;
    regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB);
    int right = WIFEXITED(end) && WEXITSTATUS(end) == status && !regexec(&re, words, 0, NULL, 0);
    regfree(&re);
    if (!right)
        printf("# status %d, wanted %d; /%s/ against: %s\n", WEXITSTATUS(end), status, pattern,
               words);
    return right;
}

static void use_file(const char *path)
{
    struct shard_file *f = shard_open(path);
    const struct blob *b = shard_header(f);
    for (int64_t i = 0; i < b->tensors; i++) {
        void *p = xmalloc((size_t)b->tensor[i].bytes + 1);
        shard_read(f, &b->tensor[i], p);
        free(p);
    }
    shard_close(f);
}
static void use_stream(const char *path)
{
    struct stream *s = stream_open(path);
    struct blob b;
    while (stream_next(s, &b))
        ;
    stream_close(s);
}
static void use_set(const char *path)
{
    set_close(set_open(path));
}

static void put(const char *path, const void *p, size_t n)
{
    write_file(path, p, n);
}
static void flip(const char *from, const char *to, int64_t at)
{
    struct buf b = read_file(from);
    b.data[at < 0 ? (int64_t)b.len + at : at] ^= 4;
    put(to, b.data, b.len);
    buf_release(&b);
}
static void cut(const char *from, const char *to, int64_t n)
{
    struct buf b = read_file(from);
    put(to, b.data, n < 0 ? b.len - (size_t)-n : (size_t)n);
    buf_release(&b);
}

static void test_file(void)
{
    char *path = in_dir("a.safetensors"), *again = in_dir("b.safetensors"), *bad = in_dir("bad");
    float w[6] = {1, 2, 3, 4, 5, 6}; /* (2, 3) */
    uint8_t flag[3] = {1, 0, 1};     /* (3) */
    int64_t big[2] = {1, -1};        /* (2) */
    uint16_t half[1] = {0x3f80};     /* () */
    const struct {
        const char *name;
        enum dtype type;
        int ndim;
        int64_t shape[2];
        const void *data;
    } given[] = {{"w", DT_F32, 2, {2, 3}, w},
                 {"flag", DT_BOOL, 1, {3}, flag},
                 {"big", DT_I64, 1, {2}, big},
                 {"half", DT_BF16, 0, {0}, half},
                 {"none", DT_F32, 2, {0, 5}, NULL}};
    for (int order = 0; order < 2; order++) {
        struct blob b = {0};
        blob_meta(&b, "schema", "moeutils.test");
        blob_meta(&b, "quote", "\"\\\n\xc3\xa9");
        for (int i = 0; i < 5; i++) {
            int k = order ? 4 - i : i;
            blob_tensor(&b, given[k].name, given[k].type, given[k].ndim, given[k].shape,
                        given[k].data);
        }
        struct out *o = out_open(order ? again : path);
        blob_write(&b, o, SHARD_FILE_ALIGN);
        out_close(o);
        blob_release(&b);
    }
    struct buf x = read_file(path), y = read_file(again);
    ok(x.len == y.len && !memcmp(x.data, y.data, x.len),
       "bytes do not depend on the order of adding");
    ok(x.len == 4096 + 16 + 24 + 2 + 3, "data begin at 4096, nothing is padded");
    struct blob b = {0};
    blob_meta(&b, "schema", "moeutils.test");
    blob_meta(&b, "quote", "\"\\\n\xc3\xa9");
    for (int i = 0; i < 5; i++)
        blob_tensor(&b, given[i].name, given[i].type, given[i].ndim, given[i].shape, NULL);
    struct blob_file *o = blob_file_open(&b, again);
    const void *in_place[] = {big, NULL, w, half, flag};
    for (int i = 0; i < 5; i++)
        for (int64_t at = 0, m; at < b.tensor[i].bytes; at += m) {
            m = MIN(5, b.tensor[i].bytes - at);
            blob_file_put(o, (const char *)in_place[i] + at, m);
        }
    int64_t bytes = blob_file_close(o);
    blob_release(&b);
    buf_release(&y);
    y = read_file(again);
    ok(bytes == (int64_t)x.len && x.len == y.len && !memcmp(x.data, y.data, x.len),
       "the same bytes come of tensors put piece by piece");

    struct shard_file *f = shard_open(path);
    const struct blob *h = shard_header(f);
    float got[6];
    ok(shard_is_file(path) && h->tensors == 5 && !strcmp(h->tensor[0].name, "big") &&
           !strcmp(h->tensor[1].name, "none") && !strcmp(h->tensor[4].name, "flag"),
       "tensors stand by width, then by name");
    ok(!strcmp(blob_get(h, "quote"), "\"\\\n\xc3\xa9") && !blob_get(h, "nothing"),
       "metadata come back as they were");
    const struct tensor *t = blob_find(h, "w");
    shard_read(f, t, got);
    ok(t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3 && !memcmp(got, w, sizeof w),
       "a tensor comes back");
    shard_read_part(f, t, 8, 8, got);
    ok(got[0] == 3 && got[1] == 4, "so does a part of it");
    ok(blob_find(h, "half")->ndim == 0 && !blob_find(h, "x") && blob_find(h, "none")->bytes == 0,
       "tensors are found by name, without dimensions or elements too");
    shard_close(f);

    int caught = 0, n = (int)x.len;
    for (int at = 0; at < n; at += at < 900 ? 13 : at < 4096 ? 211 : 3) {
        flip(path, bad, at);
        caught += dies(EXIT_DAMAGED, "bad: .", use_file, bad);
    }
    int tried = (900 + 12) / 13;
    for (int at = tried * 13; at < n; at += at < 4096 ? 211 : 3)
        tried++;
    ok(caught == tried, "a flipped bit anywhere is damage (%d of %d)", caught, tried);
    for (int64_t at = 0; at < n; at += 97)
        cut(path, bad, at), caught += !dies(EXIT_DAMAGED, "bad: .", use_file, bad);
    ok(caught == tried, "a file cut anywhere is damage");
    x.data[x.len - 1] ^= 1;
    put(bad, x.data, x.len);
    ok(dies(EXIT_DAMAGED, "bad: tensor \"flag\" is damaged: it hashes to", use_file, bad),
       "damaged data name the tensor");
    buf_release(&x);
    buf_release(&y);
    free(path), free(again), free(bad);
}

/* ---- packing ---- */

enum { DOCS = 300, SEQ = 64 };
static int32_t doc_token[DOCS][SEQ];
static uint8_t doc_target[DOCS][SEQ];
static int64_t doc_length[DOCS];

static void docs_make(void)
{
    uint64_t key = rng_key(1, "docs");
    for (int i = 0; i < DOCS; i++) {
        doc_length[i] = 1 + rng_permute(key, 40, i % 40);
        for (int t = 0; t < doc_length[i]; t++) {
            doc_token[i][t] = 1000 * i + t;
            doc_target[i][t] = t % 3 > 0;
        }
    }
    doc_length[7] = SEQ; /* one fills a sequence */
    for (int t = 0; t < SEQ; t++)
        doc_token[7][t] = 7000 + t;
}

static char tokenizer_hash[17]; /* of "{}\n" */

static void pack(const char *path, int64_t group_tokens, int64_t window, int pairs)
{
    struct set_info info = {
        SEQ, tokenizer_hash, pairs ? "weight,pair,margin,ref_logp" : "weight,reward", "plain", 1,
        -1};
    struct packer *p = packer_open(path, &info, group_tokens);
    packer_window(p, window);
    packer_file(p, "tokenizer.json", "{}\n", 3);
    for (int i = 0; i < DOCS; i++) {
        struct doc d = {doc_token[i], doc_target[i],      doc_length[i], i / 8.0,
                        -i,           pairs ? i / 2 : -1, i / 4.0,       -i / 2.0};
        if (pairs && (i / 2 == 3))
            d.n = SEQ / 2;
        packer_add(p, &d);
    }
    packer_close(p, "{\"tool\":\"test\"}");
}

/* Every document is there once, whole, with its weight; returns the padding, or -1. */
static int64_t pads_or_fault(const struct set *s, int pairs)
{
    int32_t token[SEQ], document[SEQ];
    uint8_t target[SEQ];
    float weight[SEQ];
    int seen[DOCS] = {0};
    int64_t pads = 0;
    for (int64_t i = 0; i < set_sequences(s); i++) {
        set_sequence(s, i, token, target, document, weight);
        int last = -1;
        for (int64_t at = 0; at < SEQ;) {
            if (document[at] < 0) {
                if (token[at] || target[at] || weight[at])
                    return -1;
                pads++, at++;
                continue;
            }
            int d = token[at] / 1000, n = (int)doc_length[d];
            if (pairs && d / 2 == 3)
                n = SEQ / 2;
            if (document[at] != last + 1 || at + n > SEQ || seen[d]++)
                return -1;
            for (int t = 0; t < n; t++, at++)
                if (token[at] != doc_token[d][t] || target[at] != doc_target[d][t] ||
                    document[at] != last + 1 || weight[at] != (float)(d / 8.0))
                    return -1;
            last++;
            if (pairs && !(d % 2) && (at >= SEQ || token[at] != doc_token[d + 1][0]))
                return -1;
        }
    }
    for (int d = 0; d < DOCS; d++)
        if (seen[d] != 1)
            return -1;
    return pads;
}

/* Whether set_documents() and set_row() tell of each document what pack() said. */
static int documents_hold(const struct set *s, int pairs)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < set_sequences(s); i++) {
        struct set_doc d[SEQ];
        int64_t n = set_documents(s, i, d);
        for (int64_t k = 0; k < n; k++, rows++) {
            struct doc row;
            if (set_row(s, rows, &row) != i)
                return 0;
            int no = row.token[0] / 1000;
            if (d[k].weight != (float)(no / 8.0) || d[k].pair != (pairs ? no / 2 : -1) ||
                (pairs ? !isnan(d[k].reward) : d[k].reward != -no) ||
                d[k].margin != (pairs ? no / 4.0 : 0) || d[k].ref_logp != (pairs ? -no / 2.0 : 0) ||
                row.margin != d[k].margin || row.ref_logp != d[k].ref_logp)
                return 0;
        }
    }
    return rows == set_rows(s);
}

static void test_pack(void)
{
    char hash[17], *set = in_dir("set/"), *many = in_dir("many/"), *best = in_dir("best/");
    char *file = in_dir("one.safetensors"), *stream = in_dir("s.sts"),
         *frames = in_dir("s.sts.zst");
    docs_make();
    hash_hex(tokenizer_hash, hash_xxh3("{}\n", 3));
    pack(set, 1 << 20, 1, 0);
    pack(many, 500, 1, 0);
    pack(best, 500, 100, 0);
    pack(file, 500, 1, 0);
    pack(stream, 500, 1, 0);
    pack(frames, 500, 1, 0);

    struct set *s = set_open(set);
    int64_t next_fit = pads_or_fault(s, 0), sequences = set_sequences(s);
    strcpy(hash, set_hash(s));
    ok(next_fit >= 0 && set_rows(s) == DOCS, "every document is in the set once, with its weight");
    ok(set_tokens(s) + next_fit == sequences * SEQ, "tokens and pads fill the sequences");
    ok(set_info(s)->seq == SEQ && set_info(s)->bos == 1 && set_info(s)->eos == -1 &&
           !strcmp(set_info(s)->template, "plain") &&
           !strcmp(set_info(s)->columns, "weight,reward"),
       "what the rows share comes back");
    ok(set_file(s, "tokenizer.json")->len == 3 && !set_file(s, "config.json"), "so does a file");
    ok(documents_hold(s, 0), "documents without pairs come with theirs");
    set_close(s);

    const char *other[] = {many, file, stream, frames};
    for (int i = 0; i < 4; i++) {
        s = set_open(other[i]);
        ok(pads_or_fault(s, 0) == next_fit && !strcmp(hash, set_hash(s)) &&
               set_file(s, "tokenizer.json"),
           "the same data, same fingerprint and file from %s", other[i] + sizeof dir);
        set_close(s);
    }
    s = set_open(best);
    int64_t pads = pads_or_fault(s, 0);
    ok(pads >= 0 && pads < next_fit / 4,
       "best fit loses nothing and pads %lld where next fit pads %lld", (long long)pads,
       (long long)next_fit);
    set_close(s);

    char *pairs = in_dir("pairs/"), *pairs_best = in_dir("pairs.best/");
    doc_length[7] = SEQ / 2;
    for (int i = 0; i < DOCS; i++)
        doc_length[i] = MIN(doc_length[i], SEQ / 2);
    pack(pairs, 300, 1, 1);
    pack(pairs_best, 300, 64, 1);
    s = set_open(pairs);
    ok(pads_or_fault(s, 1) >= 0 && set_info_has(set_info(s), "pair") &&
           !set_info_has(set_info(s), "reward") && !set_info_has(set_info(s), "ref"),
       "pairs stay together");
    ok(documents_hold(s, 1), "documents of a sequence come with their values");
    set_close(s);
    s = set_open(pairs_best);
    ok(pads_or_fault(s, 1) >= 0, "best fit too");
    set_close(s);
    free(set), free(many), free(best), free(file), free(stream), free(frames);
    free(pairs), free(pairs_best);
}

static void test_damage(void)
{
    char *stream = in_dir("s.sts"), *bad = in_dir("bad.sts"), *set = in_dir("many"),
         *two = in_dir("2.sts");
    struct buf b = read_file(stream), z = {0};
    int64_t caught = 0, tried = 0, at[64], blobs = 0;
    for (size_t p = 0; p < b.len;) { /* where blobs begin */
        uint64_t n;
        at[blobs++] = (int64_t)p;
        memcpy(&n, b.data + p, 8);
        char *header = xstrndup(b.data + p + 8, n);
        int64_t end = 0;
        for (char *q = header; (q = strstr(q, "data_offsets\":[")); q++)
            end = MAX(end, strtoll(strchr(q, ',') + 1, NULL, 10));
        free(header);
        p += 8 + n + (size_t)end;
    }
    ok(blobs > 10, "the stream has %lld blobs", (long long)blobs);
    for (int64_t i = 1; i < blobs; i++)
        tried++, cut(stream, bad, at[i]),
            caught += dies(EXIT_DAMAGED, "cut off after blob [0-9]+: no end blob", use_stream, bad);
    ok(caught == tried, "a stream cut between any two blobs is damage");
    caught = tried = 0;
    for (size_t n = 1; n < b.len; n += 1013)
        tried++, cut(stream, bad, (int64_t)n), caught += dies(EXIT_DAMAGED, ".", use_set, bad);
    ok(caught == tried, "so is one cut elsewhere");

    buf_add(&z, b.data, (size_t)at[3]);
    buf_add(&z, b.data + at[4], b.len - (size_t)at[4]);
    put(bad, z.data, z.len);
    ok(dies(EXIT_DAMAGED, "blob 3: numbered 4: a blob is missing", use_stream, bad), "a lost blob");
    buf_reset(&z);
    buf_add(&z, b.data, b.len);
    buf_add(&z, b.data, b.len);
    put(two, z.data, z.len);
    struct set *s = set_open(two);
    ok(set_rows(s) == 2 * DOCS, "streams joined by cat are one");
    set_close(s);
    buf_add(&z, b.data, 5);
    put(bad, z.data, z.len);
    ok(dies(EXIT_DAMAGED, "cut off inside a header's length", use_stream, bad),
       "bytes after the end");
    put(bad, "", 0);
    ok(dies(EXIT_DAMAGED, "bad.sts: empty", use_stream, bad), "an empty stream");
    put(bad, b.data, (size_t)at[1]);
    ok(dies(EXIT_DAMAGED, "a stream, or a piece of one, and not a file", use_file, bad),
       "a stream's first blob is no file");

    char *frames = in_dir("s.sts.zst"), *shard = in_dir("many/data-00001.safetensors");
    cut(frames, bad, -3);
    ok(dies(EXIT_DAMAGED, "cut off inside a zstd frame", use_stream, bad), "a frame cut off");
    ok(dies(EXIT_DAMAGED, "no manifest.json", use_set, dir), "a folder without manifest");
    ok(dies(EXIT_FAILED, "open .*nowhere: No such file", use_set, "/nowhere"), "no such file");

    struct buf keep = read_file(shard);
    flip(shard, shard, -1);
    ok(dies(EXIT_DAMAGED, "data-00001.safetensors: tensor \"target\" is damaged", use_set, set),
       "a flipped bit in a set names file and tensor");
    char *first = in_dir("many/data-00000.safetensors");
    struct buf another = read_file(first);
    put(shard, another.data, another.len);
    ok(dies(EXIT_DAMAGED, "data-00001.safetensors", use_set, set), "one shard in place of another");
    unlink(shard);
    ok(dies(EXIT_DAMAGED, "data-00001.safetensors: missing", use_set, set), "a missing shard");
    put(shard, keep.data, keep.len - 1);
    ok(dies(EXIT_DAMAGED, "data-00001.safetensors: [0-9]+ bytes, but there are", use_set, set),
       "a shard cut off");
    put(shard, keep.data, keep.len);
    char *tokenizer = in_dir("many/tokenizer.json");
    put(tokenizer, "[]\n", 3);
    ok(dies(EXIT_DAMAGED, "tokenizer.json: damaged", use_set, set), "another tokenizer");
    put(tokenizer, "{}\n", 3);
    s = set_open(set);
    ok(set_rows(s) == DOCS, "mended, it opens");
    set_close(s);
    buf_release(&another), buf_release(&keep), buf_release(&b), buf_release(&z);
    free(stream), free(bad), free(set), free(two), free(frames), free(shard), free(first);
    free(tokenizer);
}

/* A stream of one document, and a file that is known only at the end. */
static void pack_tagged(const char *path, const char *tags, struct buf *joined)
{
    struct set_info info = {SEQ, tokenizer_hash, "weight,reward,pair,margin,ref_logp", "plain", 1,
                            -1};
    struct packer *p = packer_open(path, &info, 100);
    for (int i = 0; i < 2; i++) {
        struct doc d = {doc_token[i], doc_target[i], 5, 1, i, 0, 0.5, -i};
        packer_add(p, &d);
    }
    packer_file(p, "tokenizer.json", "{}\n", 3);
    packer_file(p, "tags.json", tags, strlen(tags));
    packer_close(p, "{}");
    struct buf b = read_file(path);
    buf_add(joined, b.data, b.len);
    buf_release(&b);
}

static void test_files(void)
{
    char *a = in_dir("a.sts"), *b = in_dir("b.sts"), *both = in_dir("ab.sts");
    struct buf joined = {0};
    pack_tagged(a, "one", &joined);
    pack_tagged(b, "two", &joined);
    put(both, joined.data, joined.len);
    struct set *s = set_open(a);
    struct set_doc doc[SEQ];
    ok(set_file(s, "tags.json")->len == 3 && set_file(s, "tokenizer.json")->len == 3,
       "files that come after the documents travel with them");
    ok(set_documents(s, 0, doc) == 2 && doc[1].reward == 1 && doc[0].margin == 0.5 &&
           doc[1].ref_logp == -1 && doc[1].pair == 0,
       "all columns come together");
    set_forget(s);
    ok(set_documents(s, 0, doc) == 2 && doc[1].reward == 1, "what was left is read again");
    set_close(s);
    s = set_open(both);
    ok(set_rows(s) == 4 && !set_file(s, "tags.json") && set_file(s, "tokenizer.json"),
       "of files that differ between segments none holds");
    set_close(s);
    buf_release(&joined);
    strcpy(tokenizer_hash, "0000000000000000");
    pack_tagged(a, "one", &joined);
    ok(dies(EXIT_DAMAGED, "a.sts: its tokenizer.json is not the tokenizer that made", use_set, a),
       "a foreign tokenizer is damage");
    buf_release(&joined);
    free(a), free(b), free(both);
}

/* ---- the order of data ---- */

static void test_mix(void)
{
    char *set = in_dir("set"), *best = in_dir("best");
    struct set *a = set_open(set), *b = set_open(best);
    struct set *sets[3] = {a, b, a};
    int64_t weights[][3] = {{3, 1, 2}, {1, 1, 1}, {7, 0, 5}, {100, 1, 13}};
    for (int k = 0; k < 4; k++) {
        struct mix m = {sets, weights[k], 3, 42};
        int64_t w = weights[k][0] + weights[k][1] + weights[k][2], n = 3 * w + 50;
        int64_t count[3] = {0}, *from = xmalloc((size_t)n * sizeof *from), q, faults = 0, apart = 0;
        for (int64_t i = 0; i < n; i++) {
            mix_sample(&m, i, &from[i], &q);
            count[from[i]]++;
            if (i >= w)
                count[from[i - w]]--;
            for (int j = 0; i >= w - 1 && j < 3; j++)
                faults += count[j] != weights[k][j];
            for (int j = 0; i < w && j < 3; j++) /* never a draw away from its share */
                apart += llabs(count[j] * w - (i + 1) * weights[k][j]) > w;
        }
        ok(!faults && !apart, "weights %lld %lld %lld hold in every window",
           (long long)weights[k][0], (long long)weights[k][1], (long long)weights[k][2]);
        free(from);
    }

    struct mix m = {sets, (int64_t[]){2, 1, 0}, 2, 7}, other = m;
    other.seed = 8;
    int64_t n = set_sequences(a), draw = 0, j, q;
    int64_t *passes = xcalloc((size_t)(3 * n), sizeof *passes);
    for (int64_t i = 0; draw < 3 * n; i++) {
        mix_sample(&m, i, &j, &q);
        if (j == 0)
            passes[draw++] = q;
    }
    int faults = 0, same = 0, seed_same = 0, in_order = 0;
    for (int e = 0; e < 3; e++) {
        char *seen = xcalloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++)
            faults += seen[passes[e * n + i]]++ != 0;
        free(seen);
    }
    for (int64_t i = 0; i < n; i++) {
        same += passes[i] == passes[n + i];
        in_order += passes[i] == i;
    }
    draw = 0;
    for (int64_t i = 0; draw < n; i++) {
        mix_sample(&other, i, &j, &q);
        if (j == 0)
            seed_same += passes[draw++] == q;
    }
    ok(!faults, "each pass takes every sequence once");
    ok(same < n / 4 && in_order < n / 4 && seed_same < n / 4,
       "each in an order of its own, by the seed");
    int64_t again = 0, j2, q2;
    for (int64_t i = 100; i > 0; i--) {
        mix_sample(&m, i, &j, &q);
        mix_sample(&m, i, &j2, &q2);
        again += j != j2 || q != q2;
    }
    ok(!again, "a sample depends on its number alone");
    struct mix huge = {sets, (int64_t[]){2000000000, 1999999999, 1}, 3, 1};
    int64_t count[3] = {0};
    for (int64_t i = 0; i < 1000; i++) {
        mix_sample(&huge, i * 3999999, &j, &q);
        count[j]++;
    }
    ok(llabs(count[0] - count[1]) < 60, "huge weights do not overflow");
    free(passes);
    set_close(a), set_close(b);
    free(set), free(best);
}

int main(void)
{
    tool_name = "shard";
    if (!mkdtemp(dir))
        return 1;
    test_file();
    test_pack();
    test_damage();
    test_files();
    test_mix();
    remove_tree(dir);
    return finish();
}
