/* arch.c -- from a family's table and a configuration to the list of tensors of one model. */
#include "arch/arch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARCH(x) extern const struct arch arch_##x;
#include "arch/arch_list.h"
#undef ARCH

#define ARCH(x) &arch_##x,
static const struct arch *const families[] = {
#include "arch/arch_list.h"
};
#undef ARCH

const struct arch *arch_find(const char *model_type)
{
    for (int64_t i = 0; i < ARRAY_LEN(families); i++)
        if (!strcmp(families[i]->model_type, model_type))
            return families[i];
    return NULL;
}

char *arch_names(void)
{
    struct buf b = {0};
    for (int64_t i = 0; i < ARRAY_LEN(families); i++)
        buf_printf(&b, "%s%s", i ? ", " : "", families[i]->model_type);
    return b.data;
}

int64_t config_dim(const struct config *c, enum dim d)
{
    const int64_t dims[] = {
        [DIM_ONE] = 1,
        [DIM_D] = c->d,
        [DIM_C] = c->c,
        [DIM_Q] = c->heads * c->c,
        [DIM_KV] = c->groups * c->c,
        [DIM_F] = c->f,
        [DIM_F_DENSE] = c->f_dense,
        [DIM_F_SHARED] = c->f_shared,
        [DIM_E] = c->experts,
        [DIM_V] = c->vocab,
        [DIM_O] = c->heads * c->cv,
        [DIM_Q_RANK] = c->q_rank,
        [DIM_KV_RANK] = c->kv_rank,
        [DIM_LATENT] = c->kv_rank + c->c_turn,
        [DIM_Q_PLAIN] = c->q_rank ? 0 : c->heads * c->c,
        [DIM_KV_UP] = c->heads * (c->c_own + c->cv),
        [DIM_2D] = 2 * c->d,
    };
    return dims[d];
}

int config_is_dense(const struct config *c, int64_t layer)
{
    return c->experts == 0 || (layer < c->layers && c->dense && c->dense[layer]);
}

int64_t config_expert_layers(const struct config *c)
{
    int64_t n = 0;
    for (int64_t l = 0; l < c->layers; l++)
        n += !config_is_dense(c, l);
    return n;
}

/* The row's name with {l} and {e} filled in; caller frees. */
static char *row_name(const char *pattern, int layer, int expert)
{
    struct buf b = {0};
    for (const char *s = pattern; *s; s++)
        if (!strncmp(s, "{l}", 3) || !strncmp(s, "{e}", 3)) {
            buf_printf(&b, "%d", s[1] == 'l' ? layer : expert);
            s += 2;
        } else {
            buf_char(&b, *s);
        }
    return b.data;
}

static int is_per_expert(const struct arch_row *row)
{
    return strstr(row->name, "{e}") != NULL;
}

struct list {
    const struct config *c;
    struct param *p; /* NULL: count only */
    int64_t n;
};

/* Whether the last stage needs the embedding, as its head or for what comes after. */
static int is_lent(const struct config *c)
{
    return c->further || (c->tied && !c->reward);
}

static void list_add(struct list *a, const struct arch_row *row, int layer, int expert)
{
    if (a->p)
        a->p[a->n] = (struct param){
            .name = row_name(row->name, layer, expert),
            .role = (int)row->role,
            .layer = layer,
            .expert = expert,
            .rows = config_dim(a->c, row->rows),
            .cols = row->cols == DIM_ONE ? 0 : config_dim(a->c, row->cols),
            .kind = row->kind,
            .cut = row->cut,
            .init = (int)row->init,
            .decay = row->decay,
            .fine = row->fine,
            .lent = row->role == P_EMBED && is_lent(a->c),
        };
    a->n++;
}

static int layer_has(const struct config *c, const struct arch_row *row, int64_t layer)
{
    const int has[] = {[ALL_LAYERS] = 1,
                       [DENSE_LAYERS] = config_is_dense(c, layer),
                       [EXPERT_LAYERS] = !config_is_dense(c, layer),
                       [FURTHER_LAYERS] = layer >= c->layers};
    return config_dim(c, row->rows) && config_dim(c, row->cols) && has[row->where];
}

/* One layer: role by role, and in a role of the experts expert by expert, so that what one fused
 * tensor holds stands together. */
static void list_add_layer(struct list *a, const struct arch_row *rows, int64_t n, int layer)
{
    for (int64_t lo = 0, hi; lo < n; lo = hi) {
        for (hi = lo; hi < n && rows[hi].role == rows[lo].role && rows[hi].where == rows[lo].where;
             hi++)
            ;
        int each = is_per_expert(&rows[lo]);
        for (int e = 0; e < (each ? a->c->experts : 1); e++)
            for (int64_t i = lo; i < hi; i++)
                if (layer_has(a->c, &rows[i], layer))
                    list_add(a, &rows[i], layer, each ? e : -1);
    }
}

/* The head is one of three: rows of its own, the embedding's, or a reward model's score. */
static int has_row(const struct config *c, enum role role)
{
    return role == P_HEAD ? !c->tied && !c->reward : role == P_SCORE ? c->reward : 1;
}

static void list_all(struct list *a)
{
    const struct arch *arch = a->c->arch;
    for (int64_t lo = 0, hi; lo < arch->n; lo = hi) {
        const struct arch_row *rows = arch->rows;
        for (hi = lo; hi < arch->n && rows[hi].role < ROLE_LAYER; hi++)
            ;
        for (int l = 0; hi > lo && l < a->c->layers + a->c->further; l++)
            list_add_layer(a, rows + lo, hi - lo, l);
        if (hi == lo) {
            if (has_row(a->c, rows[lo].role))
                list_add(a, &rows[lo], rows[lo].role == P_EMBED ? STAGE_FIRST : STAGE_LAST, -1);
            hi++;
        }
    }
}

struct param *arch_params(const struct config *c, int64_t *n)
{
    struct list a = {.c = c};
    list_all(&a);
    a.p = xcalloc((size_t)a.n, sizeof *a.p);
    a.n = 0;
    list_all(&a);
    *n = a.n;
    return a.p;
}

struct param *arch_copies(const struct config *c, int64_t *n)
{
    const struct arch *arch = c->arch;
    int64_t tensors;
    struct param *p = arch_params(c, &tensors),
                 *copy = xcalloc(c->further * arch->copies_n + 1, sizeof *copy);
    *n = 0;
    for (int64_t l = c->layers; l < c->layers + c->further; l++)
        for (int64_t i = 0; i < arch->copies_n; i++)
            for (int64_t j = 0; j < tensors; j++)
                if (!strcmp(p[j].name, arch->copies[i].of)) {
                    copy[*n] = p[j];
                    copy[*n].of = arch->copies[i].of;
                    copy[(*n)++].name = row_name(arch->copies[i].name, (int)l, -1);
                }
    params_free(p, tensors);
    return copy;
}

void params_free(struct param *p, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        free(p[i].name);
    free(p);
}

int64_t params_count(const struct param *p, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += p[i].rows * MAX(p[i].cols, 1);
    return count;
}

const char *arch_check(const struct config *c, const struct mesh *m)
{
    static _Thread_local char why[160];
    if (c->heads % m->tp || c->groups % m->tp) {
        snprintf(why, sizeof why, "%lld heads in %lld groups cannot be dealt evenly to tp %d",
                 (long long)c->heads, (long long)c->groups, m->tp);
        return why;
    }
    return NULL;
}

/* Norms are 1 and biases 0; all matrices alike, the residual's output projections too, as
 * transformers does. */
double param_initial(const struct config *c, const struct param *p, uint64_t seed, int64_t i)
{
    if (p->init == INIT_ONES || p->init == INIT_ZEROS)
        return p->init == INIT_ONES;
    double sd = p->init == INIT_SCORE ? 1 / sqrt((double)c->d + 1) : c->init;
    return sd * rng_normal(rng_key(seed, p->name), 0, (uint64_t)i);
}
