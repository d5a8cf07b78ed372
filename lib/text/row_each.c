/* row_each.c -- rows are parsed and worked on by several threads, and taken in their order.
 *
 * There are three batches: while the rows of one are worked on, those of the one before are taken
 * and the one after is read, both by one thread, which then joins the others.  So nothing waits for
 * a queue, and what is made of the rows does not depend on the number of threads. */

#include "text/text.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { BATCH_BYTES = 1 << 18, BATCH_ROWS = 1 << 14 }; /* either fills one */

struct line {
    size_t at, len, file; /* its text, its file's name */
    int64_t number;
    const char *why; /* it is no row */
    int64_t lane;    /* who worked on it, */
    size_t made;     /* and where what was made begins */
};

struct batch {
    struct buf text, files; /* the lines, the names of their files, each NUL-terminated */
    struct buf line;        /* struct line (n) */
    int64_t n;
    struct buf *made; /* (lanes) */
    _Atomic int64_t next;
};

struct work {
    struct row_each *each;
    struct row_reader *reader;
    struct json_doc **doc; /* (lanes) */
    struct batch *taken, *now, *read;
};

static void batch_read(struct batch *b, struct work *w)
{
    struct source *s = w->reader->source;
    char *text;
    size_t len, file = 0;

    buf_reset(&b->text);
    buf_reset(&b->files);
    buf_reset(&b->line);
    for (int64_t i = 0; i < w->each->lanes; i++)
        buf_reset(&b->made[i]);
    for (b->n = 0; b->n < BATCH_ROWS && b->text.len < BATCH_BYTES; b->n++) {
        if (!source_line(s, &text, &len))
            break;
        if (!b->n || strcmp(b->files.data + file, source_name(s))) {
            file = b->files.len;
            buf_add(&b->files, source_name(s), strlen(source_name(s)) + 1);
        }
        struct line x = {b->text.len, len, file, source_line_number(s), NULL, 0, 0};
        buf_add(&b->text, text, len + 1);
        buf_add(&b->line, &x, sizeof x);
    }
    b->next = 0;
}

static void batch_take(struct batch *b, struct work *w)
{
    const struct line *x = (const struct line *)b->line.data;

    for (const struct line *end = x + b->n; x < end; x++) {
        row_begin(w->reader, b->text.data + x->at, x->len, x->number);
        w->reader->row.file = b->files.data + x->file;
        if (x->why)
            row_bad(w->reader, x->why);
        else
            w->each->take(w->each->arg, w->reader, b->made[x->lane].data + x->made);
    }
}

static void row_work(struct work *w, int64_t lane, struct line *x)
{
    static const char zeros[8] = "";
    struct batch *b = w->now;
    struct buf *made = &b->made[lane];
    struct row row;

    row_init(&row, b->text.data + x->at, x->len);
    if ((x->why = row_parse(&row, w->doc[lane])))
        return;
    row.file = b->files.data + x->file;
    row.number = x->number;
    buf_add(made, zeros, -made->len % sizeof zeros);
    x->lane = lane;
    x->made = made->len;
    w->each->make(w->each->arg, lane, &row, made);
}

static void lane_run(void *arg, int64_t lane)
{
    struct work *w = arg;

    if (!lane) {
        batch_take(w->taken, w);
        batch_read(w->read, w);
    }
    for (int64_t i; (i = atomic_fetch_add(&w->now->next, 1)) < w->now->n;)
        row_work(w, lane, (struct line *)w->now->line.data + i);
}

void row_each(struct row_reader *r, struct row_each *each)
{
    struct par *par = par_new(each->lanes);
    struct work w = {.each = each, .reader = r};
    struct batch batch[3] = {{.next = 0}};

    w.doc = xcalloc((size_t)each->lanes, sizeof(struct json_doc *));
    for (int64_t i = 0; i < each->lanes; i++)
        w.doc[i] = json_doc_new();
    for (int k = 0; k < 3; k++)
        batch[k].made = xcalloc((size_t)each->lanes, sizeof(struct buf));
    batch_read(&batch[0], &w);
    for (int64_t turn = 0; batch[turn % 3].n || batch[(turn + 2) % 3].n; turn++) {
        w.taken = &batch[(turn + 2) % 3];
        w.now = &batch[turn % 3];
        w.read = &batch[(turn + 1) % 3];
        par_for(par, each->lanes, lane_run, &w);
    }
    for (int k = 0; k < 3; k++) {
        for (int64_t i = 0; i < each->lanes; i++)
            buf_release(&batch[k].made[i]);
        free(batch[k].made);
        buf_release(&batch[k].text);
        buf_release(&batch[k].files);
        buf_release(&batch[k].line);
    }
    for (int64_t i = 0; i < each->lanes; i++)
        json_doc_free(w.doc[i]);
    free(w.doc);
    par_free(par);
}
