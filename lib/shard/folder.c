/* folder.c -- the shards in a folder and in the folders below it, in order of name. */
#include "shard/shard_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

struct names {
    char **v;
    int64_t n;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int is_shard(const char *name)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(name), m = sizeof ending - 1;
    return n > m && !strcmp(name + n - m, ending);
}

static void names_find(const char *root, const char *under, struct names *found)
{
    char *path = *under ? path_join(root, under) : xstrdup(root);
    DIR *d = opendir(path);
    if (!d)
        die("open %s:", path);
    for (struct dirent *e; (e = readdir(d));) {
        if (*e->d_name == '.')
            continue;
        char *name = *under ? path_join(under, e->d_name) : xstrdup(e->d_name);
        char *full = path_join(root, name);
        if (path_is_dir(full)) {
            names_find(root, name, found);
        } else if (is_shard(name)) {
            found->v = xrealloc(found->v, (size_t)(found->n + 1) * sizeof *found->v);
            found->v[found->n++] = xstrdup(name);
        }
        free(name);
        free(full);
    }
    closedir(d);
    free(path);
}

char **shard_list(const char *folder, int64_t *n)
{
    struct names found = {0};
    names_find(folder, "", &found);
    if (!found.n)
        die("%s: no safetensors files in it", folder);
    qsort(found.v, (size_t)found.n, sizeof *found.v, by_text);
    *n = found.n;
    return found.v;
}
