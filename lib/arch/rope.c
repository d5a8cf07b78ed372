/* rope.c -- rotary frequencies: theta^(-2i/C), and what scalings make of them for long sequences. */
#include "arch/arch.h"

#include <math.h>
#include <string.h>

struct rope_type {
    const char *name;
    double (*frequency)(const struct config *c, double f);
};

/* Llama 3: waves longer than original / low_factor are stretched, those shorter than original /
 * high_factor are left, and between the two it goes from one to the other. */
static double llama3(const struct config *c, double f)
{
    const struct rope_scaling *r = &c->rope;
    double waves = r->original * f / (2 * acos(-1)); /* in the original length */
    double kept = (waves - r->low_factor) / (r->high_factor - r->low_factor);
    kept = kept < 0 ? 0 : kept > 1 ? 1 : kept;
    return (1 - kept) * f / r->factor + kept * f;
}

static double linear(const struct config *c, double f)
{
    return f / c->rope.factor;
}

static const struct rope_type types[] = {
    {"default", NULL},
    {"linear", linear},
    {"llama3", llama3},
};

/* What each type has beside its name. */
static const struct {
    const char *type, *key;
    size_t at;
} fields[] = {
    {"linear", "factor", offsetof(struct rope_scaling, factor)},
    {"llama3", "factor", offsetof(struct rope_scaling, factor)},
    {"llama3", "original_max_position_embeddings", offsetof(struct rope_scaling, original)},
    {"llama3", "low_freq_factor", offsetof(struct rope_scaling, low_factor)},
    {"llama3", "high_freq_factor", offsetof(struct rope_scaling, high_factor)},
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

void rope_read(struct rope_scaling *r, struct json object, const char *key, const char *who)
{
    r->type = type_of(object, key, who);
    for (int64_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct json v;
        double *x = (double *)((char *)r + fields[i].at);
        if (strcmp(fields[i].type, r->type->name))
            continue;
        if (!json_get(object, fields[i].key, &v) || json_real(v, x) || !(*x > 0))
            die_misused("%s: \"%s\" of \"%s\" is not a number above 0", who, fields[i].key, key);
    }
    if (r->high_factor && r->high_factor <= r->low_factor)
        die_misused("%s: \"high_freq_factor\" is not above \"low_freq_factor\"", who);
}

void rope_frequencies(const struct config *c, double *freq)
{
    for (int64_t i = 0; i < c->c / 2; i++) {
        double f = pow(c->theta, -2.0 * (double)i / (double)c->c);
        freq[i] = c->rope.type && c->rope.type->frequency ? c->rope.type->frequency(c, f) : f;
    }
}
