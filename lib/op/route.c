/* route.c -- the router: probabilities, the K chosen experts, their gates; gradients and losses.
 *
 * Tokens are independent but for the sums per accounting group, which are taken afterwards in order
 * of tokens. */
#include "real.h"
#include "vec.h"

static const double LEAST_SUM = 1e-20; /* sigmoids may all be 0 */

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
    int64_t t, e, rows;
    const struct router *x;
};

/* The largest of score[lo .. hi), the first of equals, of those not yet taken: these are -inf. */
static int32_t best_of(const stat *score, int64_t lo, int64_t hi)
{
    int32_t best = -1;
    for (int32_t i = (int32_t)lo; i < hi; i++)
        if (score[i] != -INFINITY && (best < 0 || score[i] > score[best]))
            best = i;
    return best;
}

/* Takes all experts of groups that may not be chosen from. */
static void groups_close(const struct router *x, stat *score /* (E) */, int64_t e,
                         stat *of_group /* (groups) */)
{
    int64_t size = e / x->groups;
    for (int64_t g = 0; g < x->groups; g++) {
        int32_t first = best_of(score, g * size, (g + 1) * size);
        stat most = of_group[g] = score[first];
        if (x->best < 2 || size < 2)
            continue;
        score[first] = -INFINITY;
        of_group[g] += score[best_of(score, g * size, (g + 1) * size)];
        score[first] = most;
    }
    for (int64_t i = 0; i < x->limit; i++)
        of_group[best_of(of_group, 0, x->groups)] = -INFINITY;
    for (int64_t i = 0; i < e; i++)
        if (of_group[i / size] != -INFINITY)
            score[i] = -INFINITY;
}

static void route_choose(const struct route *r, const stat *prob, int32_t *index, stat *gate,
                         stat *score /* (E+groups) */)
{
    const struct router *x = r->x;
    const stat *bias = x->bias;
    stat sum = 0;
    for (int64_t e = 0; e < r->e; e++)
        score[e] = bias ? prob[e] + bias[e] : prob[e];
    if (router_is_limited(x))
        groups_close(x, score, r->e, score + r->e);
    for (int64_t j = 0; j < x->k; j++) {
        int32_t best = index[j] = best_of(score, 0, r->e);
        score[best] = -INFINITY;
        gate[j] = prob[best];
        sum += prob[best];
    }
    for (int64_t j = 0; j < x->k; j++)
        gate[j] = (stat)((double)gate[j] / (x->norm ? (double)sum + LEAST_SUM : 1) * x->scale);
}

/* prob of a token, and its lse. */
static void route_prob(const struct route *r, const stat *logits, stat *prob, stat *lse)
{
    *lse = 0;
    for (int64_t e = 0; r->x->sigmoid && e < r->e; e++)
        prob[e] = (stat)(1 / (1 + exp(-(double)logits[e])));
    if (r->x->sigmoid)
        return;
    stat max = vec_max(logits, r->e);
    double sum = vec_exp(prob, logits, r->e, max);
    *lse = (stat)((double)max + log(sum));
    for (int64_t e = 0; e < r->e; e++)
        prob[e] = (stat)((double)prob[e] / sum);
}

static void route_rows(void *arg, int64_t task, void *scratch)
{
    const struct route *r = arg;
    int64_t end = MIN(r->t, (task + 1) * r->rows), k = r->x->k;
    for (int64_t i = task * r->rows; i < end; i++) {
        stat *prob = r->prob + i * r->e;
        route_prob(r, r->logits + i * r->e, prob, r->lse + i);
        if (r->group[i] >= 0)
            route_choose(r, prob, r->index + i * k, r->gate + i * k, scratch);
        for (int64_t j = 0; r->group[i] < 0 && j < k; j++) {
            r->index[i * k + j] = -1;
            r->gate[i * k + j] = 0;
        }
    }
}

/* What a token's probabilities are divided by where they are counted. */
static double route_share(const struct router *x, const stat *prob, int64_t e)
{
    double sum = 0;
    for (int64_t i = 0; x->sigmoid && i < e; i++)
        sum += (double)prob[i];
    return x->sigmoid ? sum + LEAST_SUM : 1;
}

void OPNAME(route)(struct lane *l, int32_t *index, void *gate, void *prob, void *lse, void *count,
                   void *psum, const void *logits, const int32_t *group, int64_t t, int64_t e,
                   int64_t a, const struct router *x)
{
    struct route r = {index, gate, prob, lse, .logits = logits, .group = group, .x = x};
    int64_t k = x->k;
    r.t = t;
    r.e = e;
    r.rows = rows_per_task(e * (k + 4));
    lane_for(l, task_count(t, r.rows), route_rows, &r, (e + x->groups) * (int64_t)sizeof(stat));

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
        double share = route_share(x, r.prob + i * e, e);
        for (int64_t j = 0; j < e; j++)
            p[at + j] += (double)r.prob[i * e + j] / share;
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
 * s: d gate_i / d prob_j = scale (i == j - prob_i / s) / s.  All reach it through what is counted
 * of them: c, or c / S with S their sum, then dprob_i = (c_i - <prob, c> / S) / S.  Then softmax:
 * dlogit = prob (dprob - <prob, dprob>); or sigmoid: prob (1 - prob) dprob. */
static void route_dgrad_rows(void *arg, int64_t task, void *scratch)
{
    const struct route *r = arg;
    const struct router *x = r->x;
    double *dprob = scratch; /* (E) */
    int64_t end = MIN(r->t, (task + 1) * r->rows), k = x->k;
    for (int64_t i = task * r->rows; i < end; i++) {
        const stat *prob = r->prob + i * r->e, *dgate = r->dgate + i * k;
        const int32_t *index = r->index + i * k;
        stat *dlogits = r->dlogits + i * r->e;
        int64_t group = r->group[i];
        if (group < 0) {
            memset(dlogits, 0, (size_t)r->e * sizeof *dlogits);
            continue;
        }
        double share = route_share(x, prob, r->e), counted = 0;
        for (int64_t e = 0; e < r->e; e++) {
            dprob[e] = (double)r->coef[0] * (double)r->count[group * r->e + e] / r->tokens[group];
            counted += (double)prob[e] * dprob[e];
        }
        for (int64_t e = 0; x->sigmoid && e < r->e; e++)
            dprob[e] = (dprob[e] - counted / share) / share;
        double sum = LEAST_SUM, along = 0, inner = 0;
        for (int64_t j = 0; j < k; j++) {
            sum += (double)prob[index[j]];
            along += (double)dgate[j] * (double)prob[index[j]];
        }
        for (int64_t j = 0; j < k; j++)
            dprob[index[j]] +=
                x->scale * (x->norm ? ((double)dgate[j] - along / sum) / sum : (double)dgate[j]);
        for (int64_t e = 0; e < r->e; e++)
            inner += (double)prob[e] * dprob[e];
        double z = (double)r->coef[1] * (double)r->lse[i];
        for (int64_t e = 0; e < r->e; e++)
            dlogits[e] = (stat)((double)prob[e] * (x->sigmoid ? (1 - (double)prob[e]) * dprob[e]
                                                              : dprob[e] - inner + z));
    }
}

void OPNAME(route_dgrad)(struct lane *l, void *dlogits, const void *dgate, const void *prob,
                         const void *lse, const int32_t *index, const void *count,
                         const int32_t *group, const void *coef, int64_t t, int64_t e, int64_t a,
                         const struct router *x)
{
    struct arena_mark mark = arena_mark(&l->scratch);
    double *tokens = arena_take(&l->scratch, a * (int64_t)sizeof *tokens);
    for (int64_t i = 0; i < a; i++)
        tokens[i] = group_tokens((const stat *)count + i * e, e, x->k);
    struct route r = {(int32_t *)index, NULL, (stat *)prob, (stat *)lse, .group = group, .x = x};
    r.dlogits = dlogits;
    r.dgate = dgate;
    r.count = count;
    r.coef = coef;
    r.tokens = tokens;
    r.t = t;
    r.e = e;
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
