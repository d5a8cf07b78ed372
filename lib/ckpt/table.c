/* table.c -- the list of slices, and the proof that they cover every tensor exactly once.
 *
 * One flat array sorted by set, name, row and column; a tensor is a run of it. */
#include "ckpt_priv.h"

#include <stdlib.h>
#include <string.h>

struct slice *table_add(struct table *t, const char *set, const char *name)
{
    if (t->slices == t->slice_cap) {
        t->slice_cap = MAX(64, 2 * t->slice_cap);
        t->slice = xrealloc(t->slice, (size_t)t->slice_cap * sizeof *t->slice);
    }
    struct slice *s = &t->slice[t->slices++];
    *s = (struct slice){.set = xstrdup(set), .name = xstrdup(name)};
    return s;
}

int64_t table_file(struct table *t, const char *name, int64_t bytes)
{
    t->file = xrealloc(t->file, (size_t)(t->files + 1) * sizeof *t->file);
    t->file[t->files] = (struct slice_file){.name = xstrdup(name), .bytes = bytes};
    return t->files++;
}

void table_release(struct table *t)
{
    for (int64_t i = 0; i < t->slices; i++) {
        free(t->slice[i].set);
        free(t->slice[i].name);
        free(t->slice[i].tensor);
    }
    for (int64_t i = 0; i < t->files; i++)
        free(t->file[i].name);
    free(t->slice);
    free(t->file);
    *t = (struct table){0};
}

static int by_tensor(const struct slice *a, const struct slice *b)
{
    int c = strcmp(a->set, b->set);
    return c ? c : strcmp(a->name, b->name);
}

static int by_place(const void *pa, const void *pb)
{
    const struct slice *a = pa, *b = pb;
    int c = by_tensor(a, b);
    if (c)
        return c;
    if (a->r.row != b->r.row)
        return a->r.row < b->r.row ? -1 : 1;
    return (a->r.col > b->r.col) - (a->r.col < b->r.col);
}

void table_sort(struct table *t)
{
    if (t->slices)
        qsort(t->slice, (size_t)t->slices, sizeof *t->slice, by_place);
}

int64_t table_run(const struct table *t, int64_t i)
{
    int64_t j = i + 1;
    while (j < t->slices && !by_tensor(&t->slice[i], &t->slice[j]))
        j++;
    return j;
}

int64_t table_find(const struct table *t, const char *set, const char *name)
{
    struct slice key = {.set = (char *)set, .name = (char *)name};
    int64_t lo = 0, hi = t->slices;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (by_tensor(&t->slice[mid], &key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->slices && !by_tensor(&t->slice[lo], &key) ? lo : -1;
}

/* ---- the proof ---- */

/* Slices lo..hi of one tensor.  What lies inside the bounds, overlaps nowhere and adds up to the
 * whole covers it exactly once. */
static char *run_prove(const struct table *t, int64_t lo, int64_t hi)
{
    const struct slice *first = &t->slice[lo];
    int64_t rows = first->rows, cols = MAX(1, first->cols), sum = 0;
    if (rows < 1 || rows > TABLE_NUMBER_MAX / cols)
        return xasprintf("is empty or too large");
    for (int64_t i = lo; i < hi; i++) {
        const struct slice *a = &t->slice[i];
        if (a->rows != first->rows || a->cols != first->cols || a->type != first->type)
            return xasprintf("has slices that disagree about its shape or type");
        const struct rect *r = &a->r;
        if (r->row < 0 || r->col < 0 || r->rows < 1 || r->cols < 1 || r->row > rows - r->rows ||
            r->col > cols - r->cols)
            return xasprintf(
                "has a slice at (%lld, %lld) of %lld x %lld that is not inside %lld x %lld",
                (long long)r->row, (long long)r->col, (long long)r->rows, (long long)r->cols,
                (long long)rows, (long long)cols);
    }
    for (int64_t i = lo; i < hi; i++) {
        const struct rect *a = &t->slice[i].r;
        for (int64_t j = i + 1; j < hi && t->slice[j].r.row < a->row + a->rows; j++) {
            const struct rect *b = &t->slice[j].r;
            if (a->col < b->col + b->cols && b->col < a->col + a->cols)
                return xasprintf("has slices that overlap at row %lld, column %lld",
                                 (long long)b->row, (long long)MAX(a->col, b->col));
        }
        sum += a->rows * a->cols;
    }
    if (sum != rows * cols)
        return xasprintf("is not covered: its slices hold %lld of %lld elements", (long long)sum,
                         (long long)(rows * cols));
    return NULL;
}

char *table_prove(const struct table *t)
{
    for (int64_t i = 0, j; i < t->slices; i = j) {
        j = table_run(t, i);
        char *why = run_prove(t, i, j);
        if (why) {
            char *whole = xasprintf("%s tensor \"%s\" %s", t->slice[i].set, t->slice[i].name, why);
            free(why);
            return whole;
        }
    }
    return NULL;
}
