/* team.h -- what the threads of one process share: groups, and what members post to one another.
 *
 * team.c makes and frees groups and runs the threads; comm_thread.c does the collectives. */
#ifndef TEAM_H
#define TEAM_H

#include "comm/engine.h"

#include <pthread.h>

struct post { /* what a member says about its call; what must agree comes first */
    const char *call;
    int64_t n;  /* elements, bytes, or bytes of a row */
    int detail; /* operation or root */
    enum dtype type;
    const void *in;
    void *out;
    const int64_t *rows; /* (size) */
    int64_t bytes;
};
struct group {
    struct group *next;
    int64_t seq; /* the how-manieth group of each of its members */
    char *name;
    int n, joined, left;
    int *ranks;        /* (n) of the world */
    struct post *post; /* (n) */
    pthread_barrier_t barrier;
    pthread_mutex_t lock; /* of the mailboxes */
    pthread_cond_t arrived;
    struct mailbox *box; /* (n, n) from, to */
};
struct team { /* what the worlds of one process share */
    pthread_mutex_t lock;
    struct group *groups;
};

/* Several ranks may find the same fault; the first to take the lock words it and never lets go. */
#define TEAM_DIE(team, ...) (pthread_mutex_lock(&(team)->lock), die(__VA_ARGS__))

void team_close(struct world *w);
void team_group_open(struct comm *c);
void team_group_close(struct comm *c);

#endif
