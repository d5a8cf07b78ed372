/* team.c -- threads as ranks, and the groups they make together.
 *
 * Every rank makes its groups in the same order of calls, so the how-manieth call and the list of
 * ranks name a group: the first member to come makes it, the others find it. */
#include "comm/team.h"

#include <stdlib.h>
#include <string.h>

static struct group *group_new(int64_t seq, const char *name, const int *ranks, int n)
{
    struct group *g = xcalloc(1, sizeof *g);
    *g = (struct group){
        .seq = seq,
        .name = xstrdup(name),
        .n = n,
        .ranks = xmemdup(ranks, (size_t)n * sizeof *ranks),
        .post = xcalloc((size_t)n, sizeof *g->post),
        .box = xcalloc((size_t)n * (size_t)n, sizeof *g->box),
    };
    for (int i = 0; i < n * n; i++)
        mailbox_init(&g->box[i]);
    pthread_barrier_init(&g->barrier, NULL, (unsigned)n);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->arrived, NULL);
    return g;
}

static void group_free(struct group *g)
{
    for (int i = 0; i < g->n * g->n; i++)
        mailbox_release(&g->box[i]);
    pthread_barrier_destroy(&g->barrier);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->arrived);
    free(g->box);
    free(g->post);
    free(g->ranks);
    free(g->name);
    free(g);
}

static int same_members(const struct group *g, const struct comm *c)
{
    return g->n == c->size && !memcmp(g->ranks, c->ranks, (size_t)g->n * sizeof *g->ranks);
}

/* Whether g, made at the same point of the order of calls, cannot stand beside c's group. */
static int conflicts(const struct group *g, const struct comm *c)
{
    if (same_members(g, c))
        return strcmp(g->name, c->name) != 0;
    for (int i = 0; i < g->n; i++)
        for (int j = 0; j < c->size; j++)
            if (g->ranks[i] == c->ranks[j])
                return 1;
    return 0;
}

/* The first member to come makes the group; it is kept until each has come and gone. */
void team_group_open(struct comm *c)
{
    struct team *team = c->world->state;
    pthread_mutex_lock(&team->lock);
    struct group *found = NULL;
    for (struct group *g = team->groups; g; g = g->next) {
        if (g->seq != c->world->groups)
            continue;
        if (conflicts(g, c))
            die("rank %d makes group %s of %d where others make group %s of %d; "
                "groups are made in one order",
                c->world->rank, c->name, c->size, g->name, g->n);
        if (same_members(g, c))
            found = g;
    }
    if (!found) {
        found = group_new(c->world->groups, c->name, c->ranks, c->size);
        found->next = team->groups;
        team->groups = found;
    }
    found->joined++;
    c->state = found;
    pthread_mutex_unlock(&team->lock);
}

void team_group_close(struct comm *c)
{
    struct team *team = c->world->state;
    struct group *g = c->state;
    pthread_mutex_lock(&team->lock);
    if (++g->left == g->n) {
        struct group **at = &team->groups;
        while (*at != g)
            at = &(*at)->next;
        *at = g->next;
        group_free(g);
    }
    pthread_mutex_unlock(&team->lock);
}

void team_close(struct world *w)
{
}

struct start {
    void (*fn)(struct world *w, void *arg);
    void *arg;
    struct world *world;
    pthread_t thread;
};

static void *thread_main(void *p)
{
    struct start *s = p;
    s->fn(s->world, s->arg);
    return NULL;
}

void world_threads(int n, void (*fn)(struct world *w, void *arg), void *arg)
{
    struct team team = {.groups = NULL};
    pthread_mutex_init(&team.lock, NULL);
    struct start *start = xcalloc((size_t)n, sizeof *start);
    for (int i = 0; i < n; i++) {
        struct world *w = xcalloc(1, sizeof *w);
        *w = (struct world){.engine = &engine_thread, .rank = i, .size = n, .local = n, .state = &team};
        start[i] = (struct start){.fn = fn, .arg = arg, .world = w};
    }
    for (int i = 1; i < n; i++) {
        int error = pthread_create(&start[i].thread, NULL, thread_main, &start[i]);
        if (error)
            die("rank %d of %d: no thread: %s", i, n, strerror(error));
    }
    thread_main(&start[0]);
    for (int i = 1; i < n; i++)
        pthread_join(start[i].thread, NULL);
    for (int i = 0; i < n; i++)
        world_free(start[i].world);
    for (struct group *g; (g = team.groups);) { /* of comms that nobody freed */
        team.groups = g->next;
        group_free(g);
    }
    pthread_mutex_destroy(&team.lock);
    free(start);
}
