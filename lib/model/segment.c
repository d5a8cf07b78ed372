/* segment.c -- the table of segments: what a schedule can name, and what runs then. */
#include "model/model_priv.h"

void (*const segment_run[SEGMENTS][PASSES])(struct task_context *t) = {
    /*                forward           data gradient    weight gradient */
    [SEG_EMBED] = {embed_forward, NULL, embed_wgrad},
    [SEG_RECV] = {recv_forward, recv_dgrad, NULL},
    [SEG_ATTN] = {attn_forward, attn_dgrad, attn_wgrad},
    [SEG_LATENT] = {latent_forward, latent_dgrad, latent_wgrad},
    [SEG_ROUTE] = {route_forward, route_dgrad, route_wgrad},
    [SEG_DENSE] = {dense_forward, dense_dgrad, dense_wgrad},
    [SEG_DISPATCH] = {dispatch_forward, dispatch_dgrad, NULL},
    [SEG_EXPERTS] = {experts_forward, experts_dgrad, experts_wgrad},
    [SEG_COMBINE] = {combine_forward, combine_dgrad, NULL},
    [SEG_HEAD] = {head_forward, head_dgrad,
                  NULL}, /* its weight gradient is taken by chunk in dgrad */
    [SEG_JOIN] = {join_forward, join_dgrad, NULL}, /* its weight gradients too */
    [SEG_SCORE] = {score_forward, score_dgrad, NULL},
    [SEG_SEND] = {send_forward, send_dgrad, NULL},
};

const char *const segment_name[SEGMENTS] = {
    "embed",   "recv",    "attention", "latent", "route", "dense", "dispatch",
    "experts", "combine", "head",      "join",   "score", "send",
};

struct layer_segments layer_segments(const struct model *m, int64_t layer)
{
    const struct weights *w = &m->at[layer];
    struct layer_segments s = {{w->w[P_KV] ? SEG_LATENT : SEG_ATTN}, 1};
    if (w->w[P_ROUTER])
        s.list[s.n++] = SEG_ROUTE;
    if (w->w[P_DENSE_UP])
        s.list[s.n++] = SEG_DENSE;
    static const enum segment experts[] = {SEG_DISPATCH, SEG_EXPERTS, SEG_COMBINE};
    for (int64_t i = 0; w->w[P_ROUTER] && i < ARRAY_LEN(experts); i++)
        s.list[s.n++] = experts[i];
    return s;
}
