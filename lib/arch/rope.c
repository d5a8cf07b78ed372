/* rope.c -- rotary frequencies: theta^(-2i/C), and what scalings make of them for long sequences,
 * and of the length of queries and keys. */
#include "arch/arch.h"

#include <math.h>
#include <string.h>

struct rope_type {
    const char *name;
    double (*frequency)(const struct config *c, double f /* of pair i */, int64_t i);
};

/* Llama 3: waves longer than original / low_factor are stretched, those shorter than original /
 * high_factor are left, and between the two it goes from one to the other. */
static double llama3(const struct config *c, double f, int64_t i)
{
    const struct rope_scaling *r = &c->rope;
    double waves = r->original * f / (2 * acos(-1)); /* in the original length */
    double kept = (waves - r->low_factor) / (r->high_factor - r->low_factor);
    kept = kept < 0 ? 0 : kept > 1 ? 1 : kept;
    return (1 - kept) * f / r->factor + kept * f;
}

static double linear(const struct config *c, double f, int64_t i)
{
    return f / c->rope.factor;
}

/* YaRN (Peng et al. 2023): pairs that turn less than `slow` times in the original length are
 * stretched, those that turn more than `fast` times are left, and between the two, counted in
 * pairs, is a ramp. */
static double yarn(const struct config *c, double f, int64_t i)
{
    const struct rope_scaling *r = &c->rope;
    double per_wave = (double)c->c_turn / (2 * log(c->theta)), pi2 = 2 * acos(-1);
    double low = fmax(floor(per_wave * log(r->original / (r->fast * pi2))), 0);
    double high = fmin(ceil(per_wave * log(r->original / (r->slow * pi2))), (double)c->c_turn - 1);
    double stretched = ((double)i - low) / (high == low ? 0.001 : high - low);
    stretched = stretched < 0 ? 0 : stretched > 1 ? 1 : stretched;
    return stretched * f / r->factor + (1 - stretched) * f;
}

static const struct rope_type types[] = {
    {"default", NULL},
    {"linear", linear},
    {"llama3", llama3},
    {"yarn", yarn},
};

/* What each type has beside its name, and what it is when absent; 0: it may not be. */
static const struct {
    const char *type, *key;
    size_t at;
    double otherwise;
} fields[] = {
    {"linear", "factor", offsetof(struct rope_scaling, factor)},
    {"llama3", "factor", offsetof(struct rope_scaling, factor)},
    {"llama3", "original_max_position_embeddings", offsetof(struct rope_scaling, original)},
    {"llama3", "low_freq_factor", offsetof(struct rope_scaling, low_factor)},
    {"llama3", "high_freq_factor", offsetof(struct rope_scaling, high_factor)},
    {"yarn", "factor", offsetof(struct rope_scaling, factor)},
    {"yarn", "original_max_position_embeddings", offsetof(struct rope_scaling, original)},
    {"yarn", "beta_fast", offsetof(struct rope_scaling, fast), 32},
    {"yarn", "beta_slow", offsetof(struct rope_scaling, slow), 1},
    {"yarn", "attention_factor", offsetof(struct rope_scaling, attention), NAN},
    {"yarn", "mscale", offsetof(struct rope_scaling, mscale), NAN},
    {"yarn", "mscale_all_dim", offsetof(struct rope_scaling, mscale_all), NAN},
};

static const struct rope_type *type_of(struct json object, const char *key, const char *who)
{
    struct json v;
    size_t len;
    if (!json_get(object, "rope_type", &v) && !json_get(object, "type", &v))
        return &types[0];
    const char *name = json_string(v, &len);
    for (int64_t i = 0; name && i < ARRAY_LEN(types); i++)
        if (!strcmp(name, types[i].name))
            return &types[i];
    struct buf known = {0};
    for (int64_t i = 0; i < ARRAY_LEN(types); i++)
        buf_printf(&known, "%s%s", i ? ", " : "", types[i].name);
    die_misused("%s: \"%s\" asks for the type \"%s\"; known are: %s", who, key, name ? name : "?",
                known.data);
}

/* Ends of the ramp are whole numbers.  Latent attention has two parts of a head, of which one
 * turns; where only one of mscale and mscale_all_dim is given, DeepSeek's code and transformers
 * disagree. */
static void yarn_check(const struct config *c, struct json object, const char *key, const char *who)
{
    const struct rope_scaling *r = &c->rope;
    struct json v;
    int whole;
    if (json_get(object, "truncate", &v) && json_type(v) != JSON_NULL &&
        (json_bool(v, &whole) || !whole))
        die_misused("%s: \"truncate\" of \"%s\" is not implemented", who, key);
    if (!c->kv_rank && !(isnan(r->mscale) && isnan(r->mscale_all)))
        die_misused("%s: \"%s\" of \"%s\" is not implemented", who,
                    isnan(r->mscale) ? "mscale_all_dim" : "mscale", key);
    if (c->kv_rank && (isnan(r->mscale) != isnan(r->mscale_all) || !isnan(r->attention)))
        die_misused("%s: \"%s\" does without \"attention_factor\", with both \"mscale\" and "
                    "\"mscale_all_dim\" or none; all else is not implemented",
                    who, key);
}

void rope_read(struct config *c, struct json object, const char *key, const char *who)
{
    struct rope_scaling *r = &c->rope;
    struct json_iter member;
    for (json_iter_init(&member, object); json_iter_next(&member);)
        if (json_type(member.value) == JSON_OBJECT)
            die_misused("%s: \"%s\" has its own \"%s\"; one for all layers is implemented", who,
                        key, member.key);
    r->type = type_of(object, key, who);
    for (int64_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct json v;
        double *x = (double *)((char *)r + fields[i].at);
        if (strcmp(fields[i].type, r->type->name))
            continue;
        int given = json_get(object, fields[i].key, &v);
        if (fields[i].otherwise != 0 && (!given || json_type(v) == JSON_NULL))
            *x = fields[i].otherwise;
        else if (!given || json_real(v, x) || !(*x > 0))
            die_misused("%s: \"%s\" of \"%s\" is not a number above 0", who, fields[i].key, key);
    }
    if (r->type->frequency == yarn)
        yarn_check(c, object, key, who);
    else if (c->kv_rank && r->type->frequency)
        die_misused("%s: \"%s\" of the type \"%s\" is not implemented for latent attention", who,
                    key, r->type->name);
    if (r->fast && r->fast <= r->slow)
        die_misused("%s: \"beta_fast\" is not above \"beta_slow\"", who);
    if (r->high_factor && r->high_factor <= r->low_factor)
        die_misused("%s: \"high_freq_factor\" is not above \"low_freq_factor\"", who);
}

/* YaRN: queries and keys grow with the length, here of the weight `mscale`. */
static double yarn_size(const struct rope_scaling *r, double mscale)
{
    return 0.1 * mscale * log(fmax(r->factor, 1)) + 1;
}

static int is_yarn(const struct config *c)
{
    return c->rope.type && c->rope.type->frequency == yarn;
}

double rope_magnitude(const struct config *c)
{
    const struct rope_scaling *r = &c->rope;
    if (!is_yarn(c))
        return 1;
    if (c->kv_rank)
        return isnan(r->mscale_all) ? 1 : yarn_size(r, r->mscale_all);
    return isnan(r->attention) ? yarn_size(r, 1) : r->attention;
}

double rope_turned(const struct config *c)
{
    const struct rope_scaling *r = &c->rope;
    if (!is_yarn(c) || !c->kv_rank)
        return 1;
    return isnan(r->mscale) ? yarn_size(r, 1)
                            : yarn_size(r, r->mscale) / yarn_size(r, r->mscale_all);
}

void rope_frequencies(const struct config *c, double *freq)
{
    for (int64_t i = 0; i < c->c_turn / 2; i++) {
        double f = pow(c->theta, -2.0 * (double)i / (double)c->c_turn);
        freq[i] = c->rope.type && c->rope.type->frequency ? c->rope.type->frequency(c, f, i) : f;
    }
}
