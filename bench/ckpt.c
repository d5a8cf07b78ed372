/* ckpt.c -- saving a checkpoint and cutting it anew, beside dd conv=fsync of as many bytes.
 *
 *   ckpt DIR [RANKS]
 *
 * 3.2 GB: a Mixtral of 265 M parameters in f32 with AdamW's moments, of which each rank (a thread;
 * 2 unless told) writes its part, as in a run.  Save, dd and ckpt_rewrite() take turns within one
 * process, since what a disk does changes from second to second, and the first turn is not counted:
 * a virtual machine is slow in pages that it has not yet touched.  What is left is on the disk each
 * time, with its folder. */
#include "../tests/holder.h"
#include "../tests/save.h" /* as a run saves */
#include "bench.h"

#include <math.h>
#include <stdio.h>

enum { TURNS = 7, FILES = 4 };
static const char config_text[] =
    "{\"model_type\":\"mixtral\",\"hidden_size\":1024,\"num_hidden_layers\":4,"
    "\"num_attention_heads\":16,\"num_key_value_heads\":8,\"num_local_experts\":8,"
    "\"num_experts_per_tok\":2,\"intermediate_size\":2560,\"vocab_size\":256,"
    "\"max_position_embeddings\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5}";

static void fill(void *p, int64_t bytes)
{
    uint64_t *x = p;
    for (int64_t i = 0; i < bytes / 8; i++)
        x[i] = (uint64_t)i * 0x9e3779b97f4a7c15;
}

/* Seconds that a command takes; fmt has the folder. */
static double command(const char *fmt, const char *dir)
{
    char line[1024];
    double begun = clock_s();
    snprintf(line, sizeof line, fmt, dir);
    if (system(line))
        die("%s: failed", line);
    return clock_s() - begun;
}

/* A turn of the first rank, once all have their part in tmp, with what saving has taken so far. */
static void turn_end(const char *dir, const char *tmp, double save_s, int turn, double *save_part,
                     double *cut_part)
{
    char *at = path_join(dir, "saved"), *cut = path_join(dir, "cut");
    double begun = clock_s();
    dir_publish(tmp, at);
    save_s += clock_s() - begun;
    command("sync; du -bs %1$s/saved | cut -f1 >%1$s/bytes", dir);
    char *bytes = path_join(dir, "bytes");
    struct buf text = read_file(bytes);
    double gb = strtod(text.data, NULL) / 1e9;
    double dd_s = command("dd if=/dev/zero of=%1$s/zeros bs=1M conv=fsync 2>/dev/null "
                          "count=$(($(cat %1$s/bytes) >> 20))",
                          dir);
    command("rm %s/zeros; sync", dir);
    begun = clock_s();
    ckpt_rewrite(at, cut, FILES);
    double cut_s = clock_s() - begun;
    command("rm -rf %1$s/saved %1$s/cut && sync", dir);
    if (turn >= 0) {
        printf("%-6d %10.2f %10.2f %10.2f %10.0f %10.0f\n", turn + 1, gb / dd_s, gb / save_s,
               gb / cut_s, 100 * dd_s / save_s, 100 * dd_s / cut_s);
        fflush(stdout);
        save_part[turn] = 100 * dd_s / save_s;
        cut_part[turn] = 100 * dd_s / cut_s;
    }
    buf_release(&text);
    free(at), free(cut), free(bytes);
}

static void rank_main(struct world *w, void *arg)
{
    const char *dir = arg;
    int ranks = world_size(w), first = world_rank(w) == 0;
    struct trainer t;
    holder_init(&t, w, config_text, 1, 1, 1, 1, ranks);
    for (int b = 0; b < BUFFERS_LEARNT; b++) {
        fill(t.model.weight[b], t.model.layout.size[b] * 4);
        for (int k = 0; k < t.optim.def->moments; k++)
            fill(t.optim.shard[b].moment[k], t.model.layout.shard[b] * 4);
    }

    struct comm *all = t.model.comm[GROUP_WORLD];
    double save_part[TURNS], cut_part[TURNS];
    char *at = path_join(dir, "saved");
    for (int turn = -1; turn < TURNS; turn++) {
        char *mine = first ? dir_begin(at) : xstrdup(""), *tmp = of_rank_0(all, mine);
        comm_barrier(all);
        double begun = clock_s();
        save(&t, w, tmp);
        if (first)
            turn_end(dir, tmp, clock_s() - begun, turn, save_part, cut_part);
        free(mine), free(tmp);
    }
    if (first)
        printf("%-6s %10s %10s %10s %10.0f %10.0f  target 70\n", "median", "", "", "",
               median(save_part, TURNS), median(cut_part, TURNS));
    trainer_release(&t);
    free(at);
}

int main(int argc, char **argv)
{
    int ranks = argc > 2 ? atoi(argv[2]) : 2;
    if (argc < 2 || ranks < 1 || ranks > 8 || 8 % ranks)
        die_misused("ckpt DIR [1 | 2 | 4 | 8]");
    opt_quiet = 1;
    printf("%-6s %10s %10s %10s %10s %10s\n", "turn", "dd GB/s", "save", "reshard", "save %",
           "reshard %");
    world_threads(ranks, rank_main, argv[1]);
    return 0;
}
