/* optim.c -- the optimizer: norm, the decision to commit, the update.
 *
 * Whether a step counts and how large it is stays in memory of the device: the update reads the
 * state that step_control wrote, and does nothing when the step does not commit. */
#include "real.h"
#include "vec.h"

#ifdef REAL_F64
#define STAT_SQRT sqrt
#else
#define STAT_SQRT sqrtf
#endif

enum { BLOCK = 16384 };

struct squares {
    const stat *g; /* (N) */
    double *part;  /* (blocks) */
    int64_t n;
};

static void squares_block(void *arg, int64_t block, void *scratch)
{
    const struct squares *s = arg;
    const stat *g = s->g + block * BLOCK;
    s->part[block] = vec_dot(g, g, MIN(BLOCK, s->n - block * BLOCK));
}

void OPNAME(sum_squares)(struct lane *l, void *sum, struct mat g)
{
    int64_t n = g.cols;
    struct arena_mark mark = arena_mark(&l->scratch);
    int64_t blocks = task_count(n, BLOCK);
    struct squares s = {grad_stat("sum_squares", g),
                        arena_take(&l->scratch, blocks * (int64_t)sizeof(double)), n};
    lane_for(l, blocks, squares_block, &s, 0);
    double all = 0;
    for (int64_t i = 0; i < blocks; i++)
        all += s.part[i];
    *(stat *)sum += (stat)all;
    arena_back(&l->scratch, mark);
}

static double learning_rate(const struct step_plan *p, double count)
{
    if (count <= p->warmup)
        return p->lr * count / p->warmup;
    double gone = p->steps > p->warmup ? (count - p->warmup) / (p->steps - p->warmup) : 1;
    return p->lr * (p->floor + (1 - p->floor) * 0.5 * (1 + cos(M_PI * MIN(gone, 1))));
}

void OPNAME(step_control)(struct lane *l, void *state, const void *sum, const void *bad,
                          const struct step_plan *plan)
{
    stat *s = state;
    double norm = sqrt((double)*(const stat *)sum);
    s[STEP_NORM] = (stat)norm;
    s[STEP_OK] = isfinite(norm) && *(const stat *)bad <= 0;
    if (!s[STEP_OK])
        return;
    double count = (double)s[STEP_COUNT] + 1;
    s[STEP_COUNT] = (stat)count;
    s[STEP_SCALE] = (stat)(plan->clip > 0 && norm > plan->clip ? plan->clip / norm : 1);
    s[STEP_LR] = (stat)learning_rate(plan, count);
    s[STEP_BIAS1] = (stat)(1 - pow(plan->beta1, count));
    s[STEP_BIAS2] = (stat)(1 - pow(plan->beta2, count));
}

struct update {
    real *w;             /* (N) */
    stat *master;        /* (N), may be w */
    stat *m, *v;         /* (N), NULL for sgd */
    const stat *g;       /* (N) */
    const int64_t *run;  /* (runs+1) */
    const double *decay; /* (runs) */
    int64_t runs;
    const stat *state; /* (STEP_STATE) */
    const struct step_plan *plan;
    void (*stretch)(const struct update *u, int64_t at, int64_t end, stat decay);
};

static void adamw_stretch(const struct update *u, int64_t at, int64_t end, stat decay)
{
    real *w = u->w;
    stat *master = u->master, *m = u->m, *v = u->v;
    const stat *g = u->g;
    stat beta1 = (stat)u->plan->beta1, beta2 = (stat)u->plan->beta2, eps = (stat)u->plan->eps;
    stat scale = u->state[STEP_SCALE], lr = u->state[STEP_LR];
    stat unbias1 = 1 / u->state[STEP_BIAS1], unbias2 = 1 / u->state[STEP_BIAS2];
    for (int64_t i = at; i < end; i++) {
        stat d = g[i] * scale;
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        stat step = m[i] * unbias1 / (STAT_SQRT(v[i] * unbias2) + eps);
        master[i] -= lr * (decay * master[i] + step);
        w[i] = (real)master[i];
    }
}

static void sgd_stretch(const struct update *u, int64_t at, int64_t end, stat decay)
{
    stat scale = u->state[STEP_SCALE], lr = u->state[STEP_LR];
    for (int64_t i = at; i < end; i++) {
        u->master[i] -= lr * (decay * u->master[i] + u->g[i] * scale);
        u->w[i] = (real)u->master[i];
    }
}

/* A block may hold many runs, and a run many blocks. */
static void update_block(void *arg, int64_t block, void *scratch)
{
    const struct update *u = arg;
    int64_t at = u->run[0] + block * BLOCK, end = MIN(at + BLOCK, u->run[u->runs]);
    for (int64_t i = 0; i < u->runs && u->run[i] < end; i++)
        if (u->run[i + 1] > at)
            u->stretch(u, MAX(at, u->run[i]), MIN(end, u->run[i + 1]), (stat)u->decay[i]);
}

static void update_all(struct lane *l, struct update *u)
{
    if (u->state[STEP_OK] && u->runs)
        lane_for(l, task_count(u->run[u->runs] - u->run[0], BLOCK), update_block, u, 0);
}

void OPNAME(adamw)(struct lane *l, void *w, void *master, void *m, void *v, const void *g,
                   const int64_t *run, const double *decay, int64_t runs, const void *state,
                   const struct step_plan *plan)
{
    struct update u = {w, master, m, v, g, run, decay, runs, state, plan, adamw_stretch};
    update_all(l, &u);
}

void OPNAME(sgd)(struct lane *l, void *w, void *master, const void *g, const int64_t *run,
                 const double *decay, int64_t runs, const void *state)
{
    struct update u = {w, master, NULL, NULL, g, run, decay, runs, state, NULL, sgd_stretch};
    update_all(l, &u);
}
