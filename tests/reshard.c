/* reshard.c -- a checkpoint fits every mapping: saved at A, loaded and saved at B, loaded at A
 * again.
 *
 * Every element of every tensor and of the optimizer's state is a function of its name and its
 * place in the whole tensor, so after each load each rank knows what each of its bytes must be,
 * replicas included.  Ranks are threads; pairs of mappings are drawn at random.  --long draws more.
 */
#include "holder.h"
#include "save.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Three layers and six experts, so that stages are uneven and groups need not be powers of two; of
 * the family that has vectors cut over TP. */
static const char config_text[] =
    "{\"model_type\":\"olmoe\",\"hidden_size\":8,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"num_experts\":6,"
    "\"num_experts_per_tok\":2,\"intermediate_size\":12,\"vocab_size\":20,"
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5}";

struct mapping {
    int ranks, tp, cp, pp, etp, ep;
};
struct hop { /* one stay of the state at a mapping */
    struct mapping map;
    const char *from, *to; /* checkpoints; NULL: filled anew, not saved */
    int spoil;             /* rank 0 changes one element after loading */
    int64_t wrong;         /* elements that are not what they must be */
};

/* ---- what every element must be ---- */

static float element(const char *set, const struct param *p, int64_t row, int64_t col)
{
    char label[256];
    snprintf(label, sizeof label, "%s %s", set, p->name);
    uint64_t key = hash_xxh3(label, strlen(label)), at = row * MAX(p->cols, 1) + col;
    return hash_xxh3((uint64_t[]){key, at}, 16) >> 40;
}

static int64_t fill(float *x, const char *set, const struct param *p, struct rect r)
{
    for (int64_t i = 0; i < r.rows; i++)
        for (int64_t j = 0; j < r.cols; j++)
            x[i * r.cols + j] = element(set, p, r.row + i, r.col + j);
    return 0;
}

static int64_t check(float *x, const char *set, const struct param *p, struct rect r)
{
    int64_t wrong = 0;
    for (int64_t i = 0; i < r.rows; i++)
        for (int64_t j = 0; j < r.cols; j++)
            wrong += x[i * r.cols + j] != element(set, p, r.row + i, r.col + j);
    return wrong;
}

/* Calls fn on every slice of weights and every piece of the optimizer that this rank has. */
static int64_t each(struct trainer *t,
                    int64_t (*fn)(float *, const char *, const struct param *, struct rect))
{
    const struct layout *y = &t->model.layout;
    int64_t sum = 0;
    for (int64_t i = 0; i < y->n; i++)
        sum += fn(model_weight(&t->model, &y->local[i]), "model", y->local[i].p, y->local[i].r);
    for (int b = 0; b < BUFFERS_LEARNT; b++)
        for (int k = 0; k < t->optim.def->moments; k++)
            for (int64_t i = 0; i < t->optim.shard[b].pieces; i++) {
                const struct optim_piece *p = &t->optim.shard[b].piece[i];
                sum += fn((float *)t->optim.shard[b].moment[k] + p->at, t->optim.def->moment[k],
                          p->p, p->r);
            }
    return sum;
}

/* ---- one stay ---- */

static void stay(struct world *w, void *arg)
{
    struct hop *h = arg;
    struct trainer t;
    holder_init(&t, w, config_text, h->map.tp, h->map.cp, h->map.pp, h->map.etp, h->map.ep);
    if (h->from) {
        struct ckpt *k = ckpt_open(h->from);
        model_load(&t.model, k, 0);
        optim_load(&t.optim, k);
        ckpt_close(k);
        if (h->spoil && world_rank(w) == 0)
            ((float *)t.optim.shard[BUFFER_DENSE]
                 .moment[1])[t.optim.shard[BUFFER_DENSE].piece[0].at] += 1;
    } else {
        each(&t, fill);
    }
    int64_t wrong = each(&t, check);
    comm_all_reduce(t.model.comm[GROUP_WORLD], NULL, &wrong, 1, DT_I64, COMM_SUM);
    if (world_rank(w) == 0)
        h->wrong = wrong;
    if (h->to)
        save(&t, w, h->to);
    trainer_release(&t);
}

static int64_t run(struct mapping map, const char *from, const char *to, int spoil)
{
    struct hop h = {map, from, to, spoil, 0};
    if (to) {
        remove_tree(to);
        make_dirs(to);
    }
    world_threads(map.ranks, stay, &h);
    return h.wrong;
}

/* ---- mappings ---- */

static const char *mapping_name(struct mapping x)
{
    static char name[4][80];
    static int next;
    char *s = name[next++ % 4];
    snprintf(s, sizeof name[0], "%d(tp %d cp %d pp %d etp %d ep %d)", x.ranks, x.tp, x.cp, x.pp,
             x.etp, x.ep);
    return s;
}

/* The i-th of a sequence of mappings that fit the model. */
static struct mapping draw(int64_t i, const struct config *c, const struct param *p, int64_t params)
{
    static const int sizes[] = {1, 2, 3, 4, 6, 8};
    for (uint64_t try = 0;; try++) {
        struct mesh m;
        int n[6];
        for (int j = 0; j < 6; j++)
            n[j] = sizes[(int)(rng_uniform(11, i, try * 6 + j) * (j ? 5 : 6))];
        struct mapping x = {n[0], n[1], n[2], n[3], n[4], n[5]};
        if (!mesh_init(&m, x.ranks, 0, x.tp, x.cp, x.pp, x.etp, x.ep) && 16 % (2 * x.cp) == 0 &&
            !mesh_check(&m, p, params, c->layers, c->experts) && !arch_check(c, &m) &&
            16 / x.cp % x.tp == 0)
            return x;
    }
}

int main(int argc, char **argv)
{
    const char *san =
        getenv("SAN"); /* set by make check; under sanitizers all is ten times slower */
    int64_t pairs = argc > 1 && !strcmp(argv[1], "--long") ? 2000 : san && *san == '1' ? 50 : 200;
    int64_t params, bad = 0;
    struct config c;
    /* in memory where that is possible: hundreds of checkpoints are written, each with fsync */
    char *dir = path_join(path_is_dir("/dev/shm") ? "/dev/shm" : "/tmp", "reshard-XXXXXX");
    if (!mkdtemp(dir))
        die("mkdtemp:");
    opt_quiet = 1;
    char *at_a = path_join(dir, "a"), *at_b = path_join(dir, "b");
    config_parse(&c, config_text, sizeof config_text - 1, "test");
    struct param *p = arch_params(&c, &params);
    int64_t seen[7] = {0};
    for (int64_t i = 0; i < pairs; i++) {
        struct mapping a = draw(2 * i, &c, p, params), b = draw(2 * i + 1, &c, p, params);
        const int n[] = {a.tp,
                         a.cp,
                         a.pp,
                         a.etp,
                         a.ep,
                         a.ranks / (a.tp * a.cp * a.pp),
                         a.ranks / (a.etp * a.ep * a.pp)};
        int64_t wrong = run(a, NULL, at_a, 0);
        int64_t wrong_b = run(b, at_a, at_b, 0), wrong_a = run(a, at_b, NULL, 0);
        if (wrong || wrong_b || wrong_a)
            ok(0, "%s, %s and back: %lld, %lld, %lld elements differ", mapping_name(a),
               mapping_name(b), (long long)wrong, (long long)wrong_b, (long long)wrong_a),
                bad++;
        for (int j = 0; j < 7; j++)
            seen[j] += n[j] > 1;
    }
    ok(bad == 0, "%lld pairs of mappings A, B: A to B to A gives the same bytes", (long long)pairs);
    int64_t fewest = pairs;
    for (int j = 0; j < 7; j++)
        fewest = MIN(fewest, seen[j]);
    ok(fewest >= pairs / 20, "every dimension was cut in at least %lld of them", (long long)fewest);
    struct mapping one = {1, 1, 1, 1, 1, 1}, two = {2, 2, 1, 1, 1, 2};
    run(one, NULL, at_a, 0);
    ok(run(two, at_a, NULL, 1) > 0, "one element changed is seen");
    remove_tree(dir);
    params_free(p, params);
    config_release(&c);
    free(at_a), free(at_b), free(dir);
    return finish();
}
