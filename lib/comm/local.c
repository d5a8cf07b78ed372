/* local.c -- what engines inside one process share: copies, and messages that wait to be taken. */
#include "comm/engine.h"

#include <stdlib.h>
#include <string.h>

void comm_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
    if (dst == src || bytes == 0)
        return;
    if (l)
        l->dev->copy(l, dst, src, bytes);
    else
        memcpy(dst, src, (size_t)bytes);
}

char *comm_bytes(const void *p, int64_t n)
{
    char *s = xmalloc((size_t)n + 1);
    comm_copy(NULL, s, p, n);
    s[n] = '\0';
    return s;
}

void mailbox_init(struct mailbox *b)
{
    *b = (struct mailbox){NULL, &b->first};
}

void mailbox_put(struct mailbox *b, struct message *m)
{
    *b->end = m;
    b->end = &m->next;
}

struct message *mailbox_take(struct mailbox *b)
{
    struct message *m = b->first;
    if (!m)
        return NULL;
    b->first = m->next;
    if (!b->first)
        b->end = &b->first;
    return m;
}

void mailbox_release(struct mailbox *b)
{
    for (struct message *m; (m = mailbox_take(b));)
        free(m);
}

struct message *message_new(struct lane *l, const void *buf, int64_t bytes)
{
    struct message *m = xmalloc(sizeof *m + (size_t)bytes);
    *m = (struct message){NULL, bytes};
    if (l) {
        l->dev->get(l, m->data, buf, bytes);
        l->dev->wait(l);
    } else {
        comm_copy(NULL, m->data, buf, bytes);
    }
    return m;
}

void message_deliver(struct comm *c, struct lane *l, struct message *m, void *buf, int64_t bytes,
                     int from)
{
    if (m->bytes != bytes)
        die("group %s: rank %d sent %lld bytes and rank %d expects %lld", c->name, from,
            (long long)m->bytes, c->rank, (long long)bytes);
    if (l) {
        l->dev->put(l, buf, m->data, bytes);
        l->dev->wait(l);
    } else {
        comm_copy(NULL, buf, m->data, bytes);
    }
    free(m);
}
