/* moe-sample -- a checkpoint and rows with prompts in, rows with responses out.
 *
 * Prompts wait in a queue of jobs, one a sample, and enter the decoder's slots as these fall free;
 * rows leave in the order in which they came.  Every draw is keyed by (seed, prompt, sample,
 * position), so a response does not depend on which others are being made beside it. */
#include "model/model.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *model, *output, *device = "cpu", *type = "f32", *template;
static const char *tag_wanted, *control = "escape";
static int64_t samples = 1, max_tokens = 128, seed, slots = 64, context, threads;
static double temperature = 1, top_p = 1;

static const struct opt options[] = {
    OPT_STR('m', "model", &model, "ckpt", "checkpoint or run to sample from (required)"),
    OPT_STR('o', "output", &output, "file", "write rows here instead of standard output"),
    OPT_INT('n', "samples", &samples, "n", "responses a prompt"),
    OPT_INT('k', "max-tokens", &max_tokens, "n", "longest response"),
    OPT_REAL(0, "temperature", &temperature, "x", "0 takes the likeliest token"),
    OPT_REAL(0, "top-p", &top_p, "x", "draw from the likeliest tokens that reach this probability"),
    OPT_SEED(&seed, "of the draws"),
    OPT_INT('b', "batch", &slots, "n", "sequences decoded side by side"),
    OPT_INT('c', "context", &context, "n",
            "most tokens of a prompt and its response; 0: the model's positions"),
    OPT_STR(0, "tag", &tag_wanted, "top|low|none|text",
            "put this tag before the answer (default top, where the model was trained with tags)"),
    OPT_STR(0, "template", &template, "name",
            "chat template instead of the checkpoint's; auto: as its tokenizer says"),
    OPT_CHOICE(0, "control", &control, "error|escape|allow", "control tokens that a prompt spells"),
    OPT_CHOICE(0, "device", &device, "cpu|cuda", "where to compute"),
    OPT_CHOICE(0, "type", &type, "f32|bf16", "arithmetic; bf16: cuda"),
    OPT_INT('j', "threads", &threads, "n", "threads; 0: all cores"),
    ROW_OPTIONS,
    OPT_END};

struct job { /* one response */
    char *line, *id, *group;
    int64_t k, slot;
    struct ids prompt;
    struct ids response;
    enum { WAITING, RUNNING, STOPPED, CUT } state;
};

struct queue {
    struct job *job; /* (n): job[0] is the oldest whose row has not been written */
    int64_t n, cap;
};

static void job_add(struct queue *q, const struct row *r, const char *group,
                    const struct ids *prompt, int64_t k)
{
    if (q->n == q->cap) {
        q->cap = MAX(2 * q->cap, 64);
        q->job = xrealloc(q->job, q->cap * sizeof *q->job);
    }
    struct job *j = &q->job[q->n++];
    memset(j, 0, sizeof *j);
    j->line = xstrndup(r->line, r->len);
    j->id = r->id ? xstrdup(r->id) : xasprintf("%s:%lld", r->file, (long long)r->number);
    j->group = xstrdup(group);
    j->k = k;
    j->slot = -1;
    j->prompt.id = xmemdup(prompt->id, prompt->n * sizeof(int32_t));
    j->prompt.n = prompt->n;
}

static void write_row(struct part *o, struct tok *tok, const struct job *j)
{
    struct row_edit e = {0};
    struct buf text = {0};
    char *id = xasprintf("%s/%lld", j->id, (long long)j->k);
    tok_decode(tok, j->response.id, j->response.n, 1, &text);
    row_edit_begin(&e, j->line, strlen(j->line));
    row_answer(&e, id, j->group, j->k, &text, j->state == STOPPED ? "stop" : "length");
    buf_char(&e.line, '\n');
    part_write(o, e.line.data, e.line.len);
    row_edit_release(&e), buf_release(&text);
    free(id);
}

static void job_release(struct job *j)
{
    free(j->line), free(j->id), free(j->group), free(j->prompt.id);
    ids_release(&j->response);
}

/* One forward pass over whatever can run, and one token for each sequence in it. */
static void advance(struct decoder *d, struct queue *q, int64_t stop)
{
    for (int64_t i = 0; i < q->n; i++)
        if (q->job[i].state == WAITING) {
            q->job[i].slot = decoder_start(d, q->job[i].prompt.id, q->job[i].prompt.n);
            if (q->job[i].slot < 0)
                break;
            q->job[i].state = RUNNING;
        }
    for (int64_t i = 0; i < q->n; i++) {
        const struct job *j = &q->job[i];
        if (j->state == RUNNING)
            d->slot[j->slot].u = rng_uniform(rng_key(seed, j->group), j->k, j->response.n);
    }
    decoder_step(d);
    for (int64_t i = 0; i < q->n; i++) {
        struct job *j = &q->job[i];
        if (j->state != RUNNING || !d->slot[j->slot].drawn)
            continue;
        int32_t id = d->slot[j->slot].token;
        if (id == stop) {
            j->state = STOPPED;
        } else {
            ids_add(&j->response, id);
            if (j->response.n == max_tokens || j->prompt.n + j->response.n == d->capacity)
                j->state = CUT;
        }
        if (j->state == RUNNING)
            decoder_push(d, j->slot, id);
        else
            decoder_stop(d, j->slot);
    }
}

/* Writes the finished jobs at the head of the queue. */
static int64_t drain(struct queue *q, struct part *o, struct tok *tok)
{
    int64_t n = 0;
    while (n < q->n && q->job[n].state >= STOPPED) {
        write_row(o, tok, &q->job[n]);
        job_release(&q->job[n]);
        n++;
    }
    q->n -= n;
    if (n)
        memmove(q->job, q->job + n, q->n * sizeof *q->job);
    return n;
}

/* The tag before each answer (CA): which one asks for a high reward is in the checkpoint. */
static char *tag_of(const char *dir)
{
    if (tag_wanted && !strcmp(tag_wanted, "none"))
        return NULL;
    if (tag_wanted && strcmp(tag_wanted, "top") && strcmp(tag_wanted, "low"))
        return xstrdup(tag_wanted);
    char *path = path_join(dir, "tags.json");
    char *tag = tags_pick(path, tag_wanted && !strcmp(tag_wanted, "low") ? 0.05 : 0.95);
    free(path);
    if (tag_wanted && !tag)
        die_misused("--tag %s: %s was not trained with tags", tag_wanted, dir);
    return tag;
}

/* Pipes, named or not, cannot be looked at twice. */
static int is_regular(const char *path)
{
    struct stat st;
    return strcmp(path, "-") && !stat(path, &st) && S_ISREG(st.st_mode);
}

/* What decides the rows: the command line, the weights, the prompts.  NULL when the prompts are not
 * all in files. */
static char *key_of(const char *dir, char *const *file, int64_t n)
{
    struct buf key = {0};
    char *command = opt_provenance(options), *manifest = path_join(dir, "manifest.json"), hex[65];
    int pipe = n == 0;
    for (int64_t i = 0; i < n; i++)
        pipe |= !is_regular(file[i]);
    buf_str(&key, command);
    for (int64_t i = -1; i < n && !pipe; i++) {
        const char *path = i < 0 ? manifest : file[i];
        if (hash_sha256_file(hex, path))
            die("%s:", path);
        buf_printf(&key, "\n%s", hex);
    }
    if (pipe)
        buf_release(&key), key.data = NULL;
    free(command), free(manifest);
    return key.data;
}

static const struct chat *chat_of(struct ckpt *k, const struct tok *tok)
{
    struct json v;
    size_t len;
    if (!template && json_get(ckpt_state(k), "template", &v) && json_string(v, &len))
        return chat_find(json_string(v, &len));
    if (template && !strcmp(template, "auto"))
        return chat_recognise(tok);
    return chat_find(template ? template : "plain");
}

struct input { /* the rows, and how far the current one is */
    struct row_reader rows;
    struct ids prompt; /* (n) of the current row, rendered */
    struct buf group;
    int64_t next; /* its sample that is to be queued */
    int64_t kept; /* rows */
    int more;
};

/* The current row's prompt as tokens.  NULL, or why there are none. */
static const char *render(struct input *in, const struct model *m, const struct chat *chat,
                          struct tok *tok, const char *tag)
{
    struct row asked = in->rows.row; /* without what answered it before */
    asked.response = asked.chosen = asked.rejected = asked.text = NULL;
    asked.tag = tag;
    asked.control = !strcmp(control, "allow");
    if (!asked.has_prompt)
        return "no prompt";
    if (!strcmp(control, "error") && row_spells_control(&asked, tok))
        return "the prompt spells a control token";
    if (!asked.control && row_spells_tag(&asked))
        return "the prompt spells a tag in words, which cannot be escaped";
    in->prompt.n = 0;
    const char *why = chat_render_prompt(chat, tok, &asked, tag, &in->prompt);
    if (why || in->prompt.n < context)
        return why;
    return context < m->cfg.positions ? "the prompt is longer than --context"
                                      : "the prompt is longer than the model's positions";
}

/* Goes on to the next row that can be answered.  0: there is none. */
static int advance_row(struct input *in, const struct model *m, const struct chat *chat,
                       struct tok *tok, const char *tag)
{
    while ((in->more = row_next(&in->rows))) {
        const char *why = render(in, m, chat, tok, tag);
        if (!why) {
            buf_reset(&in->group);
            row_group(&in->rows.row, &in->group);
            in->next = 0;
            in->kept++;
            return 1;
        }
        row_bad(&in->rows, why);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int first = opt_parse(argc, argv, options, "moe-sample [options] -m ckpt [rows ...]",
                          "Writes rows with responses to the prompts of the given rows.");
    if (!model)
        die_misused("-m is missing: which checkpoint to sample from?");
    if (samples < 1 || max_tokens < 1 || slots < 1)
        die_misused("--samples, --max-tokens and --batch must be 1 or more");
    if (temperature < 0 || !(top_p > 0 && top_p <= 1))
        die_misused("--temperature is 0 or more, --top-p above 0 and at most 1");
    struct ckpt *k = ckpt_open(model);
    struct tok *tok = tok_open(ckpt_path(k));
    const struct chat *chat = chat_of(k, tok);
    struct world *world = world_self();
    struct lane lane;
    struct model m;
    struct decoder d;
    model_open(&m, &lane, world, k, device, type, threads);
    if (m.cfg.reward)
        die_misused("%s is a reward model: it scores and cannot answer", model);
    context = context ? MIN(context, m.cfg.positions) : m.cfg.positions;
    decoder_init(&d, &m, slots, context, temperature, top_p);
    int64_t done;
    char *tag = tag_of(ckpt_path(k)), *key = key_of(ckpt_path(k), argv + first, argc - first);
    struct part *o = part_open(output, key, &done);
    if (done)
        say("%s.part: going on after %lld rows", output, (long long)done);
    ckpt_close(k);

    struct input in = {.next = samples, .more = 1};
    struct queue q = {0};
    struct progress progress;
    row_reader_init(&in.rows, argv + first, argc - first);
    progress_start(&progress, "sample", "row", 0);
    do {
        while (q.n < 2 * slots &&
               (in.next < samples || (in.more && advance_row(&in, &m, chat, tok, tag)))) {
            if ((in.kept - 1) * samples + in.next >= done)
                job_add(&q, &in.rows.row, in.group.data, &in.prompt, in.next);
            in.next++;
        }
        if (q.n)
            advance(&d, &q, chat_stop(chat, tok));
        progress_add(&progress, drain(&q, o, tok));
    } while (q.n || in.more);
    progress_end(&progress);
    row_reader_close(&in.rows, in.kept);
    part_close(o);
    decoder_release(&d);
    model_release(&m);
    lane_release(&lane);
    world_free(world);
    tok_free(tok);
    ids_release(&in.prompt), buf_release(&in.group), free(q.job), free(tag), free(key);
    return EXIT_DONE;
}
