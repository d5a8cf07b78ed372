/* gzip_check.c -- CRC-32 and size of every member of a gzip file (RFC 1952), from outside.
 *
 * A file may be several members end to end, and where one ends is known only to who unpacks it. But
 * the next begins with a magic number behind a trailer of CRC and size.  So each such place in the
 * packed bytes is a possible end; it is a true one if the unpacked bytes, once they are as many as
 * its size says, have its CRC.  Chance magic numbers fail that and are forgotten; damage fails the
 * check of its member and so that of the file's last trailer. */

#include "text/gzip_check.h"

#include <stdlib.h>
#include <string.h>

static uint32_t crc_table[8][256]; /* [k][b]: byte b followed by k zero bytes */

static void crc_table_init(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int i = 0; i < 8; i++)
            c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
        crc_table[0][b] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            crc_table[k][b] = crc_table[k - 1][b] >> 8 ^ crc_table[0][crc_table[k - 1][b] & 255];
}

/* Eight bytes a step, as their contributions to the CRC are independent. */
static uint32_t crc_add(uint32_t crc, const unsigned char *p, size_t n)
{
    if (!crc_table[0][1])
        crc_table_init();
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t c[8];
        for (int i = 0; i < 8; i++)
            c[i] = crc_table[7 - i][p[i] ^ (i < 4 ? crc >> 8 * i & 255 : 0)];
        crc = c[0] ^ c[1] ^ c[2] ^ c[3] ^ c[4] ^ c[5] ^ c[6] ^ c[7];
    }
    while (n--)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *p++) & 255];
    return ~crc;
}

static uint32_t get32(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;

    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

enum {
    TRAILER = 8,
    MAGIC = 4,
    KEEP = TRAILER + MAGIC - 1
}; /* KEEP: what a later block may complete */

void gzip_check_packed(struct gzip_check *g, const void *p, size_t n)
{
    struct buf *w = &g->window;

    if (w->len > KEEP) {
        memmove(w->data, w->data + w->len - KEEP, KEEP);
        w->len = KEEP;
    }
    buf_add(w, p, n);
    for (size_t i = TRAILER; i + MAGIC <= w->len; i++) {
        const char *m = memchr(w->data + i, 0x1f, w->len - MAGIC + 1 - i);
        if (!m)
            break;
        i = (size_t)(m - w->data);
        if (memcmp(m, "\x1f\x8b\x08", 3) || m[3] & 0xe0) /* the upper flags are reserved */
            continue;
        if (!get32(m - 4)) /* the end of an empty member changes nothing */
            continue;
        if (g->trailers == g->trailers_cap) {
            g->trailers_cap = MAX(16, 2 * g->trailers_cap);
            g->trailer = xrealloc(g->trailer, (size_t)g->trailers_cap * sizeof *g->trailer);
        }
        g->trailer[g->trailers++] = (struct gzip_trailer){get32(m - 8), get32(m - 4), 0};
    }
}

/* Forgets all trailers before the i-th, which ended a member; what was in doubt is settled. */
static void member_end(struct gzip_check *g, int64_t i)
{
    g->trailers -= i;
    memmove(g->trailer, g->trailer + i, (size_t)g->trailers * sizeof *g->trailer);
    for (int64_t k = 0; k < g->trailers; k++)
        g->trailer[k].passed = 0;
    g->run[0] = (struct gzip_run){0};
    g->doubted = 0;
}

/* Trailer i is as far into the member as its size says.  If it is the first in the file that could
 * end the member and has its CRC, it does.  A later one with the right CRC leaves a doubt: the ones
 * before it may be chance, or this may be a later member that equals the beginning of this one. */
static void trailer_reached(struct gzip_check *g, int64_t i)
{
    uint32_t crc = g->trailer[i].crc;

    if (g->run[0].crc == crc && !i) {
        member_end(g, 1);
        return;
    }
    if (g->run[0].crc == crc && !g->doubted) {
        g->doubted = 1;
        g->run[1] = (struct gzip_run){0, 0, i + 1};
    }
    g->trailer[i].passed = 1;
}

/* How far the run is from the trailer's size, modulo 2^32 as the size is. */
static size_t distance(const struct gzip_check *g, const struct gzip_run *r, int64_t i)
{
    return (uint32_t)(g->trailer[i].size - r->size);
}

void gzip_check_unpacked(struct gzip_check *g, const void *p, size_t n)
{
    const unsigned char *s = p;

    for (;;) {
        struct gzip_run *other = &g->run[1];
        int64_t next = -1;
        size_t step = n;
        for (int64_t i = g->trailers - 1; i >= 0; i--)
            if (!g->trailer[i].passed && distance(g, &g->run[0], i) <= step) {
                step = distance(g, &g->run[0], i);
                next = i;
            }
        int others =
            g->doubted && other->first < g->trailers && distance(g, other, other->first) <= step;
        if (others)
            step = distance(g, other, other->first);
        for (int k = 0; k <= g->doubted; k++) {
            g->run[k].crc = crc_add(g->run[k].crc, s, step);
            g->run[k].size += (uint32_t)step;
        }
        s += step;
        n -= step;
        if (others && other->crc == g->trailer[other->first].crc)
            member_end(g, other->first + 1);
        else if (others)
            other->first++;
        else if (next >= 0)
            trailer_reached(g, next);
        else
            return;
    }
}

int gzip_check_end(const struct gzip_check *g)
{
    const struct buf *w = &g->window;

    for (int k = 0; k <= g->doubted; k++)
        if (w->len >= TRAILER && get32(w->data + w->len - 8) == g->run[k].crc &&
            get32(w->data + w->len - 4) == g->run[k].size)
            return 1;
    return 0;
}

void gzip_check_release(struct gzip_check *g)
{
    buf_release(&g->window);
    free(g->trailer);
    *g = (struct gzip_check){0};
}
