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
    s->b = step_string(r, v, "content");
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

    s->a = step_char(r, v, "content");
    s->start = step_count(r, v, "start");
    s->stop = step_count(r, v, "stop");
}
static void read_decode_metaspace(struct step_reader *r, struct json v)
{
    struct decode_step *s = decode_new(r, DECODE_METASPACE);

    s->a = step_char(r, v, "replacement");
    s->prefix = step_scheme(r, v);
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
static void surround(struct step_reader *r, int after, int64_t id)
{
    int64_t *place = after ? &r->t->eos : &r->t->bos;

    if (*place >= 0)
        die_misused("%s: \"post_processor\" puts several tokens %s a text, which is not supported",
                    r->who, after ? "behind" : "before");
    if (id < 0 || id >= r->t->size || !r->t->token[id].data)
        die_misused("%s: \"post_processor\" has the id %lld, which no token has", r->who,
                    (long long)id);
    *place = id;
}
/* The one id that the template's "special_tokens" has under this name. */
static int64_t special_id(struct step_reader *r, struct json template, struct json piece)
{
    struct buf name = step_string(r, piece, "id");
    struct json list, x;
    struct json_iter i;
    int64_t id;

    if (!json_get(template, "special_tokens", &list) || !json_get(list, name.data, &x) ||
        !json_get(x, "ids", &x) || json_type(x) != JSON_ARRAY || json_count(x) != 1)
        die_misused("%s: a TemplateProcessing has no single id of \"%s\"", r->who, name.data);
    json_iter_init(&i, x);
    json_iter_next(&i);
    if (json_int(i.value, &id))
        id = -1;
    buf_release(&name);
    return id;
}
static void read_template(struct step_reader *r, struct json v)
{
    struct json single, x;
    struct json_iter i;
    int texts = 0;

    if (!json_get(v, "single", &single) || json_type(single) != JSON_ARRAY)
        die_misused("%s: a TemplateProcessing has no \"single\"", r->who);
    for (json_iter_init(&i, single); json_iter_next(&i);) {
        if (json_get(i.value, "Sequence", &x))
            texts++;
        else if (json_get(i.value, "SpecialToken", &x))
            surround(r, texts, special_id(r, v, x));
    }
    if (texts != 1)
        die_misused("%s: a TemplateProcessing has the text %d times", r->who, texts);
}
/* "cls": [name, id] before and "sep": [name, id] after. */
static void read_cls_sep(struct step_reader *r, struct json v)
{
    static const char *const keys[] = {"cls", "sep"};
    struct json pair;
    struct json_iter i;

    for (int k = 0; k < 2; k++) {
        int64_t id = -1;
        if (json_get(v, keys[k], &pair) && json_type(pair) == JSON_ARRAY)
            for (json_iter_init(&i, pair); json_iter_next(&i);)
                json_int(i.value, &id);
        surround(r, k, id);
    }
}
const struct step_kind step_post_processors[] = {
    {"ByteLevel", read_nothing},
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
    {NULL, NULL},
};
