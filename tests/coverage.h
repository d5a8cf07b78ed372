/* coverage.h -- what a list of mappings covers, counted from it. */
#ifndef COVERAGE_H
#define COVERAGE_H

#include "mappings.h"

enum { TP, CP, DP, PP, ETP, EP, DIMENSIONS };
static const char *const dimension[] = {"TP", "CP", "DP", "PP", "ETP", "EP"};

/* Which dimensions are cut. */
static unsigned dimensions_of(const struct mapping *x)
{
    const int size[] = {x->tp, x->cp, x->ranks / (x->tp * x->cp * x->pp), x->pp, x->etp, x->ep};
    unsigned set = 0;
    for (int i = 0; i < DIMENSIONS; i++)
        set |= (unsigned)(size[i] > 1) << i;
    return set;
}

/* Whether a mapping has these dimensions and no others.  Ranks that share experts share out
 * attention somehow: if by nothing else, by DP. */
static int only(unsigned have, unsigned want)
{
    unsigned experts = 1 << ETP | 1 << EP;
    return have == want || ((want & experts) && have == (want | 1 << DP));
}

static int has_folded(const struct mapping *x)
{
    return x->tp > 1 && x->cp > 1 && x->ep == x->tp * x->cp;
}
static int has_folded_dp(const struct mapping *x)
{
    int stage = x->ranks / x->pp;
    return x->tp > 1 && x->cp > 1 && stage > x->tp * x->cp && x->ep == stage;
}
static int has_other_etp(const struct mapping *x)
{
    return x->etp != x->tp && x->etp > 1 && x->tp > 1;
}
static int has_etp_alone(const struct mapping *x)
{
    return x->etp > 1 && x->tp == 1;
}
static int is_woven(const struct mapping *x)
{
    int chunks = 1;
    for (const char *s = x->layout; s && *s; s++)
        chunks += *s == ',';
    return chunks > x->pp;
}

/* x: the mappings that agreed with one rank under every method that could be tried on them. */
static void test_coverage(const struct mapping *x, int64_t n, int largest)
{
    static const struct {
        const char *what;
        int (*has)(const struct mapping *x);
        int ranks; /* that it takes */
    } wanted[] = {{"EP over TP x CP", has_folded, 4},
                  {"EP over TP x CP x DP", has_folded_dp, 8},
                  {"ETP without TP", has_etp_alone, 2},
                  {"ETP and TP of different sizes", has_other_etp, 16},
                  {"interleaved stages", is_woven, 2}};
    struct buf missing = {0};
    int64_t mappings = 0, alone = 0, pairs = 0;
    for (int64_t i = 0; i < n; i++)
        mappings += !is_listed(x, i, x[i]);
    for (int a = 0; a < DIMENSIONS; a++)
        for (int b = a; b < DIMENSIONS; b++) {
            int found = 0;
            for (int64_t i = 0; !found && i < n; i++)
                found = only(dimensions_of(&x[i]), 1u << a | 1u << b);
            *(a == b ? &alone : &pairs) += found;
            if (!found)
                buf_printf(&missing, " %s%s%s", dimension[a], a == b ? "" : " x ",
                           a == b ? "" : dimension[b]);
        }
    ok(!missing.len,
       "%lld mappings agreed; among them %lld of %d dimensions alone and %lld of %d pairs%s%s",
       (long long)mappings, (long long)alone, DIMENSIONS, (long long)pairs,
       DIMENSIONS * (DIMENSIONS - 1) / 2, missing.len ? "; not:" : "",
       missing.len ? missing.data : "");
    for (int64_t k = 0; k < ARRAY_LEN(wanted); k++) {
        int64_t found = 0;
        for (int64_t i = 0; i < n; i++)
            found += wanted[k].has(&x[i]);
        if (wanted[k].ranks <= largest)
            ok(found > 0, "%s: in %lld of them", wanted[k].what, (long long)found);
    }
    buf_release(&missing);
}

#endif
