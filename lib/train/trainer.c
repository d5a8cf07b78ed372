/* trainer.c -- what a step is done with: model, optimizer, schedule, batches, and what they take.
 */
#include "train/trainer_priv.h"

#include <stdlib.h>
#include <string.h>

/* Every equation of a mapping that this run must satisfy. */
const char *trainer_fault(const struct mesh *m, const struct config *c,
                          const struct trainer_options *o)
{
    static _Thread_local char why[256];
    int64_t n, share = o->micro * m->dp;
    struct param *p = arch_params(c, &n);
    const char *model = mesh_check(m, p, n, c->layers, c->experts);
    params_free(p, n);
    if (model || (model = arch_check(c, m)))
        return model;
    *why = 0;
    if (m->cp > 1 && o->seq % (2 * m->cp))
        snprintf(why, sizeof why,
                 "--cp %d cuts a sequence in %d chunks, and %lld tokens do not divide by that",
                 m->cp, 2 * m->cp, (long long)o->seq);
    else if (o->batch < 1 || o->micro < 1 || o->batch % share)
        snprintf(why, sizeof why,
                 "--batch %lld is not a multiple of --micro %lld times %d data-parallel ranks",
                 (long long)o->batch, (long long)o->micro, m->dp);
    else if (o->micro * o->seq / m->cp % m->tp)
        snprintf(why, sizeof why,
                 "the %lld tokens of a micro-batch do not divide by --cp %d times --tp %d",
                 (long long)(o->micro * o->seq), m->cp, m->tp);
    else if (o->micro % MAX(o->group, 1))
        snprintf(why, sizeof why,
                 "--group %lld: a micro-batch of %lld rows is not a multiple of it",
                 (long long)o->group, (long long)o->micro);
    else if (m->chunks > m->pp && o->batch / share % m->pp)
        snprintf(
            why, sizeof why,
            "interleaved stages need micro-batches in multiples of --pp %d, and a step has %lld",
            m->pp, (long long)(o->batch / share));
    return *why ? why : NULL;
}

void trainer_config(struct config *c, const struct trainer_options *o)
{
    if (o->aux >= 0)
        c->aux = o->aux;
    if (o->z >= 0)
        c->z = o->z;
    if (o->further == 0 || c->reward || loss_find(o->loss)->pairs)
        c->further = 0;
}

void trainer_init(struct trainer *t, struct world *w, const struct mesh *mesh, struct config *cfg,
                  const struct trainer_options *o)
{
    memset(t, 0, sizeof *t);
    t->o = *o;
    t->world = w;
    t->mesh = *mesh;
    const char *why = trainer_fault(mesh, cfg, o);
    if (why)
        die_misused("%s", why);
    t->o.group = MAX(o->group, 1);
    t->micros = o->batch / (o->micro * mesh->dp);
    t->loss = loss_find(o->loss);
    const struct op *op = op_open(o->device, o->type);
    if (op->real != DT_BF16 && (choice_is(o->grads, "bf16") || choice_is(o->optim.master, "none")))
        die_misused("--grads bf16 and --master none are for --type bf16, not %s", o->type);
    lane_init(&t->lane, dev_open(o->device), o->threads);
    t->lane.deterministic = o->deterministic;
    for (int i = 0; i < LANES; i++)
        t->lanes[i] = &t->lane;
    for (int i = LANE_COMPUTE + 1; i < LANES && mesh->world > 1 && !t->lane.dev->is_host; i++) {
        t->lanes[i] = &t->beside[i];
        lane_init_urgent(t->lanes[i], t->lane.dev);
    }
    trainer_config(cfg, o);
    model_init(&t->model, cfg, mesh, w, &t->lane, op);
    t->model.capacity = o->capacity;
    model_dispatch(&t->model, o->dispatch ? o->dispatch : "auto");
    model_gradients(&t->model, choice_is(o->grads, "bf16") ? DT_BF16 : op->stat);
    optim_init(&t->optim, &t->model, &o->optim, t->micros);
    t->optim.side = t->lanes[LANE_SHARDS];
    if (t->loss->reward != t->model.cfg.reward)
        die_misused("--loss %s needs a %s", t->loss->name,
                    t->loss->reward ? "reward model"
                                    : "language model, and this is a reward model");
    enum segment head = t->loss->reward ? SEG_SCORE : SEG_HEAD;
    schedule_1f1b(&t->schedule, &t->model, t->micros, head, !t->loss->known_beforehand);
    schedule_forward(&t->eval, &t->model, t->micros, head);

    int64_t saved = t->schedule.in_flight * model_slots(&t->model);
    t->saved = xcalloc(saved, sizeof *t->saved);
    for (int64_t i = 0; i < saved; i++)
        t->saved[i].heap = t->lanes[LANE_TOKENS] == &t->lane ? &t->lane.heap : &t->kept;
    heap_init(&t->kept, t->lane.dev);
    t->reached = xcalloc(MAX(t->schedule.n, t->eval.n), sizeof *t->reached);
    batches_init(t);
    model_window(&t->model, t->lanes[LANE_TOKENS], t->batch[0].t / mesh->tp);
    heap_reserve(&t->lane.heap, o->step_bytes);
    for (int i = 0; i < ON_THEIR_WAY; i++) {
        t->way[i].report = t->lane.dev->alloc_host(REPORT_BYTES);
        t->way[i].begun.timed = t->way[i].done.timed = 1;
    }
}

void trainer_release(struct trainer *t)
{
    const struct dev_ops *dev = t->lane.dev;
    dev->wait(&t->lane);
    for (int64_t i = 0; i < MAX(t->schedule.n, t->eval.n); i++)
        dev->event_free(&t->reached[i]);
    for (int64_t i = 0; i < t->schedule.in_flight * model_slots(&t->model); i++)
        saved_clear(&t->saved[i]);
    for (int i = 0; i < ON_THEIR_WAY; i++) {
        dev->free_host(t->way[i].report);
        dev->event_free(&t->way[i].begun);
        dev->event_free(&t->way[i].done);
    }
    for (int64_t i = 0; i < t->captures; i++)
        dev->capture_free(&t->capture[i].work);
    batches_release(t);
    free(t->saved), free(t->reached), free(t->capture);
    schedule_release(&t->schedule);
    schedule_release(&t->eval);
    optim_release(&t->optim);
    model_release(&t->model);
    for (int i = 0; i < LANES; i++)
        if (t->lanes[i] != &t->lane)
            lane_release(t->lanes[i]);
    heap_release(&t->kept);
    lane_release(&t->lane);
}

/* The heaps of a step: of what is kept where it is not in the lane's, and of each lane. */
static int heaps_of(struct trainer *t, struct heap *h[LANES + 1])
{
    int n = 0;
    h[n++] = &t->kept;
    for (int i = 0; i < LANES; i++)
        if (i == 0 || t->lanes[i] != &t->lane)
            h[n++] = &t->lanes[i]->heap;
    return n;
}

int64_t step_memory(struct trainer *t)
{
    struct heap *h[LANES + 1];
    int64_t bytes = 0;
    for (int i = heaps_of(t, h) - 1; i >= 0; i--)
        bytes += h[i]->bytes;
    return bytes;
}

void fix_memory(struct trainer *t, int fixed)
{
    struct heap *h[LANES + 1];
    for (int i = heaps_of(t, h) - 1; i >= 0; i--)
        h[i]->fixed |= fixed;
}

int64_t trainer_bytes(const struct mesh *mesh, struct config *cfg, struct trainer_options *o)
{
    struct trainer t;
    struct trainer_options dry = *o;
    struct dev_memory m;
    struct world *w = world_dry(mesh->rank, mesh->world);
    dry.device = "dry";
    dry.step_bytes = 0;
    if (mesh->world > 1 && !choice_is(o->dispatch, "padded"))
        dry.dispatch = "all"; /* the most rows there can be */
    trainer_init(&t, w, mesh, cfg, &dry);
    int64_t bytes;
    do {
        bytes = step_memory(&t);
        whole_step(&t);
    } while (step_memory(&t) != bytes);
    o->step_bytes = mesh->world > 1 ? 0 : bytes;
    t.lane.dev->memory(&m);
    model_dispatch(&t.model, o->dispatch ? o->dispatch : "auto");
    int64_t window = model_window_bytes(&t.model, t.batch[0].t / mesh->tp);
    trainer_release(&t);
    world_free(w);
    return mesh->world > 1 ? m.peak + window : m.used;
}
