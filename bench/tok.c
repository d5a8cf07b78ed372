/* tok.c -- how fast tok_encode is: tok TOKENIZER TEXT IDS [JOBS].
 *
 * The text is cut into documents of at least 4 KiB, after a newline, and encoded once; prints the
 * seconds that took, the ids' number and the seconds of loading.  IDS gets the ids, so that the
 * peer can say whether they are its own.  With JOBS as many processes take a part of the documents
 * each, and the seconds are the slowest one's. */

#include "text/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double encode(struct tok *t, const char *s, size_t n, struct ids *out)
{
    double from = now();

    for (size_t at = 0, end; at < n; at = end) {
        const char *cut = n - at > 4096 ? memchr(s + at + 4096, '\n', n - at - 4096) : NULL;
        end = cut ? (size_t)(cut + 1 - s) : n;
        tok_encode(t, s + at, end - at, 0, out);
    }
    return now() - from;
}

int main(int argc, char **argv)
{
    struct buf text = {0};
    struct ids ids = {0};
    double from = now(), worst = 0;

    if (argc < 4)
        die_misused("usage: tok TOKENIZER TEXT IDS [JOBS]");
    struct tok *t = tok_open(argv[1]);
    double loading = now() - from;
    struct source *source = source_open(argv + 2, 1);
    source_entry(source, &text);
    int jobs = argc > 4 ? atoi(argv[4]) : 1;
    double *took = mmap(NULL, sizeof *took * (size_t)jobs, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int job = 1; job < jobs; job++)
        if (!fork()) {
            size_t part = text.len / (size_t)jobs;
            took[job] = encode(t, text.data + part * (size_t)job, part, &ids);
            _exit(0);
        }
    took[0] = encode(t, text.data, text.len / (size_t)jobs, &ids);
    while (wait(NULL) > 0)
        ;
    for (int job = 0; job < jobs; job++)
        worst = MAX(worst, took[job]);
    FILE *f = fopen(argv[3], "wb");
    if (!f || fwrite(ids.id, sizeof *ids.id, (size_t)ids.n, f) != (size_t)ids.n || fclose(f))
        die("%s: cannot be written", argv[3]);
    printf("%.4f %lld %.3f\n", worst, (long long)ids.n, loading);
    return 0;
}
