/* gemm.c -- dense matrix products: tiles of C handed to threads, each one BLAS call.
 *
 * The tiling depends on the shape alone and the inner dimension is never cut, so the number of
 * threads does not change a bit of the result. */
#include "real.h"
#include "blas.h"

struct gemm {
    struct mat c, a, b;
    int ta, tb, add;
    int64_t k, tile_rows, tile_cols, across;
};

static void gemm_tile(void *arg, int64_t tile, void *scratch)
{
    const struct gemm *g = arg;
    int64_t i = tile / g->across * g->tile_rows, j = tile % g->across * g->tile_cols;
    int64_t m = MIN(g->tile_rows, g->c.rows - i), n = MIN(g->tile_cols, g->c.cols - j);
    const real *a = (const real *)g->a.data + (g->ta ? i : i * g->a.ld);
    const real *b = (const real *)g->b.data + (g->tb ? j * g->b.ld : j);
    product((real *)g->c.data + i * g->c.ld + j, g->c.ld, m, n, g->k, 1,
            (struct factor){a, g->a.ld, g->ta}, (struct factor){b, g->b.ld, g->tb}, g->add);
}

void OPNAME(gemm)(struct lane *l, struct mat c, struct mat a, struct mat b, int ta, int tb, int add)
{
    int64_t k = ta ? a.rows : a.cols;
    if (c.type != REAL_TYPE || a.type != REAL_TYPE || b.type != REAL_TYPE ||
        (ta ? a.cols : a.rows) != c.rows || (tb ? b.rows : b.cols) != c.cols ||
        (tb ? b.cols : b.rows) != k)
        die("gemm: %s (%lld,%lld) from %s (%lld,%lld)%s and %s (%lld,%lld)%s does not fit",
            dtype_name(c.type), (long long)c.rows, (long long)c.cols, dtype_name(a.type),
            (long long)a.rows, (long long)a.cols, ta ? "^T" : "", dtype_name(b.type),
            (long long)b.rows, (long long)b.cols, tb ? "^T" : "");
    if (!c.rows || !c.cols)
        return;
    /* A tile packs its strips of A and B anew, at a cost of 1/rows + 1/cols of its work. */
    struct gemm g = {c, a, b, ta, tb, add, k};
    int small = c.rows * c.cols <= 256 * 256;
    g.tile_rows = small ? 64 : 128;
    g.tile_cols = small ? 64 : 512;
    g.across = (c.cols + g.tile_cols - 1) / g.tile_cols;
    lane_for(l, g.across * ((c.rows + g.tile_rows - 1) / g.tile_rows), gemm_tile, &g, 0);
}
