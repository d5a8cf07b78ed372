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

void OPNAME(step_control)(struct lane *l, void *state, const void *sum, const void *loss, int64_t n,
                          const struct step_plan *plan)
{
    stat *s = state;
    double norm = sqrt((double)*(const stat *)sum);
    s[STEP_NORM] = (stat)norm;
    s[STEP_OK] = isfinite(norm);
    for (int64_t i = 0; i < n; i++)
        s[STEP_OK] *= isfinite(((const stat *)loss)[i]) != 0;
    if (!s[STEP_OK])
        return;
    double count = (double)s[STEP_COUNT] + 1;
    s[STEP_COUNT] = (stat)count;
    s[STEP_SCALE] = (stat)(plan->clip > 0 && norm > plan->clip ? plan->clip / norm : 1);
    s[STEP_LR] = (stat)learning_rate(plan, count);
    s[STEP_BIAS1] = (stat)(1 - pow(plan->beta1, count));
    s[STEP_BIAS2] = (stat)(1 - pow(plan->beta2, count));
}

void OPNAME(first_bad)(struct lane *l, int64_t *where, struct mat g, const void *state)
{
    const stat *x = grad_stat("first_bad", g);
    *where = -1;
    for (int64_t i = 0; !((const stat *)state)[STEP_OK] && *where < 0 && i < g.cols; i++)
        if (!isfinite(x[i]))
            *where = i;
}

struct update {
    struct mat w, master, m, v, g; /* (1,N); m and v without data for sgd */
    const struct stretches *s;
    const stat *state; /* (STEP_STATE) */
    const struct step_plan *plan;
};

/* Elements of an operand as S: in place where that is their type, else read into a buffer, and
 * written back rounded by chance. */
enum { FEW = 256 };
struct view {
    struct mat of;
    enum { VIEW_PLACE, VIEW_COPY } kind;
    int array;
    stat *x; /* (n) */
    stat buffer[FEW];
};

static void view_read(struct view *v, struct mat of, int array, int64_t at, int64_t n)
{
    char *data = (char *)of.data + at * dtype_size(of.type);
    v->of = of;
    v->array = array;
    v->kind = of.type == REAL_TYPE ? VIEW_PLACE : VIEW_COPY;
    v->x = v->kind == VIEW_PLACE ? (stat *)data : v->buffer;
    if (v->kind == VIEW_COPY)
        dtype_convert(v->buffer, REAL_TYPE, data, of.type, n);
}

static void view_write(const struct view *v, const struct stretch *s, double count, int64_t at,
                       int64_t n)
{
    uint32_t bits[4] = {0};
    int64_t drawn = -1;
    if (v->kind == VIEW_PLACE)
        return;
    int64_t row = (at - s->at) / s->cols, col = (at - s->at) % s->cols;
    for (int64_t i = 0; i < n; i++) {
        int64_t e = s->first + row * s->ld + col;
        if (e / 8 != drawn)
            rng_bits(bits, s->key, (uint64_t)count * 4 + (uint64_t)v->array, (uint64_t)(e / 8));
        drawn = e / 8;
        ((uint16_t *)v->of.data)[at + i] =
            rng_round_bf16((float)v->x[i], bits[e % 8 / 2] >> e % 2 * 16);
        if (++col == s->cols)
            row++, col = 0;
    }
}

static void adamw_few(const struct update *u, stat *w, stat *m, stat *v, const stat *g, int64_t n,
                      stat decay)
{
    stat beta1 = (stat)u->plan->beta1, beta2 = (stat)u->plan->beta2, eps = (stat)u->plan->eps;
    stat scale = u->state[STEP_SCALE], lr = u->state[STEP_LR];
    stat unbias1 = 1 / u->state[STEP_BIAS1], unbias2 = 1 / u->state[STEP_BIAS2];
    for (int64_t i = 0; i < n; i++) {
        stat d = g[i] * scale;
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        stat step = m[i] * unbias1 / (STAT_SQRT(v[i] * unbias2) + eps);
        w[i] -= lr * (decay * w[i] + step);
    }
}

static void sgd_few(const struct update *u, stat *w, const stat *g, int64_t n, stat decay)
{
    stat scale = u->state[STEP_SCALE], lr = u->state[STEP_LR];
    for (int64_t i = 0; i < n; i++)
        w[i] -= lr * (decay * w[i] + g[i] * scale);
}

/* Neighbours of one stretch. */
static void update_few(const struct update *u, const struct stretch *s, int64_t at, int64_t n)
{
    double count = (double)u->state[STEP_COUNT];
    struct view w, m, v, g;
    view_read(&w, u->master, DRAW_WEIGHT, at, n);
    view_read(&g, u->g, 0, at, n);
    if (u->m.data) {
        view_read(&m, u->m, DRAW_M, at, n);
        view_read(&v, u->v, DRAW_V, at, n);
        adamw_few(u, w.x, m.x, v.x, g.x, n, (stat)s->decay);
        view_write(&m, s, count, at, n);
        view_write(&v, s, count, at, n);
    } else {
        sgd_few(u, w.x, g.x, n, (stat)s->decay);
    }
    view_write(&w, s, count, at, n);
    if (u->w.data != u->master.data)
        dtype_convert((char *)u->w.data + at * dtype_size(u->w.type), u->w.type, w.x, REAL_TYPE, n);
}

/* A block may hold many stretches, and a stretch many blocks. */
static void update_block(void *arg, int64_t block, void *scratch)
{
    const struct update *u = arg;
    int64_t at = block * STRETCH_BLOCK, end = MIN(at + STRETCH_BLOCK, u->w.cols);
    const struct stretch *s = &u->s->stretch[u->s->of_block[block]];
    while (at < end) {
        while (s[1].at <= at)
            s++;
        int64_t n = MIN(MIN(end, s[1].at) - at, FEW);
        update_few(u, s, at, n);
        at += n;
    }
}

static void update_all(struct lane *l, struct update *u)
{
    if (u->state[STEP_OK])
        lane_for(l, task_count(u->w.cols, STRETCH_BLOCK), update_block, u, 0);
}

void OPNAME(adamw)(struct lane *l, struct mat w, struct mat master, struct mat m, struct mat v,
                   struct mat g, const struct stretches *s, const void *state,
                   const struct step_plan *plan)
{
    update_all(l, &(struct update){w, master, m, v, g, s, state, plan});
}

void OPNAME(sgd)(struct lane *l, struct mat w, struct mat master, struct mat g,
                 const struct stretches *s, const void *state)
{
    update_all(l, &(struct update){.w = w, .master = master, .g = g, .s = s, .state = state});
}
