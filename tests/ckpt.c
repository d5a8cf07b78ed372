/* ckpt.c -- checkpoints: what any world of ranks wrote, any other reads; what is damaged is
 * refused.
 *
 * Every element of every tensor is a pure function of set, name and place, so that a reader can be
 * held to the truth without a copy of what was written. */
#include "ckpt/ckpt.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char config_text[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":"
    "2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":6,\"num_local_experts\":4,"
    "\"num_experts_per_tok\":2,\"vocab_size\":20,\"max_position_embeddings\":16,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"extra\":{\"kept\":1}}";
static const char *const sets[] = {"exp_avg", "exp_avg_sq"};

static char scratch[] = "/tmp/ckpt.XXXXXX";
static struct config config;
static struct param *params;
static int64_t params_n;

/* Multiples of 1/64 below 2: the same in every float type that has 7 bits of fraction. */
static float truth(const char *set, const struct param *p, int64_t row, int64_t col)
{
    uint64_t key = rng_key(7, set) ^ rng_key(11, p->name);
    uint32_t bits[4];
    rng_bits(bits, key, (uint64_t)row, (uint64_t)col);
    return (float)(bits[0] % 256) / 128 - 1;
}

static float *rect_truth(const char *set, const struct param *p, struct rect r)
{
    float *x = xmalloc((size_t)(r.rows * r.cols + 1) * sizeof *x);
    for (int64_t i = 0; i < r.rows * r.cols; i++)
        x[i] = truth(set, p, r.row + i / r.cols, r.col + i % r.cols);
    return x;
}

/* ---- writing as a world of ranks does ---- */

struct world {
    const char *what;
    int ranks, tp, cp, pp, etp, ep;
    int has_index;
};
static const struct world worlds[] = {
    {"one rank", 1, 1, 1, 1, 1, 1, 1},
    {"2 ranks: DP", 2, 1, 1, 1, 1, 1, 1},
    {"2 ranks: EP", 2, 1, 1, 1, 1, 2, 1},
    {"2 ranks: PP", 2, 1, 1, 2, 1, 1, 1},
    {"4 ranks: TP, EP", 4, 2, 1, 1, 1, 2, 0},
    {"4 ranks: CP, ETP", 4, 1, 2, 1, 2, 1, 0},
    {"8 ranks: TP, PP, ETP, EP", 8, 2, 1, 2, 2, 2, 0},
};

static void *put(struct ckpt_writer *w, const char *set, const struct param *p, struct rect r,
                 enum dtype to)
{
    float *x = rect_truth(set, p, r);
    ckpt_put(w, set, p, r, x, DT_F32, to);
    return x;
}

/* A rank's slices of the model, and of each local slice what its optimizer shard has of it. */
static char *rank_write(const char *dir, const struct world *v, int rank, enum dtype model_type)
{
    struct mesh m;
    struct layout y;
    struct buf kept = {0};
    const char *why = mesh_init(&m, v->ranks, rank, v->tp, v->cp, v->pp, v->etp, v->ep);
    if (why)
        die("%s: %s", v->what, why);
    layout_init(&y, &m, params, params_n, (int)config.layers, (int)config.experts);
    struct ckpt_writer *w = ckpt_writer_open(dir, rank, v->ranks);
    for (int64_t i = 0; i < y.n; i++) {
        const struct local *l = &y.local[i];
        if (l->writes) {
            void *x = put(w, "model", l->p, l->r, model_type);
            buf_add(&kept, &x, sizeof x);
        }
        /* What TP replicates, each of its ranks has the moments of; the first one writes them. */
        const struct bucket *b = y.bucket;
        int64_t lo, hi;
        while (b < y.bucket + y.buckets && (b->buffer != l->buffer || b->at + b->n <= l->at))
            b++;
        if (b == y.bucket + y.buckets || (b->replicated && m.i_tp))
            continue;
        struct rect piece[3];
        int pieces = layout_part(b, l, &lo, &hi) ? rect_from_range(&l->r, lo, hi, piece) : 0;
        for (int s = 0; s < ARRAY_LEN(sets); s++)
            for (int k = 0; k < pieces; k++) {
                void *x = put(w, sets[s], l->p, piece[k], DT_F32);
                buf_add(&kept, &x, sizeof x);
            }
    }
    char *part = ckpt_writer_close(w);
    for (size_t i = 0; i < kept.len; i += sizeof(void *))
        free(*(void **)(kept.data + i));
    buf_release(&kept);
    layout_release(&y);
    return part;
}

static char *world_write(const char *name, const struct world *v, enum dtype model_type)
{
    char *path = path_join(scratch, name), *tmp = dir_begin(path), *part[8];
    for (int r = 0; r < v->ranks; r++)
        part[r] = rank_write(tmp, v, r, model_type);
    ckpt_manifest_write(tmp, part, v->ranks, "{\"step\":12,\"cursor\":\"18446744073709551615\"}",
                        &config, model_type);
    dir_publish(tmp, path);
    for (int r = 0; r < v->ranks; r++)
        free(part[r]);
    free(tmp);
    return path;
}

/* ---- reading ---- */

static int64_t wrong(struct ckpt *k, const char *set, const struct param *p, struct rect r)
{
    float *is = xmalloc((size_t)(r.rows * r.cols + 1) * sizeof *is),
          *should = rect_truth(set, p, r);
    int64_t bad = 0;
    ckpt_get(k, set, p, r, is, DT_F32);
    for (int64_t i = 0; i < r.rows * r.cols; i++)
        bad += is[i] != should[i];
    free(is);
    free(should);
    return bad;
}

static int64_t wrong_whole(struct ckpt *k)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < params_n; i++) {
        struct rect r = {0, 0, params[i].rows, MAX(1, params[i].cols)};
        bad += wrong(k, "model", &params[i], r);
        for (int s = 0; s < ARRAY_LEN(sets); s++)
            bad += wrong(k, sets[s], &params[i], r);
    }
    return bad;
}

/* What every rank of another world would load. */
static int64_t wrong_as(struct ckpt *k, const struct world *v)
{
    int64_t bad = 0;
    for (int rank = 0; rank < v->ranks; rank++) {
        struct mesh m;
        mesh_init(&m, v->ranks, rank, v->tp, v->cp, v->pp, v->etp, v->ep);
        for (int64_t i = 0; i < params_n; i++) {
            struct rect r;
            if (mesh_slice(&m, &params[i], (int)config.layers, (int)config.experts, &r)) {
                bad += wrong(k, "model", &params[i], r);
                bad += wrong(k, "exp_avg", &params[i], r);
            }
        }
    }
    return bad;
}

static int64_t wrong_random(struct ckpt *k, int64_t n)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t b[4];
        rng_bits(b, 3, 0, (uint64_t)i);
        const struct param *p = &params[b[0] % params_n];
        int64_t rows = p->rows, cols = MAX(1, p->cols);
        struct rect r = {b[1] % rows, b[2] % cols, 0, 0};
        r.rows = 1 + b[3] % (rows - r.row);
        r.cols = 1 + (b[3] >> 16) % (cols - r.col);
        bad += wrong(k, i & 1 ? "model" : "exp_avg_sq", p, r);
    }
    return bad;
}

static void round_trips(void)
{
    for (int i = 0; i < ARRAY_LEN(worlds); i++) {
        const struct world *v = &worlds[i];
        char *path = world_write("ckpt", v, i % 2 ? DT_BF16 : DT_F32);
        struct ckpt *k = ckpt_open(path);
        ok(wrong_whole(k) == 0, "%s: model and moments come back whole", v->what);
        ckpt_close(k);
        k = ckpt_open(path);
        ok(wrong_random(k, 300) == 0, "%s: so does any rectangle", v->what);
        ckpt_close(k);
        for (int j = 0; j < ARRAY_LEN(worlds); j++) {
            k = ckpt_open(path);
            ok(wrong_as(k, &worlds[j]) == 0, "%s: read as %s", v->what, worlds[j].what);
            ckpt_close(k);
        }
        char *index = path_join(path, "model.safetensors.index.json");
        ok(path_exists(index) == v->has_index, "%s: an index where every tensor lies whole",
           v->what);
        free(index);
        free(path);
    }
}

static void the_rest_comes_back(void)
{
    char *path = world_write("run/step-000012", &worlds[0], DT_BF16),
         *run = path_join(scratch, "run/");
    char *last = path_join(run, "last");
    if (symlink("step-000012", last))
        die("%s:", last);
    struct ckpt *k = ckpt_open(run);
    struct config c;
    struct json v;
    int64_t step = 0;
    ok(strstr(ckpt_path(k), "/step-000012") != NULL, "a run stands for its last checkpoint");
    ok(json_get(ckpt_state(k), "step", &v) && !json_int(v, &step) && step == 12,
       "the state is kept");
    ckpt_config(k, &c);
    ok(c.d == 8 && c.experts == 4 && strstr(c.json, "\"extra\":{\"kept\":1}") &&
           strstr(c.json, "\"bfloat16\""),
       "so is the configuration, with the type of the weights and fields nobody here reads");
    ok(ckpt_has(k, "exp_avg", "lm_head.weight") && !ckpt_has(k, "master", "lm_head.weight") &&
           !ckpt_has(k, "model", "lm_head"),
       "a checkpoint knows what it has");
    double *x = xmalloc((size_t)params[0].rows * (size_t)params[0].cols * sizeof *x);
    ckpt_get(k, "model", &params[0], (struct rect){0, 0, params[0].rows, params[0].cols}, x,
             DT_F64);
    ok(x[9] == truth("model", &params[0], 1, 1), "bfloat16 is read as f64");
    free(x);
    config_release(&c);
    ckpt_close(k);
    k = ckpt_open(last);
    ok(strstr(ckpt_path(k), "/run/step-000012") != NULL, "the link itself is followed too");
    ckpt_close(k);
    free(last);
    free(run);
    free(path);
}

static void rewriting(void)
{
    char *from = world_write("ckpt", &worlds[6], DT_BF16), *to = path_join(scratch, "cut");
    for (int files = 1; files <= 3; files += 2) {
        ckpt_rewrite(from, to, files);
        struct ckpt *k = ckpt_open(to);
        struct json v;
        ok(wrong_whole(k) == 0, "8 ranks' checkpoint rewritten into %d files is the same", files);
        ok(json_get(ckpt_state(k), "cursor", &v) == 1, "with its state");
        ckpt_close(k);
    }
    char *one = path_join(scratch, "one"), *a, *b;
    char *back = world_write("ckpt", &worlds[0], DT_BF16);
    ckpt_rewrite(to, one, 1);
    struct buf x = read_file(a = path_join(one, "optim/optim-00001-of-00001.safetensors"));
    struct buf y = read_file(b = path_join(back, "optim/optim-00001-of-00001.safetensors"));
    ok(x.len == y.len && !memcmp(x.data, y.data, x.len),
       "and into one the bytes one rank would write");
    buf_release(&x);
    buf_release(&y);
    free(a);
    free(b);
    free(one);
    free(back);
    free(from);
    free(to);
}

/* ---- refusing ---- */

/* Opens and reads everything in a process of its own; claims that it ends with 4 and these words.
 */
static void refused(const char *path, const char *words, const char *what)
{
    char *said = path_join(scratch, "said");
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen(said, "w", stderr))
            _exit(99);
        struct ckpt *k = ckpt_open(path);
        ckpt_only(k, params, params_n);
        wrong_whole(k);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    struct buf text = read_file(said);
    int holds =
        WIFEXITED(status) && WEXITSTATUS(status) == EXIT_DAMAGED && strstr(text.data, words);
    if (!ok(holds, "refused: %s", what))
        printf("# exit %d: %s# wanted: %s\n", WEXITSTATUS(status), text.data, words);
    buf_release(&text);
    free(said);
}

/* Replaces the first `from` after `after` in the file. */
static void file_edit(const char *path, const char *after, const char *from, const char *to)
{
    struct buf text = read_file(path), out = {0};
    char *start = strstr(text.data, after), *at = start ? strstr(start, from) : NULL;
    if (!at)
        die("%s: has no %s after %s", path, from, after);
    buf_add(&out, text.data, (size_t)(at - text.data));
    buf_str(&out, to);
    buf_str(&out, at + strlen(from));
    char *seal = strstr(out.data, ",\n\"xxh3\":\""); /* else every edit is no more than damage */
    if (seal)
        out.len = (size_t)(seal - out.data), buf_str(&out, "}\n");
    write_file(path, out.data, out.len);
    buf_release(&text);
    buf_release(&out);
}

static void damage(void)
{
    static const struct {
        const char *what, *after, *from, *to, *words;
    } edits[] = {
        {"another schema", "schema", "ckpt", "set",
         "manifest.json: not the manifest of a checkpoint"},
        {"a later version", "version", "1", "2", "a version this program does not know"},
        {"a cut manifest", "xxh3", "\"}", "", "manifest.json: "},
        {"another file's hash", "hashes", "config.json\":\"", "config.json\":\"0",
         "config.json: not the one that belongs to the model"},
        {"a file read that has no hash", "hashes", "config.json", "README.md",
         "config.json: not in manifest.json"},
        {"no state", "state", "state", "stale", "\"state\" is missing"},
        {"a file outside", "files", "model-00001-of-00004", "../model-00001-of-00004",
         "malformed entry of file \"../model-00001-of-00004.safetensors\""},
        {"a slice beyond the tensor", "\"lm_head.weight\"", "\"offset\":[10,0]",
         "\"offset\":[11,0]",
         "model tensor \"lm_head.weight\" has a slice at (11, 0) of 10 x 8 that is not inside 20 x "
         "8"},
        {"slices that overlap", "\"lm_head.weight\"", "\"offset\":[10,0]", "\"offset\":[9,0]",
         "model tensor \"lm_head.weight\" has slices that overlap at row 9, column 0"},
        {"a tensor that is not covered", "\"lm_head.weight\"", "\"shape\":[20,8]",
         "\"shape\":[21,8]",
         "model tensor \"lm_head.weight\" is not covered: its slices hold 160 of 168 elements"},
        {"a shape of another model", "\"model.norm.weight\"", "\"shape\":[8]", "\"shape\":[8,1]",
         "malformed entry of model tensor \"model.norm.weight\""},
        {"an absurd shape", "\"lm_head.weight\"", "\"shape\":[20,8]",
         "\"shape\":[9000000000000000,8]", "is empty or too large"},
        {"a negative offset", "\"lm_head.weight\"", "\"offset\":[10,0]", "\"offset\":[-10,0]",
         "malformed entry of model tensor \"lm_head.weight\""},
        {"a type that is none", "\"lm_head.weight\"", "F32", "F31", "malformed entry"},
        {"a key that stands twice", "\"optimizer\"", "exp_avg_sq", "exp_avg", "stands twice"},
        {"a tensor too many", "\"lm_head.weight\"", "\"model.norm.weight\"",
         "\"model.form.weight\"", "model tensor \"model.form.weight\" is none of this model"},
        {"a tensor of the optimizer too many", "\"exp_avg_sq\"", "\"model.norm.weight\"",
         "\"model.form.weight\"", "exp_avg_sq tensor \"model.form.weight\" is none of this model"},
        {"a tensor the file has not", "\"lm_head.weight\"", "\"tensor\":\"lm_head",
         "\"tensor\":\"head", "tensor \"head.weight\" is not as the manifest says"},
    };
    for (int i = 0; i < ARRAY_LEN(edits); i++) {
        char *path = world_write("ckpt", &worlds[4], DT_F32),
             *name = path_join(path, "manifest.json");
        file_edit(name, edits[i].after, edits[i].from, edits[i].to);
        refused(path, edits[i].words, edits[i].what);
        free(name);
        free(path);
    }
}

enum deed { FLIP, HEADER, CUT, GROW, REMOVE, HASH, DIGIT };
static void file_spoil(const char *path, enum deed deed)
{
    struct buf b = read_file(path);
    if (deed == FLIP) /* the last data byte */
        b.data[b.len - 1] ^= 1;
    if (deed == HEADER)
        *strstr(b.data + 8, "\"shape\"") = ' ';
    if (deed == GROW)
        buf_char(&b, 0);
    if (deed == HASH) {
        char *digit = strstr(strstr(b.data, "\"lm_head.weight\""), "\"xxh3\":\"") + 8;
        *digit = *digit == '0' ? '1' : '0';
    }
    if (deed == DIGIT)
        strstr(b.data, "12")[1] ^= 1; /* the step */
    if (deed == REMOVE)
        unlink(path);
    else
        write_file(path, b.data, b.len - (deed == CUT));
    buf_release(&b);
}

static void rot(void)
{
    static const struct {
        const char *what, *file;
        enum deed deed;
        const char *words;
    } deeds[] = {
        {"a flipped bit in a weight", "model-00001-of-00002.safetensors", FLIP, "tensor \""},
        {"a flipped bit in a moment", "optim/optim-00002-of-00002.safetensors", FLIP,
         "tensor \"exp_avg"},
        {"a spoilt header", "model-00001-of-00002.safetensors", HEADER, "model-00001-of-00002"},
        {"a file that is cut", "model-00002-of-00002.safetensors", CUT, "bytes, the manifest says"},
        {"a file that grew", "optim/optim-00001-of-00002.safetensors", GROW, "the manifest says"},
        {"a file that is gone", "model-00002-of-00002.safetensors", REMOVE,
         "model-00002-of-00002.safetensors: No such file"},
        {"a manifest of other weights", "manifest.json", HASH, "manifest.json: damaged"},
        {"a flipped bit in the configuration", "config.json", FLIP,
         "config.json: not the one that belongs to the model"},
        {"a flipped bit in the manifest", "manifest.json", DIGIT, "manifest.json: damaged"},
        {"a folder without manifest", "manifest.json", REMOVE,
         "/ckpt: no manifest.json: not a checkpoint (unfinished, or a Hugging Face folder: see "
         "ckpt-reshard --from-hf)\n"},
    };
    for (int i = 0; i < ARRAY_LEN(deeds); i++) {
        char *path = world_write("ckpt", &worlds[2], DT_F32),
             *name = path_join(path, deeds[i].file);
        file_spoil(name, deeds[i].deed);
        refused(path, deeds[i].words, deeds[i].what);
        free(name);
        free(path);
    }
}

int main(void)
{
    if (!mkdtemp(scratch))
        die("%s:", scratch);
    config_parse(&config, config_text, sizeof config_text - 1, "config");
    params = arch_params(&config, &params_n);
    char *run = path_join(scratch, "run");
    make_dirs(run);
    round_trips();
    the_rest_comes_back();
    rewriting();
    damage();
    rot();
    params_free(params, params_n);
    config_release(&config);
    remove_tree(scratch);
    free(run);
    return finish();
}
