/* comm.c -- collectives (collectives.h) in worlds of one rank and of threads, in the groups of a
 * folded mesh, and in groups of one, which copy only where they must.
 *
 * Under mpirun the ranks are its processes.  With the argument "cuda" they then work on memory of
 * their GPUs; with "late" a rank stays away from a call there, and the job must end in words. */
#include "collectives.h"
#include "mesh/mesh.h"

#include <unistd.h>

/* Every group of a folded mesh at once, each rank adding up the ranks of its group. */
static void in_mesh(struct world *w, void *arg)
{
    struct mesh m;
    int64_t *wrong = arg;
    if (mesh_init(&m, world_size(w), world_rank(w), 2, 2, 1, 1, 4))
        abort();
    struct comm *c[GROUP_COUNT];
    int ranks[8];
    for (int g = 0; g < GROUP_COUNT; g++) {
        int n = mesh_group(&m, m.rank, (enum mesh_group)g, ranks);
        c[g] = comm_new(w, mesh_group_name((enum mesh_group)g), ranks, n);
    }
    for (int round = 0; round < 20; round++)
        for (int g = 0; g < GROUP_COUNT; g++) {
            int64_t sum = 0, x = world_rank(w);
            int n = mesh_group(&m, m.rank, (enum mesh_group)g, ranks);
            for (int i = 0; i < n; i++)
                sum += ranks[i];
            comm_all_reduce(c[g], NULL, &x, 1, DT_I64, COMM_SUM);
            __atomic_add_fetch(wrong, x != sum || comm_size(c[g]) != n, __ATOMIC_RELAXED);
        }
    for (int g = 0; g < GROUP_COUNT; g++)
        comm_free(c[g]);
}

static void stay_away(struct comm *c)
{
    float x[2] = {0};
    all_reduce(c, x, 2, DT_F32, COMM_SUM);
    if (comm_rank(c) == 1)
        sleep(30);
    all_gather(c, x, x + comm_rank(c), 1, DT_F32);
}

/* The same claims where mpirun has made the ranks; rank 0 reports what all found. */
static int in_job(struct world *w, const char *how)
{
    int n = world_size(w), all[64], last = world_rank(w) > 0;
    int64_t wrong = 0;
    char where[32];
    struct lane lane;
    for (int i = 0; i < n; i++)
        all[i] = i;
    struct comm *c = comm_new(w, "all", all, n);
    if (how) {
        lane_init(&lane, dev_open("cuda"), 1);
        far = &lane;
        far_in = lane_alloc(far, FAR_BYTES, "the test");
        far_out = lane_alloc(far, FAR_BYTES, "the test");
        if (!strcmp(how, "late"))
            stay_away(c);
        test_bf16(c);
    }
    in_world(w, NULL);
    if (n == 8)
        in_mesh(w, &wrong);
    test_large(c);
    comm_all_reduce(c, NULL, faults, CLAIMS, DT_I64, COMM_SUM);
    comm_all_reduce(c, NULL, &wrong, 1, DT_I64, COMM_SUM);
    comm_free(c);
    world_free(w);
    if (far) {
        lane.dev->free(far_in), lane.dev->free(far_out);
        lane_release(far);
    }
    if (last)
        return 0;
    snprintf(where, sizeof where, "%d %s", n, far ? "GPUs" : "processes");
    report(where);
    ok(wrong == 0, "%s: all groups of a folded mesh", where);
    return finish();
}

/* ---- a group of one copies only where it must ---- */

static int copies;
static void count_copy(struct lane *l, void *dst, const void *src, int64_t bytes)
{
    copies++;
    memcpy(dst, src, (size_t)bytes);
}

static void test_self_lane(void)
{
    static const struct dev_ops dev = {
        .name = "far", .copy = count_copy, .put = count_copy, .get = count_copy};
    struct lane l = {.dev = &dev};
    struct world *w = world_self();
    struct comm *c = comm_new(w, "one", &(int){0}, 1);
    float x[4] = {1, 2, 3, 4}, y[4] = {0};
    const int64_t rows = 2;
    comm_all_reduce(c, &l, x, 4, DT_F32, COMM_SUM);
    comm_all_gather(c, &l, x, x, 4, DT_F32);
    comm_reduce_scatter(c, &l, x, x, 4, DT_F32);
    comm_all_to_all(c, &l, x, &rows, x, &rows, 8);
    comm_broadcast(c, &l, x, sizeof x, 0);
    ok(copies == 0, "a group of one copies nothing where places are the same");
    comm_all_gather(c, &l, y, x, 4, DT_F32);
    ok(copies == 1 && y[3] == 4, "and otherwise once, on the lane");
    comm_free(c);
    world_free(w);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : NULL;
    tool_name = "comm";
    struct world *self = world_open(how && !strcmp(how, "late") ? 2 : 60);
    if (world_size(self) > 1)
        return in_job(self, how);
    in_world(self, NULL);
    world_free(self);
    report("world_self");
    for (int n = 1; n <= 5; n++) {
        char where[32];
        snprintf(where, sizeof where, "%d threads", n);
        world_threads(n, in_world, NULL);
        report(where);
    }
    int64_t wrong = 0;
    world_threads(8, in_mesh, &wrong);
    ok(wrong == 0, "all groups of a folded mesh of 8 threads");
    test_self_lane();
    return finish();
}
