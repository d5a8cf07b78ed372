/* pack_rows.c -- rows in buffers of one size, one for each rank that wants them. */
#include "real.h"

struct pack {
    int32_t *row, *there, *place; /* (R,room) (R,room,K) (N,R) */
    const int32_t *index;         /* (N,K) */
    int64_t n, k, ranks, share, el, room;
};

static void pack_for(void *arg, int64_t r, void *scratch)
{
    const struct pack *p = arg;
    int64_t first = r / p->share * p->el, k = p->k, to = r * p->room, end = to + p->room;
    for (int64_t t = 0; t < p->n; t++) {
        const int32_t *index = p->index + t * k;
        int wanted = 0;
        for (int64_t j = 0; j < k; j++)
            wanted |= index[j] >= first && index[j] < first + p->el;
        p->place[t * p->ranks + r] = wanted && to < end ? (int32_t)to : -1;
        if (!wanted || to == end)
            continue;
        memcpy(p->there + to * k, index, (size_t)k * sizeof *index);
        p->row[to++] = (int32_t)t;
    }
    memset(p->row + to, -1, (size_t)(end - to) * sizeof *p->row);
    memset(p->there + to * k, -1, (size_t)((end - to) * k) * sizeof *p->there);
}

void OPNAME(pack_rows)(struct lane *l, int32_t *row, int32_t *there, int32_t *place,
                       const int32_t *index, int64_t n, int64_t k, int64_t ranks, int64_t share,
                       int64_t el, int64_t room)
{
    struct pack p = {row, there, place, index, n, k, ranks, share, el, room};
    lane_for(l, ranks, pack_for, &p, 0);
}
