/* tok.c -- how fast tok_encode is: tok TOKENIZER TEXT IDS [THREADS].
 *
 * The text is cut into parts of some 256 KiB, those into documents of at least 4 KiB, after a
 * newline, and encoded once by THREADS threads, each of which takes the next part; prints the
 * seconds that took, the ids' number and the seconds of loading.  IDS gets the ids, so that the
 * peer can say whether they are its own. */

#include "text/text.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { DOCUMENT = 4096, PART = 256 << 10 };

struct work {
    struct tok **tok; /* (threads) */
    const char *text;
    size_t *part; /* (parts + 1) where each begins */
    struct ids *ids;
    int64_t parts;
    _Atomic int64_t next;
};

/* The first place behind a newline at least n bytes on, or the end. */
static size_t cut(const char *s, size_t at, size_t end, size_t n)
{
    const char *hit = end - at > n ? memchr(s + at + n, '\n', end - at - n) : NULL;

    return hit ? (size_t)(hit + 1 - s) : end;
}

static void encode(void *arg, int64_t lane)
{
    struct work *w = arg;

    for (int64_t i; (i = atomic_fetch_add(&w->next, 1)) < w->parts;)
        for (size_t at = w->part[i], end = w->part[i + 1], to; at < end; at = to) {
            to = cut(w->text, at, end, DOCUMENT);
            tok_encode(w->tok[lane], w->text + at, to - at, 0, &w->ids[i]);
        }
}

int main(int argc, char **argv)
{
    struct buf text = {0};
    struct work w = {0};
    int64_t ids = 0;
    double from = clock_s();

    if (argc < 4)
        die_misused("usage: tok TOKENIZER TEXT IDS [THREADS]");
    int64_t threads = argc > 4 ? atoi(argv[4]) : 1;
    w.tok = xcalloc((size_t)threads, sizeof *w.tok);
    w.tok[0] = tok_open(argv[1]);
    for (int64_t i = 1; i < threads; i++)
        w.tok[i] = tok_twin(w.tok[0]);
    double loading = clock_s() - from;
    struct source *source = source_open(argv + 2, 1);
    source_entry(source, &text);
    w.text = text.data;
    w.part = xcalloc(text.len / PART + 2, sizeof *w.part);
    w.ids = xcalloc(text.len / PART + 1, sizeof *w.ids);
    while (w.part[w.parts] < text.len) {
        w.part[w.parts + 1] = cut(text.data, w.part[w.parts], text.len, PART);
        w.parts++;
    }
    struct par *par = par_new(threads);
    from = clock_s();
    par_for(par, threads, encode, &w);
    double took = clock_s() - from;
    struct out *out = out_open(argv[3]);
    for (int64_t i = 0; i < w.parts; ids += w.ids[i++].n)
        out_write(out, w.ids[i].id, (size_t)w.ids[i].n * sizeof *w.ids[i].id);
    out_close(out);
    printf("%.4f %lld %.3f\n", took, (long long)ids, loading);
    return 0;
}
