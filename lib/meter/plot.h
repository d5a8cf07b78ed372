/* plot.h -- between the files that make a figure: curves in numbers (curve.c) and in ink (plot.c).
 */
#ifndef METER_PLOT_H
#define METER_PLOT_H

#include "meter/meter.h"

struct panel {
    const char *title;
    double (*of)(const struct step_line *s);
    double (*smooth)(double *v, int64_t n);
    int log, valid; /* y is logarithmic; validation losses belong here */
    int level;      /* y begins at 0, and the first steps tell nothing of those that follow */
};

struct curve {
    double *x, *y, *mid; /* (n) each; mid is y smoothed, NULL of validations */
    int64_t n;
};
struct curve curve_of(const struct meter_log *m, const struct panel *p, int over_tokens);
struct curve curve_of_valid(const struct meter_log *m, int over_tokens);
void curve_release(struct curve *c);

struct range {
    double low, high; /* low > high: nothing yet */
};
void range_add(struct range *r, const double *v, int64_t n);

#endif
