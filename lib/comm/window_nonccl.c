/* window_nonccl.c -- a build without NCCL has no windows. */
#include "comm/comm.h"

int64_t window_half(int64_t ranks, int64_t n, int64_t row_bytes)
{
    return 0;
}

int64_t window_bytes(int64_t half)
{
    return 0;
}

struct window *window_open(struct comm *c, struct lane *l, int64_t half, const char **why)
{
    *why = "this build has no NCCL";
    return NULL;
}

void window_close(struct window *w)
{
}

void window_out(struct window *w, struct lane *l, const struct window_rows *rows,
                const struct window_part *part, int parts)
{
    die("window_out: there is no window");
}

void window_back(struct window *w, struct lane *l, const struct window_rows *rows,
                 const struct window_part *part, int parts)
{
    die("window_back: there is no window");
}
