/* flops.c -- the work and the size of a model, read off the family's parameter table.
 *
 * A matrix costs 6 FLOPs an element and token, so the table that names every tensor is also the
 * cost model; only attention over positions is not in it. */
#include "meter/meter.h"

/* The share of tokens that meet a tensor: k of the experts, all else always. */
static double share(const struct config *c, const struct param *p)
{
    return p->expert >= 0 ? (double)c->k / c->experts : 1;
}

struct work meter_work(const struct config *c)
{
    int64_t n;
    struct param *p = arch_params(c, &n);
    double met = 0; /* matrix elements that a token meets */
    for (int64_t i = 0; i < n; i++) {
        int looked_up = p[i].role == P_EMBED && !c->tied; /* a tied embedding is also the head */
        if (p[i].cols > 0 && !looked_up && p[i].role != P_ROUTER)
            met += share(c, &p[i]) * p[i].rows * p[i].cols;
    }
    params_free(p, n);
    met += (double)c->further * c->vocab * c->d; /* the head once more for each token further on */
    /* Scores and their product with the values: heads * (c + cv) multiply-adds a pair. */
    return (struct work){.token = 6 * met,
                         .square = 3.0 * c->heads * (c->c + c->cv) * (c->layers + c->further)};
}

double meter_flops(const struct work *w, double tokens, double squares, enum attn_count count)
{
    return w->token * tokens + w->square * squares * (count == COUNT_FULL ? 2 : 1);
}

double meter_squares(const int32_t *document, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0, beg = 0; i < n; i++)
        if (i + 1 == n || document[i + 1] != document[i]) {
            double length = i + 1 - beg;
            sum += document[i] >= 0 ? length * length : 0;
            beg = i + 1;
        }
    return sum;
}

struct param_counts meter_params(const struct config *c)
{
    int64_t n, idle = 0;
    struct param *p = arch_params(c, &n);
    for (int64_t i = 0; i < n; i++)
        if (p[i].expert >= c->k) /* experts are of one shape: count the first k */
            idle += p[i].rows * MAX(p[i].cols, 1);
    struct param_counts counts = {.total = params_count(p, n)};
    counts.active = counts.total - idle;
    params_free(p, n);
    return counts;
}
