/* agree.c -- pairs that were decided, and how often a judge decides them the same way.
 *
 * The judge to beat looks only at the length: it is right in the share of pairs whose chosen answer
 * is the longer one, or in the rest of them, whichever is more.  A tie is half a pair. */
#include "pref/pref.h"

#include <math.h>

static double win(double a, double b)
{
    return a > b ? 1 : a < b ? 0 : 0.5;
}

void pref_agree_add(struct pref_agree *t, const struct row *r, const char *chosen,
                    const char *rejected)
{
    struct row a = *r, b = *r;
    double x, y;
    a.response = r->chosen, a.response_len = r->chosen_len;
    b.response = r->rejected, b.response_len = r->rejected_len;
    t->longer += win((double)pref_length(&a), (double)pref_length(&b));
    t->pairs++;
    if (pref_reward(r, chosen, &x) || pref_reward(r, rejected, &y))
        return;
    t->agree += win(x, y);
    t->scored++;
}

struct interval share_interval(double share, int64_t n)
{
    if (!n)
        return (struct interval){NAN, NAN, NAN};
    const double z = 1.959963984540054, m = (double)n, scale = 1 + z * z / m;
    double centre = share + z * z / (2 * m);
    double half = z * sqrt(share * (1 - share) / m + z * z / (4 * m * m));
    return (struct interval){share, (centre - half) / scale, (centre + half) / scale};
}
