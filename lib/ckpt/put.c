/* put.c -- elements on their way into a file, in the type they are wanted in, a block at a time. */
#include "ckpt_priv.h"

void elements_put(struct blob_file *f, enum dtype to, const void *src, enum dtype from, int64_t n)
{
    enum { BLOCK = 4096 };
    char block[BLOCK * sizeof(double)];
    int64_t size = dtype_size(from);
    if (to == from) {
        blob_file_put(f, src, n * size);
        return;
    }
    for (int64_t i = 0, m; i < n; i += m) {
        m = MIN(BLOCK, n - i);
        dtype_convert(block, to, (const char *)src + i * size, from, m);
        blob_file_put(f, block, m * dtype_size(to));
    }
}

struct target {
    struct blob_file *f;
    enum dtype to, from;
};

static void block_put(void *arg, const void *bytes, int64_t n)
{
    const struct target *x = arg;
    elements_put(x->f, x->to, bytes, x->from, n / dtype_size(x->from));
}

uint64_t tensor_put(struct blob_file *f, enum dtype to, struct shard_file *from,
                    const struct tensor *t)
{
    return shard_blocks(from, t, block_put, &(struct target){f, to, t->type});
}

int files_cut(const int64_t *bytes, int64_t n, int64_t file_bytes, int64_t *end)
{
    int files = 0;
    for (int64_t i = 0; i < n; files++) {
        int64_t used = 0;
        do
            used += bytes[i++];
        while (i < n && bytes[i] <= file_bytes - used);
        end[files] = i;
    }
    return files;
}
