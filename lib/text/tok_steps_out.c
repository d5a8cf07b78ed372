/* tok_steps_out.c -- the steps on the way out: decoder, and the post_processor's bos and eos. */

#include "text/tok_steps.h"

/* ---- decoder ---- */

static struct decode_step *decode_new(struct step_reader *r, int type)
{
    struct decode_step *s = STEP_NEW(r, decode);

    s->type = type;
    return s;
}
static void read_decode_bytes(struct step_reader *r, struct json v)
{
    decode_new(r, DECODE_BYTE_LEVEL);
}
static void read_decode_replace(struct step_reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_REPLACE);

    s->a = step_literal(r, v);
    s->b = step_string(v, "content");
}
static void read_decode_fallback(struct step_reader *r, struct json v)
{
    decode_new(r, DECODE_BYTE_FALLBACK);
}
static void read_decode_fuse(struct step_reader *r, struct json v)
{
    decode_new(r, DECODE_FUSE);
}
static void read_decode_strip(struct step_reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_STRIP);

    s->a = step_string(v, "content");
    s->start = step_int(r, v, "start");
    s->stop = step_int(r, v, "stop");
    if (!s->a.len)
        die_misused("%s: a Strip has no \"content\"", r->who);
}
static void read_decode_metaspace(struct step_reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_METASPACE);

    s->a = step_string(v, "replacement");
    s->prefix = step_scheme(r, v);
    if (!s->a.len)
        die_misused("%s: a Metaspace has no \"replacement\"", r->who);
}
const struct step_kind step_decoders[] = {
    {"ByteLevel", read_decode_bytes},
    {"Replace", read_decode_replace},
    {"ByteFallback", read_decode_fallback},
    {"Fuse", read_decode_fuse},
    {"Strip", read_decode_strip},
    {"Metaspace", read_decode_metaspace},
    {NULL, NULL},
};

/* ---- post_processor: only what it puts around a text ---- */

static void read_nothing(struct step_reader *r, struct json v)
{
}
static void read_template(struct step_reader *r, struct json v)
{
    struct json single, x;
    struct json_iter i;
    int after = 0;

    if (!json_get(v, "single", &single))
        die_misused("%s: a TemplateProcessing has no \"single\"", r->who);
    for (json_iter_init(&i, single); json_iter_next(&i);) {
        if (json_get(i.value, "Sequence", &x))
            after = 1;
        if (!json_get(i.value, "SpecialToken", &x))
            continue;
        struct buf name = step_string(x, "id");
        *(after ? &r->t->eos : &r->t->bos) = tok_id(r->t, name.data);
        buf_release(&name);
    }
}
/* "cls": [name, id] before and "sep": [name, id] after. */
static void read_cls_sep(struct step_reader *r, struct json v)
{
    static const char *const keys[] = {"cls", "sep"};
    int64_t *const ids[] = {&r->t->bos, &r->t->eos};
    struct json pair;
    struct json_iter i;

    for (int k = 0; k < 2; k++)
        if (json_get(v, keys[k], &pair))
            for (json_iter_init(&i, pair); json_iter_next(&i);)
                json_int(i.value, ids[k]);
}
const struct step_kind step_post_processors[] = {
    {"ByteLevel", read_nothing},
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
    {NULL, NULL},
};
