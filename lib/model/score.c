/* score.c -- documents scored, with the same bits whatever is scored beside them.
 *
 * On the CPU every document runs by itself, unpadded, on one thread; a batch is a queue from which
 * threads take the next.  So neither batch size nor order nor neighbours can change a product's
 * shape.  Threads share the weights and have lanes and slots of their own.
 *
 * A GPU wants many tokens at once.  There documents are packed into a batch that always has the
 * same number of tokens, pads at its end, so the products have one shape and one algorithm, in
 * which a row's sums do not depend on its place.  A document that is longer than that has a batch
 * to itself, whose size follows from its length alone. */
#include "model/model.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    struct model view; /* the model, with its own lane */
    struct lane lane;
    struct batch_host host;
    struct batch batch;
    double *out; /* (longest) */
};

struct scorer {
    const struct score_doc *doc;
    double *score;
    struct worker *worker;
    int64_t workers, longest;
    pthread_mutex_t lock;
    int *busy; /* (workers) */
};

/* A bound on the length of any document scored on a GPU, the same whatever is scored, so that the
 * same kernel is chosen; longer documents raise it. */
enum { ANY_LENGTH = 1 << 14 };

static void worker_init(struct worker *w, const struct model *m, int64_t longest)
{
    w->view = *m;
    w->view.lane = &w->lane;
    lane_init(&w->lane, m->lane->dev, 1);
    w->view.loss = lane_alloc(&w->lane, LOSS_SUMS * dtype_size(m->op->stat), "scoring");
    batch_host_init(&w->host, 1, longest);
    w->out = xmalloc(longest * sizeof *w->out);
    batch_init(&w->batch, &w->view, 1, longest);
    w->batch.queries = w->batch.keys = MAX(longest, ANY_LENGTH);
    w->batch.spans = 1;
}

static void worker_release(struct worker *w)
{
    batch_release(&w->batch, &w->view);
    w->lane.dev->free(w->view.loss);
    batch_host_release(&w->host);
    lane_release(&w->lane);
    free(w->out);
}

static double score_one(struct worker *w, const struct score_doc *d)
{
    struct batch *b = &w->batch;
    struct lane *l = &w->lane;
    struct batch_host *h = &w->host;
    int64_t n = d->n;
    b->seq = b->t = n;
    for (int64_t i = 0; i < n; i++) {
        h->token[i] = d->token[i];
        h->label[i] = i + 1 < n && d->target[i + 1] ? d->token[i + 1] : -1;
        h->position[i] = i;
        h->group[i] = 0;
    }
    h->q_at[0] = h->k_beg[0] = 0;
    h->q_at[1] = h->k_end[0] = n;
    int32_t *from[] = {h->token, h->label, h->position, h->group, h->q_at, h->k_beg, h->k_end};
    int32_t *to[] = {b->token, b->label, b->position, b->group, b->q_at, b->k_beg, b->k_end};
    int64_t len[] = {n, n, n, n, 2, 1, 1};
    for (int64_t i = 0; i < ARRAY_LEN(from); i++)
        l->dev->put(l, to[i], from[i], len[i] * sizeof(int32_t));
    model_outputs(&w->view, b, w->out);
    if (w->view.cfg.reward)
        return w->out[n - 1];
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += w->out[i]; /* 0 where there is no label */
    return sum;
}

static void score_task(void *arg, int64_t i)
{
    struct scorer *s = arg;
    int64_t k = 0;
    pthread_mutex_lock(&s->lock);
    while (s->busy[k]) /* there are as many workers as threads */
        k++;
    s->busy[k] = 1;
    pthread_mutex_unlock(&s->lock);
    s->score[i] = score_one(&s->worker[k], &s->doc[i]);
    pthread_mutex_lock(&s->lock);
    s->busy[k] = 0;
    pthread_mutex_unlock(&s->lock);
}

static void scores_by_threads(struct model *m, const struct score_doc *doc, int64_t n,
                              double *score)
{
    struct scorer s = {.doc = doc, .score = score, .workers = par_threads(m->lane->par)};
    for (int64_t i = 0; i < n; i++)
        s.longest = MAX(s.longest, doc[i].n);
    pthread_mutex_init(&s.lock, NULL);
    s.worker = xcalloc(s.workers, sizeof *s.worker);
    s.busy = xcalloc(s.workers, sizeof *s.busy);
    for (int64_t i = 0; i < s.workers; i++)
        worker_init(&s.worker[i], m, s.longest);
    par_for(m->lane->par, n, score_task, &s);
    for (int64_t i = 0; i < s.workers; i++)
        worker_release(&s.worker[i]);
    pthread_mutex_destroy(&s.lock);
    free(s.worker), free(s.busy);
}

/* ---- on a GPU ---- */

enum { PACK = 8192 };

/* Tokens of the batch in which a document of n runs. */
static int64_t pack_size(int64_t n)
{
    int64_t size = PACK;
    while (size < n)
        size *= 2;
    return size;
}

struct packer {
    struct model *m;
    struct batch_host host;
    struct batch batch;
    int32_t *token, *document; /* (longest), document -1: pads */
    uint8_t *target;           /* (longest) */
    float *weight;             /* (longest) */
    double *out;               /* (longest) */
};

static void packer_init(struct packer *p, struct model *m, int64_t longest)
{
    p->m = m;
    batch_host_init(&p->host, 1, longest);
    batch_init(&p->batch, m, 1, longest);
    p->token = xcalloc(longest, sizeof *p->token);
    p->document = xmalloc(longest * sizeof *p->document);
    p->target = xcalloc(longest, 1);
    p->weight = xmalloc(longest * sizeof *p->weight);
    p->out = xmalloc(longest * sizeof *p->out);
    for (int64_t i = 0; i < longest; i++)
        p->weight[i] = 1;
}

static void packer_release(struct packer *p)
{
    batch_release(&p->batch, p->m);
    batch_host_release(&p->host);
    free(p->token), free(p->document), free(p->target), free(p->weight), free(p->out);
}

/* As many of the first n documents as fit, in a batch of `size` tokens; how many they were. */
static int64_t score_pack(struct packer *p, const struct score_doc *doc, int64_t n, int64_t size,
                          double *score)
{
    struct batch *b = &p->batch;
    struct batch_host *h = &p->host;
    const struct dev_ops *dev = p->m->lane->dev;
    int64_t docs = 0, t = 0;
    for (; docs < n && pack_size(doc[docs].n) == size && t + doc[docs].n <= size; docs++) {
        const struct score_doc *d = &doc[docs];
        memcpy(p->token + t, d->token, d->n * sizeof *d->token);
        memcpy(p->target + t, d->target, d->n);
        for (int64_t i = 0; i < d->n; i++)
            p->document[t++] = docs;
    }
    for (int64_t i = t; i < size; i++)
        p->document[i] = -1;
    batch_host_clear(h);
    h->seq = b->seq = b->t = b->queries = b->keys = size;
    batch_host_row(h, 0, p->token, p->target, p->document, p->weight);
    b->spans = h->spans;
    int32_t *from[] = {h->token, h->label, h->position, h->group, h->q_at, h->k_beg, h->k_end};
    int32_t *to[] = {b->token, b->label, b->position, b->group, b->q_at, b->k_beg, b->k_end};
    int64_t len[] = {size, size, size, size, h->spans + 1, h->spans, h->spans};
    for (int64_t i = 0; i < ARRAY_LEN(from); i++)
        dev->put(p->m->lane, to[i], from[i], len[i] * sizeof(int32_t));
    model_outputs(p->m, b, p->out);
    t = 0;
    for (int64_t i = 0; i < docs; i++, score++) {
        *score = p->m->cfg.reward ? p->out[t + doc[i].n - 1] : 0;
        for (int64_t j = 0; !p->m->cfg.reward && j < doc[i].n; j++)
            *score += p->out[t + j]; /* 0 where there is no label */
        t += doc[i].n;
    }
    return docs;
}

static void scores_by_packs(struct model *m, const struct score_doc *doc, int64_t n, double *score)
{
    struct packer p;
    int64_t longest = PACK;
    for (int64_t i = 0; i < n; i++)
        longest = MAX(longest, pack_size(doc[i].n));
    packer_init(&p, m, longest);
    for (int64_t i = 0; i < n;)
        i += score_pack(&p, doc + i, n - i, pack_size(doc[i].n), score + i);
    packer_release(&p);
}

void model_scores(struct model *m, const struct score_doc *doc, int64_t n, double *score)
{
    (m->lane->dev->is_host ? scores_by_threads : scores_by_packs)(m, doc, n, score);
}
