/* moe-train -- shards and a checkpoint in, a checkpoint and a log out.
 *
 * All of the work is lib/train; here are the options and their defaults. */
#include "train/train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* clang-format off */
static struct run_options o = {
    .train = {.device = "cpu", .type = "f32", .grads = "f32", .loss = "nll", .batch = 16,
              .beta = 0.1, .aux = -1, .z = -1, .further = 0.1, .group = 1, .dispatch = "auto",
              .optim = {.name = "adamw", .moments = "f32", .master = "f32", .decay = 0.1,
                        .plan = {.lr = 3e-4, .floor = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1}}},
    .epochs = 1, .keep = 2, .deadline_s = 600,
    .ranks = 1, .tp = 1, .cp = 1, .pp = 1, .etp = 1, .ep = 1,
};
/* clang-format on */

static const struct opt options[] = {
    OPT_STR('m', "model", &o.model, "file", "config.json of a new model, in Hugging Face's terms"),
    OPT_STR('i', "init", &o.init, "ckpt", "start from these weights (a run or a checkpoint)"),
    OPT_LIST('d', "data", &o.data, "set[=w]",
             "training set, with its weight in a mixture; repeatable"),
    OPT_STR('o', "output", &o.out, "run", "folder of the run; the same command resumes it"),
    OPT_INT('n', "steps", &o.steps, "n", "optimizer steps; 0: as many as --epochs needs"),
    OPT_REAL('e', "epochs", &o.epochs, "x", "passes over the data, when --steps is 0"),
    OPT_INT('b', "batch", &o.train.batch, "rows", "packed sequences a step, over all ranks"),
    OPT_INT(0, "micro", &o.train.micro, "rows",
            "packed sequences a rank takes at once; 0: all its share"),
    OPT_STR(0, "loss", &o.train.loss, "name",
            "what is minimised: nll (weighted by the set's weights), bt, dpo"),
    OPT_REAL(0, "beta", &o.train.beta, "x", "dpo: how far the policy may move from its reference"),
    OPT_CHOICE(0, "optimizer", &o.train.optim.name, "adamw|sgd", "how weights are updated"),
    OPT_REAL('l', "lr", &o.train.optim.plan.lr, "x", "peak learning rate"),
    OPT_REAL(0, "lr-floor", &o.train.optim.plan.floor, "x",
             "last learning rate, as a fraction of the peak"),
    OPT_REAL('w', "warmup", &o.train.optim.plan.warmup, "steps", "steps over which the rate rises"),
    OPT_REAL(0, "beta1", &o.train.optim.plan.beta1, "x", "AdamW: decay of the mean"),
    OPT_REAL(0, "beta2", &o.train.optim.plan.beta2, "x", "AdamW: decay of the square"),
    OPT_REAL(0, "eps", &o.train.optim.plan.eps, "x", "AdamW: added to the root"),
    OPT_REAL(0, "decay", &o.train.optim.decay, "x", "weight decay of matrices"),
    OPT_REAL(0, "clip", &o.train.optim.plan.clip, "x", "largest gradient norm; 0: none"),
    OPT_REAL(0, "aux", &o.train.aux, "x", "auxiliary loss coefficient; -1: the model's"),
    OPT_REAL(0, "z", &o.train.z, "x", "router z loss coefficient; -1: the model's"),
    OPT_REAL(0, "mtp-weight", &o.train.further, "x",
             "weight of the loss of layers that predict further tokens; 0: they are left out"),
    OPT_REAL(0, "balance", &o.train.optim.balance, "x",
             "what a step moves an expert's bias by, towards even loads; 0: it stays"),
    OPT_REAL(0, "capacity", &o.train.capacity, "x",
             "choices an expert takes, as a multiple of the mean; the rest are dropped; 0: all"),
    OPT_INT(0, "group", &o.train.group, "rows",
            "packed sequences over which capacity and auxiliary loss are counted"),
    OPT_SEED(&o.seed, "of initial weights and of the order of data"),
    OPT_CHOICE(0, "type", &o.train.type, "f32|f64|bf16", "arithmetic; f64: cpu, bf16: cuda"),
    OPT_CHOICE(0, "grads", &o.train.grads, "f32|bf16", "what weight gradients are kept in"),
    OPT_CHOICE(0, "moments", &o.train.optim.moments, "f32|bf16",
               "what AdamW's moments are kept in; bf16 is rounded stochastically"),
    OPT_CHOICE(0, "master", &o.train.optim.master, "f32|none",
               "the copy of bf16 weights that is updated; none: they themselves, as moments"),
    OPT_CHOICE(0, "device", &o.train.device, "cpu|cuda", "where to compute"),
    OPT_FLAG(0, "deterministic", &o.train.deterministic,
             "the same bits again on the same machine, also of library kernels; slower"),
    OPT_INT('j', "threads", &o.train.threads, "n",
            "threads of each rank; 0: the cores over the ranks"),
    OPT_INT(0, "save-every", &o.save_every, "steps", "checkpoint interval; 0: at the end only"),
    OPT_INT(0, "keep", &o.keep, "n", "checkpoints kept; 0: all"),
    OPT_STR(0, "valid", &o.valid, "set", "validation set"),
    OPT_INT(0, "valid-every", &o.valid_every, "steps", "how often its loss is measured"),
    OPT_FLAG(0, "eval-only", &o.eval_only, "print the loss of --init on --valid and stop"),
    OPT_INT(0, "max-bad-steps", &o.max_bad_steps, "n",
            "steps with a non-finite loss or gradient to pass over"),
    OPT_INT(0, "ranks", &o.ranks, "n", "ranks, as threads of this process"),
    OPT_REAL(0, "deadline", &o.deadline_s, "s",
             "seconds until a call between processes that hangs ends the job"),
    OPT_INT(0, "tp", &o.tp, "n", "tensor parallelism of attention"),
    OPT_INT(0, "cp", &o.cp, "n", "context parallelism"),
    OPT_INT(0, "pp", &o.pp, "n", "pipeline stages"),
    OPT_STR(0, "pp-layout", &o.pp_layout, "n,n,...",
            "layers of each chunk, dealt to the stages in turn"),
    OPT_INT(0, "etp", &o.etp, "n", "tensor parallelism of experts"),
    OPT_INT(0, "ep", &o.ep, "n", "expert parallelism"),
    OPT_CHOICE(0, "dispatch", &o.train.dispatch, "auto|rows|all|padded|window",
               "tokens to ranks: as wanted, all to all, by capacity, or from GPU to GPU"),
    OPT_END};

/* What would train nonsense without a word. */
static void check_numbers(void)
{
    const struct step_plan *p = &o.train.optim.plan;
    const struct {
        const char *option, *what;
        double value;
        int good;
    } numbers[] = {
        {"epochs", "above 0 and at most 1e6", o.epochs, o.epochs > 0 && o.epochs <= 1e6},
        {"batch", "1 or more", (double)o.train.batch, o.train.batch >= 1},
        {"beta", "above 0", o.train.beta, o.train.beta > 0 && isfinite(o.train.beta)},
        {"mtp-weight", "0 or more", o.train.further,
         o.train.further >= 0 && isfinite(o.train.further)},
        {"capacity", "0 or more", o.train.capacity,
         o.train.capacity >= 0 && isfinite(o.train.capacity)},
        {"group", "1 or more", (double)o.train.group, o.train.group >= 1},
        {"lr", "0 or more", p->lr, p->lr >= 0 && isfinite(p->lr)},
        {"lr-floor", "in [0, 1]", p->floor, p->floor >= 0 && p->floor <= 1},
        {"warmup", "0 or more", p->warmup, p->warmup >= 0},
        {"beta1", "in [0, 1)", p->beta1, p->beta1 >= 0 && p->beta1 < 1},
        {"beta2", "in [0, 1)", p->beta2, p->beta2 >= 0 && p->beta2 < 1},
        {"eps", "above 0", p->eps, p->eps > 0},
        {"clip", "0 or more", p->clip, p->clip >= 0},
        {"decay", "0 or more", o.train.optim.decay, o.train.optim.decay >= 0},
        {"deadline", "above 0", o.deadline_s, o.deadline_s > 0},
    };
    for (int64_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (!numbers[i].good)
            die_misused("--%s %g: must be %s", numbers[i].option, numbers[i].value,
                        numbers[i].what);
}

int main(int argc, char **argv)
{
    int first =
        opt_parse(argc, argv, options,
                  "moe-train [options] --data set/ {--model config.json | --init ckpt} -o run/",
                  "Trains a mixture-of-experts model on packed shards.");
    if (first < argc)
        die_misused("%s: operands are not taken; name training sets with --data", argv[first]);
    check_numbers();
    if (o.valid_every && !o.valid)
        die_misused("--valid-every needs --valid");
    if (o.eval_only) {
        if (!o.init || !o.valid)
            die_misused("--eval-only needs --init and --valid");
        if (!o.data.n)
            o.data = (struct strv){&o.valid, 1};
        o.out = NULL;
    } else {
        if (!o.data.n)
            die_misused("--data is missing: which set to train on?");
        if (!o.out)
            die_misused("-o is missing: where shall the run be kept?");
        if (!o.model == !o.init)
            die_misused("give one of --model (new weights) and --init (weights to start from)");
    }
    return run_train(&o);
}
