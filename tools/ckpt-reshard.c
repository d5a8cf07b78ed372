/* ckpt-reshard.c -- checkpoint to checkpoint: cut anew, taken from Hugging Face, given to it. */
#include "ckpt/ckpt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int from_hf, to_hf;
static int64_t seed;
static const char *upcycle;
static int64_t files = 1, file_bytes = (int64_t)5 << 30;
static const char *output, *dtype = "keep";

static const struct opt options[] = {
    OPT_FLAG(0, "from-hf", &from_hf, "the input is a Hugging Face folder"),
    OPT_FLAG(0, "to-hf", &to_hf, "the output is one"),
    OPT_CHOICE(0, "dtype", &dtype, "keep|float32|bfloat16|float16",
               "type of the weights, with --from-hf and --to-hf"),
    OPT_STR(0, "upcycle", &upcycle, "e,k[,parts]",
            "a dense checkpoint as one of e experts, k chosen, that are whole networks or parts"),
    OPT_SEED(&seed, "of the routers, with --upcycle"),
    OPT_INT(0, "max-shard-size", &file_bytes, "bytes",
            "the most a file of weights may hold, with --from-hf, --to-hf and --upcycle"),
    OPT_INT(0, "files", &files, "n", "files to cut a checkpoint into by rows, without them"),
    OPT_STR('o', "output", &output, "dir/", "folder to write (required)"),
    OPT_END};

static enum dtype dtype_chosen(void)
{
    static const struct {
        const char *name;
        enum dtype type;
    } known[] = {
        {"keep", DT_COUNT}, {"float32", DT_F32}, {"bfloat16", DT_BF16}, {"float16", DT_F16}};
    for (int64_t i = 0;; i++)
        if (!strcmp(dtype, known[i].name))
            return known[i].type;
}

/* The input, or the checkpoint that a run stands for: what is made of it has less in it than it. */
static int is_input(const char *path, const char *input)
{
    struct stat x, y;
    char *last = path_join(input, "last");
    int is =
        !stat(path, &x) && ((!stat(input, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino) ||
                            (!stat(last, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino));
    free(last);
    return is;
}

static void run_upcycle(const char *from)
{
    long long e, k, parts = 1;
    int end = 0, n = sscanf(upcycle, "%lld,%lld%n,%lld%n", &e, &k, &end, &parts, &end);
    if (n < 2 || upcycle[end] || e < 1 || k < 1 || parts < 1 || e > INT32_MAX)
        die_misused("--upcycle %s: experts, chosen experts and maybe parts are wanted, as in 8,2",
                    upcycle);
    ckpt_upcycle(from, output, e, k, parts, seed, file_bytes);
}

int main(int argc, char **argv)
{
    int i = opt_parse(argc, argv, options, "ckpt-reshard [options] -o DIR/ CKPT",
                      "Rewrites a checkpoint or run into --files files cut by rows, or converts "
                      "from or to a Hugging Face folder.");
    if (argc - i != 1)
        die_misused("one checkpoint, run or Hugging Face folder is wanted, %d are given", argc - i);
    if (!output)
        die_misused("-o DIR/ is wanted");
    if (from_hf + to_hf + (upcycle != NULL) > 1)
        die_misused("--from-hf, --to-hf and --upcycle exclude each other");
    int hf = from_hf || to_hf;
    if (!hf && opt_given("dtype"))
        die_misused("--dtype is for --from-hf and --to-hf");
    if (!hf && !upcycle && opt_given("max-shard-size"))
        die_misused("--max-shard-size is for --from-hf, --to-hf and --upcycle");
    if ((hf || upcycle) && opt_given("files"))
        die_misused("--files only cuts a checkpoint anew; see --max-shard-size");
    if (files < 1 || files > 99999)
        die_misused("--files %lld: 1 to 99999 are possible", (long long)files);
    if (file_bytes < 1)
        die_misused("--max-shard-size %lld: at least 1", (long long)file_bytes);
    if ((hf || upcycle) && is_input(output, argv[i]))
        die_misused("-o %s: is the input", output);
    ckpt_spare(output);
    if (from_hf)
        ckpt_from_hf(argv[i], output, dtype_chosen(), file_bytes);
    else if (to_hf)
        ckpt_to_hf(argv[i], output, dtype_chosen(), file_bytes);
    else if (upcycle)
        run_upcycle(argv[i]);
    else
        ckpt_rewrite(argv[i], output, (int)files);
    return EXIT_DONE;
}
