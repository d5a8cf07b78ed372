/* from_hf.c -- a plain Hugging Face folder as a checkpoint, without losing a bit. */
#include "ckpt_priv.h"

#include <stdlib.h>

struct taken { /* a parameter on its way */
    struct hf_folder *folder;
    int64_t i;
    enum dtype type;
};

static void taken_put(void *arg, struct blob_file *f)
{
    const struct taken *x = arg;
    hf_folder_put(x->folder, x->i, f, x->type);
}

/* Many folders say that there are layers which predict further tokens, and have none, as
 * transformers loads and saves none. */
static void leave_out_further(struct config *c, const char *from)
{
    int64_t n, i = 0;
    struct param *p = arch_params(c, &n);
    while (i < n && p[i].layer < c->layers)
        i++;
    if (i < n && !hf_folder_has(from, p[i].name)) {
        warn("%s: config.json speaks of layers that predict further tokens, and there are none",
             from);
        c->further = 0;
    }
    params_free(p, n);
}

void ckpt_from_hf(const char *from, const char *to, enum dtype type, int64_t file_bytes)
{
    struct config c;
    int64_t n;
    char *name = path_join(from, "config.json");
    if (!path_exists(from))
        die("%s:", from);
    if (!path_exists(name))
        die_damaged("%s: no config.json: not a Hugging Face folder", from);
    struct buf text = read_file(name);
    struct fp8_blocks blocks = fp8_config(&text, name);
    config_parse(&c, text.data, text.len, name);
    leave_out_further(&c, from);
    struct param *p = arch_params(&c, &n);
    struct hf_folder *d = hf_folder_open(from, &c, p, n, blocks);
    side_files_check(from, &c);

    struct taken *x = xmalloc((size_t)n * sizeof *x);
    struct making *m = xmalloc((size_t)n * sizeof *m);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (struct taken){d, i, type_wanted(&p[i], hf_folder_type(d, i), type)};
        m[i] = (struct making){&p[i], x[i].type, taken_put, &x[i]};
    }
    ckpt_make(to, m, n, &c, from, file_bytes);

    free(x);
    free(m);
    hf_folder_close(d);
    params_free(p, n);
    config_release(&c);
    buf_release(&text);
    free(name);
}
