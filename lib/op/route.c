/* route.c -- the router: probabilities, the K chosen experts, their gates; gradients and losses.
 *
 * Tokens are independent but for the sums per accounting group, which are taken afterwards in order
 * of tokens. */
#include "real.h"
#include "vec.h"

struct route {
    int32_t *index;       /* (T,K) */
    stat *gate;           /* (T,K) */
    stat *prob;           /* (T,E) */
    stat *lse;            /* (T) */
    const stat *count;    /* (A,E) */
    const stat *logits;   /* (T,E) */
    const stat *dgate;    /* (T,K) */
    stat *dlogits;        /* (T,E) */
    const int32_t *group; /* (T) */
    const stat *coef;     /* (2) */
    const double *tokens; /* (A) */
    int64_t t, e, k, rows;
    int norm;
};

static void route_choose(const struct route *r, const stat *prob, int32_t *index, stat *gate)
{
    stat sum = 0;
    for (int64_t j = 0; j < r->k; j++) {
        int32_t best = -1;
        for (int32_t e = 0; e < r->e; e++) {
            int taken = 0;
            for (int64_t i = 0; i < j; i++)
                taken |= index[i] == e;
            if (!taken && (best < 0 || prob[e] > prob[best]))
                best = e;
        }
        index[j] = best;
        gate[j] = prob[best];
        sum += prob[best];
    }
    for (int64_t j = 0; r->norm && j < r->k; j++)
        gate[j] /= sum;
}

static void route_rows(void *arg, int64_t task, void *scratch)
{
    const struct route *r = arg;
    int64_t end = MIN(r->t, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++) {
        const stat *logits = r->logits + i * r->e;
        stat *prob = r->prob + i * r->e;
        stat max = vec_max(logits, r->e);
        double sum = vec_exp(prob, logits, r->e, max);
        r->lse[i] = (stat)((double)max + log(sum));
        for (int64_t e = 0; e < r->e; e++)
            prob[e] = (stat)((double)prob[e] / sum);
        if (r->group[i] >= 0)
            route_choose(r, prob, r->index + i * r->k, r->gate + i * r->k);
        for (int64_t j = 0; r->group[i] < 0 && j < r->k; j++) {
            r->index[i * r->k + j] = -1;
            r->gate[i * r->k + j] = 0;
        }
    }
}

void OPNAME(route)(struct lane *l, int32_t *index, void *gate, void *prob, void *lse, void *count,
                   void *psum, const void *logits, const int32_t *group, int64_t t, int64_t e,
                   int64_t k, int64_t a, int norm)
{
    struct route r = {index, gate, prob, lse, .logits = logits, .group = group, .norm = norm};
    r.t = t;
    r.e = e;
    r.k = k;
    r.rows = rows_per_task(e * (k + 4));
    lane_for(l, task_count(t, r.rows), route_rows, &r, 0);

    if (!count)
        return;
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t bytes = a * e * (int64_t)sizeof(double);
    double *n = arena_take(&l->scratch, bytes), *p = arena_take(&l->scratch, bytes); /* (A,E) */
    memset(n, 0, (size_t)bytes);
    memset(p, 0, (size_t)bytes);
    for (int64_t i = 0; i < t; i++) {
        if (group[i] < 0)
            continue;
        int64_t at = group[i] * e;
        for (int64_t j = 0; j < k; j++)
            n[at + index[i * k + j]]++;
        for (int64_t j = 0; j < e; j++)
            p[at + j] += (double)r.prob[i * e + j];
    }
    for (int64_t i = 0; i < a * e; i++) {
        ((stat *)count)[i] = (stat)n[i];
        ((stat *)psum)[i] = (stat)p[i];
    }
    arena_back(&l->scratch, mark);
}

/* Tokens of a group, from its K choices each. */
static double group_tokens(const stat *count /* (E) */, int64_t e, int64_t k)
{
    double sum = 0;
    for (int64_t i = 0; i < e; i++)
        sum += (double)count[i];
    return sum / (double)k;
}

/* A chosen prob reaches the loss through its gate, and through the others' where they share a sum
 * s: d gate_i / d prob_j = (i == j - gate_i) / s.  Then softmax: dlogit = prob (dprob - <prob,
 * dprob>). */
static void route_dgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct route *r = arg;
    double *dprob = scratch; /* (E) */
    int64_t end = MIN(r->t, (task + 1) * r->rows);
    for (int64_t i = task * r->rows; i < end; i++) {
        const stat *prob = r->prob + i * r->e, *dgate = r->dgate + i * r->k;
        const int32_t *index = r->index + i * r->k;
        stat *dlogits = r->dlogits + i * r->e;
        int64_t group = r->group[i];
        if (group < 0) {
            memset(dlogits, 0, (size_t)r->e * sizeof *dlogits);
            continue;
        }
        for (int64_t e = 0; e < r->e; e++)
            dprob[e] = (double)r->coef[0] * (double)r->count[group * r->e + e] / r->tokens[group];
        double sum = 0, along = 0, inner = 0;
        for (int64_t j = 0; j < r->k; j++) {
            sum += (double)prob[index[j]];
            along += (double)dgate[j] * (double)prob[index[j]];
        }
        for (int64_t j = 0; j < r->k; j++)
            dprob[index[j]] += r->norm ? ((double)dgate[j] - along / sum) / sum : (double)dgate[j];
        for (int64_t e = 0; e < r->e; e++)
            inner += (double)prob[e] * dprob[e];
        double z = (double)r->coef[1] * (double)r->lse[i];
        for (int64_t e = 0; e < r->e; e++)
            dlogits[e] = (stat)((double)prob[e] * (dprob[e] - inner + z));
    }
}

void OPNAME(route_dgrad)(struct lane *l, void *dlogits, const void *dgate, const void *prob,
                         const void *lse, const int32_t *index, const void *count,
                         const int32_t *group, const void *coef, int64_t t, int64_t e, int64_t k,
                         int64_t a, int norm)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    double *tokens = arena_take(&l->scratch, a * (int64_t)sizeof *tokens);
    for (int64_t i = 0; i < a; i++)
        tokens[i] = group_tokens((const stat *)count + i * e, e, k);
    struct route r = {(int32_t *)index, NULL, (stat *)prob, (stat *)lse, .group = group};
    r.dlogits = dlogits;
    r.dgate = dgate;
    r.count = count;
    r.coef = coef;
    r.tokens = tokens;
    r.t = t;
    r.e = e;
    r.k = k;
    r.norm = norm;
    r.rows = rows_per_task(e * 4);
    lane_for(l, task_count(t, r.rows), route_dgrad_rows, &r, e * (int64_t)sizeof(double));
    arena_back(&l->scratch, mark);
}

void OPNAME(route_loss)(struct lane *l, void *loss, const void *count, const void *psum,
                        const void *lse, const int32_t *group, int64_t t, int64_t e, int64_t k,
                        int64_t a)
{
    const stat *n = count, *p = psum, *s = lse;
    double aux = 0, z = 0;
    for (int64_t i = 0; i < a; i++) {
        double tokens = group_tokens(n + i * e, e, k), sum = 0;
        for (int64_t j = 0; j < e; j++)
            sum += (double)n[i * e + j] * (double)p[i * e + j];
        if (tokens > 0)
            aux += (double)e / (double)k * sum / tokens;
    }
    for (int64_t i = 0; i < t; i++)
        if (group[i] >= 0)
            z += (double)s[i] * (double)s[i];
    ((stat *)loss)[0] += (stat)aux;
    ((stat *)loss)[1] += (stat)z;
}
