/* op_list.h -- the table of contents of everything computed.
 *
 * One line here gives the member of struct op, the prototypes of every variant (rmsnorm_cpu_f32,
 * rmsnorm_cpu_f64, later rmsnorm_cuda_bf16, ...) and the enumeration that tests/op.c must cover.
 *
 * Types.  R marks an activation or weight of the variant's own type (f32, f64, bf16); S marks a
 * statistic, a gradient of a weight, an optimizer value: f32, but f64 in the f64 build.  Both are
 * void * here, since callers are compiled once.  I32 is int32_t.  Sizes are int64_t and never come
 * from device memory; what changes from step to step is read through a pointer to a device scalar.
 *
 * Letters.  T tokens, D hidden size, V vocabulary rows held here, H query heads, G key/value heads,
 * C head size, E experts held here, F expert width, K chosen experts, A accounting groups,
 * M expert rows (capacity of a row map), N elements.
 *
 * "=" outputs are written, "+=" outputs accumulate.  A weight gradient dw is a mat that says its
 * type (S or R) and is written, or with add accumulated.  Outputs come first. */

/* x[t] = w[token[t] - v0], or 0 where the token's row is not in [v0, v0 + V). */
OP(embed, (struct lane *l, void *x /* R= (T,D) */, const int32_t *token /* (T) */,
           const void *w /* R (V,D) */, int64_t t, int64_t d, int64_t v, int64_t v0))
OP(embed_wgrad, (struct lane *l, struct mat dw /* (V,D) */, const int32_t *token,
                 const void *dx /* R (T,D) */, int64_t t, int64_t v0, int add))

/* y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019). */
OP(rmsnorm, (struct lane *l, void *y /* R= (T,D) */, void *rstd /* S= (T) */,
             const void *x /* R (T,D) */, const void *w /* R (D) */, int64_t t, int64_t d,
             double eps))
/* The same of x = a + b, which is written too; x may be a or b. */
OP(add_rmsnorm, (struct lane *l, void *y, void *rstd, void *x /* R= (T,D) */, const void *a,
                 const void *b, const void *w, int64_t t, int64_t d, double eps))
/* dx = dres + d(rmsnorm)/dx . dy.  dres is the gradient that arrives along the residual path.  Both
 * gradients in one op, unlike elsewhere: it is all memory traffic, a third of which would be done
 * twice, and dy is needed no longer. */
OP(rmsnorm_grad, (struct lane *l, void *dx /* R= (T,D) */, struct mat dw /* (1,D) */,
                  const void *dres /* R (T,D) or NULL */, const void *dy /* R (T,D) */,
                  const void *x, const void *w, const void *rstd, int64_t t, int add))

/* c = op(a) op(b), or c += where add; ta, tb transpose.  Where tb, b is a weight: a kernel may read
 * it before ops queued earlier have finished.  Row-major; c may be R or S (its own type
 * says), a and b are R. */
OP(gemm, (struct lane *l, struct mat c, struct mat a, struct mat b, int ta, int tb, int add))

/* y[t] += b, in place; dw = sum over t of dy[t]. */
OP(add_bias, (struct lane *l, void *y /* R (T,N) */, const void *b /* R (N) */, int64_t t,
              int64_t n))
OP(bias_wgrad, (struct lane *l, struct mat dw /* (1,N) */, const void *dy /* R (T,N) */, int64_t t,
                int add))

/* Queries and keys made ready for attention: QK-norm (Henry et al. 2020) where n->w, z = x * rstd * w
 * with rstd as in rmsnorm, else z = x; then rotary position embedding (Su et al. 2021), Hugging Face
 * half layout: element i of a head pairs with i + C/2, angle = position * freq[i].  y and x have the
 * strides of n; y may be x.  square is NULL or, where heads of whole are cut over ranks, their sums
 * of squares over all ranks. */
OP(rope, (struct lane *l, void *y /* R= (T,H+G,C) */, void *rstd /* S= (T,norms) */, const void *x,
          const void *square /* S (T,2) or NULL */, const int32_t *position,
          const void *freq /* S (C/2) */, int64_t t, const struct qk *n))
/* dx from dy, which may be dx; without norm that is turning back, and x, rstd and part are not looked
 * at.  dot is to this what square is to rope: sums of <dy, y>, which turning leaves as they are.
 * part[p] is the weight gradient of tokens p, p + QK_PARTS, ... */
OP(rope_dgrad, (struct lane *l, void *dx /* R= (T,H+G,C) */, void *part /* S= (QK_PARTS,weights) */,
                const void *dy, const void *x, const void *rstd, const void *dot /* S (T,2) or NULL */,
                const int32_t *position, const void *freq, int64_t t, const struct qk *n))
OP(rope_wgrad, (struct lane *l, struct mat dw /* (1,weights) */, const void *part, int add))
/* dot[t] = <a[t], b[t]> over the heads of queries, over those of keys. */
OP(qk_dots, (struct lane *l, void *dot /* S= (T,2) */, const void *a /* R (T,H+G,C) */, const void *b,
             int64_t t, const struct qk *n))

/* Causal softmax attention over spans.  Span i has queries q_at[i] .. q_at[i+1] and keys k_beg[i] ..
 * k_end[i]; its last query sees all of its keys, the one before it all but one, and so on
 * (bottom-right causal); a query that sees no key gives 0.  A document is a span; so is a chunk of
 * one under context parallelism, and a sequence with its cache when decoding.  Spans past the last
 * real one are empty.  Query head h reads key/value head h / (H/G). */
OP(attn, (struct lane *l, void *o /* R= (Tq,H,Cv) */, void *lse /* S= (Tq,H) */,
          const void *q /* R (Tq,H,C), rows ldq apart */, const void *k /* R (Tk,G,C), ldk */,
          const void *v /* R (Tk,G,Cv), ldk; Cv is at most C */, struct spans s, int64_t h, int64_t g,
          int64_t c, int64_t cv, int64_t ldq, int64_t ldk, double scale))
/* dq, dk, dv have the strides of q, k, v.  dk and dv of all Tk rows are written.  Tk is at least the
 * number of queries. */
OP(attn_dgrad, (struct lane *l, void *dq, void *dk, void *dv, const void *d_o /* R (Tq,H,Cv) */,
                const void *q, const void *k, const void *v, const void *o, const void *lse,
                struct spans s, int64_t tk, int64_t h, int64_t g, int64_t c, int64_t cv,
                int64_t ldq, int64_t ldk, double scale))

/* Latent attention (DeepSeek-V2, 2024).  Of each of H heads of C the last N elements turn by their
 * position in place, element 2i with 2i + 1, angle = position * freq[i], and are multiplied by `size`;
 * back: turned the other way, which is the gradient. */
OP(turn_pairs, (struct lane *l, void *y /* R (T,H,C) */, const int32_t *position,
                const void *freq /* S (N/2) */, int64_t t, int64_t h, int64_t c, int64_t n,
                double size, int back))
/* Keys and values as attn takes them, side by side, from what is each head's own and a key that all
 * share: k = [b's first C - N, shared], v = b's last Cv. */
OP(join_heads, (struct lane *l, void *kv /* R= (T,HC+HCv) */, const void *b /* R (T,H,C-N+Cv) */,
                const void *shared /* R (T,N), rows ld apart */, int64_t t, int64_t h, int64_t c,
                int64_t cv, int64_t n, int64_t ld))
/* The way back: db, and dshared = the sum over heads. */
OP(part_heads, (struct lane *l, void *db /* R= (T,H,C-N+Cv) */, void *dshared /* R= (T,N), ld */,
                const void *dkv /* R (T,HC+HCv) */, int64_t t, int64_t h, int64_t c, int64_t cv,
                int64_t n, int64_t ld))

/* The router, as struct router has it.  prob = softmax(logits) over all E experts, or sigmoid(logits);
 * of the groups that may be chosen from, the K experts with the largest prob + bias are chosen, ties to
 * the lower expert (of groups: the lower group); gate = their prob, divided by their sum where norm,
 * times scale.  A token with group[t] < 0 is a pad: its index is -1, its gate 0.  lse = log sum exp, for
 * the z loss; a sigmoid has none, lse = 0.  count and psum add up, per accounting group, choices and
 * probabilities by expert; those of a sigmoid first divided by their sum over all experts. */
OP(route, (struct lane *l, int32_t *index /* = (T,K) */, void *gate /* S= (T,K) */,
           void *prob /* S= (T,E) */, void *lse /* S= (T) */, void *count /* S= (A,E) */,
           void *psum /* S= (A,E) */, const void *logits /* S (T,E) */,
           const int32_t *group /* (T) */, int64_t t, int64_t e, int64_t a,
           const struct router *r))
/* dlogits from dgate, the auxiliary loss and the z loss.  coef is a device pair { aux E / (K n),
 * 2 z / n } with n the live tokens of the global batch; for group A the loss is
 * aux E / (K n) sum_e count psum / m, m the group's tokens (Fedus et al. 2021, per group). */
OP(route_dgrad, (struct lane *l, void *dlogits /* S= (T,E) */, const void *dgate /* S (T,K) */,
                 const void *prob, const void *lse, const int32_t *index, const void *count,
                 const int32_t *group, const void *coef /* S (2) */, int64_t t, int64_t e,
                 int64_t a, const struct router *r))
/* The router's bias, of what experts were chosen for in a step: bias[e] += rate sign(mean load -
 * load[e]) where state[STEP_OK] (Wang et al. 2024). */
OP(balance, (struct lane * l, void *bias /* S+= (E) */, const void *load /* S (E) */,
             const void *state /* S (STEP_STATE) */, int64_t e, double rate))
/* loss[0] += sum over groups of E/K sum_e count psum / m, loss[1] += sum over live tokens of lse^2. */
OP(route_loss, (struct lane *l, void *loss /* S+= (2) */, const void *count, const void *psum,
                const void *lse, const int32_t *group, int64_t t, int64_t e, int64_t k, int64_t a))

/* Which choices the experts have room for.  Token t is of accounting group t / ceil(T / A), all of
 * which is here.  Of each group an expert takes ceil(n K / E factor - 1e-9) choices at most, n the
 * group's tokens that are no pads (index >= 0): those with the largest gates, equal ones in order of
 * tokens.  Gates are compared rounded (half up) to 13 significant bits: equal tokens whose sums were
 * taken in another order are still equal.  kept = index, but -1 for the others; dropped[0] += their
 * number. */
OP(drop, (struct lane *l, int32_t *kept /* = (T,K) */, void *dropped /* S+= (1) */,
          const int32_t *index /* (T,K) */, const void *gate /* S (T,K) >= 0 */, int64_t t,
          int64_t e, int64_t k, int64_t a, double factor))

/* The row map of the experts held here: which received row goes to which expert.  index holds, for
 * each of n rows, K expert numbers, of which first .. first + E are here and the others (-1, say)
 * are not.  Expert first + e owns rows at[e] .. at[e] + count[e] of M,
 * at[e] a multiple of ROW_ALIGN, in order of (row, choice); source[m] = row * K + choice, or -1 for a
 * row of padding; place[row * K + choice] = m or -1. */
OP(row_map, (struct lane *l, int32_t *at /* = (E+1) */, int32_t *count /* = (E) */,
             int32_t *source /* = (M) */, int32_t *place /* = (n,K) */, const int32_t *index,
             int64_t n, int64_t k, int64_t first, int64_t e, int64_t m))

/* Experts: SwiGLU (Shazeer 2020), up = rows [gate; up] of 2F, gate weight applied inside.
 * h[m] = up_e x[row];  a[m] = gate[row,choice] * silu(h[m, :F]) * h[m, F:].  Rows of padding are not
 * touched.  At most `live` rows are no padding: n K, say, which the host knows. */
OP(experts_up, (struct lane *l, void *h /* R= (M,2F) */, void *a /* R= (M,F) */,
                const void *x /* R (n,D) */, const void *up /* R (E,2F,D) */,
                const void *gate /* S (n,K) */, const int32_t *at, const int32_t *count,
                const int32_t *source, int64_t live, int64_t e, int64_t k, int64_t d, int64_t f))
/* y[m] = down_e a[m].  The weight may be read before ops queued earlier have finished, the row map before
 * the last of them has. */
OP(experts_down, (struct lane *l, void *y /* R= (M,D) */, const void *a,
                  const void *down /* R (E,D,F) */, const int32_t *at, const int32_t *count,
                  int64_t live, int64_t e, int64_t d, int64_t f))
/* da = down_e^T dout[row]; dgate[row,choice] = <da, silu(h) h>; dh from gate * da; a as above, again,
 * for the weight gradient.  dgate of choices that are not here is 0, and so are the rows of padding
 * of dh and a.  dh may be h. */
OP(experts_dh, (struct lane *l, void *dh /* R= (M,2F) */, void *a /* R= (M,F) */,
                void *dgate /* S= (n,K) */, const void *dout /* R (n,D) */, const void *down,
                const void *h, const void *gate, const int32_t *at, const int32_t *count,
                const int32_t *source, int64_t n, int64_t e, int64_t k, int64_t d, int64_t f))
OP(experts_dx, (struct lane *l, void *dx /* R= (M,D) */, const void *dh, const void *up,
                const int32_t *at, const int32_t *count, int64_t e, int64_t d, int64_t f))
/* Rows of padding must be numbers, whatever they are.  An expert without rows has a gradient of 0.
 * squares += the sum of squares of dw as it is stored, so that nobody need read it for that; NULL
 * where nobody asks, and where add. */
OP(experts_up_wgrad, (struct lane *l, struct mat dw /* (E 2F,D) */, const void *dh, const void *x,
                      const int32_t *at, const int32_t *count, const int32_t *source,
                      int64_t live, int64_t e, int64_t k, int add, void *squares /* S+= (1) */))
OP(experts_down_wgrad, (struct lane *l, struct mat dw /* (E D,F) */, const void *dout,
                        const void *a, const int32_t *at, const int32_t *count,
                        const int32_t *source, int64_t live, int64_t e, int64_t k, int add,
                        void *squares /* S+= (1) */))

/* The dense feed-forward network, SwiGLU again, between its products:
 * a[t] = sigmoid(z[t]) silu(h[t, :F]) h[t, F:], the first factor 1 where z is NULL. */
OP(swiglu, (struct lane *l, void *a /* R= (T,F) */, const void *h /* R (T,2F) */,
            const void *z /* S (T) or NULL */, int64_t t, int64_t f))
/* dh and, where there is z, dz from da; a as above, again, for the weight gradient. */
OP(swiglu_dgrad, (struct lane *l, void *dh /* R= (T,2F) */, void *a /* R= (T,F) */,
                  void *dz /* S= (T) or NULL */, const void *da /* R (T,F) */, const void *h,
                  const void *z, int64_t t, int64_t f))

/* Rows for each of R ranks in a buffer of `room` rows.  index holds, for each of n rows, K expert numbers;
 * rank r has the experts r / share el .. r / share el + el.  Row t is the i-th that has one of them:
 * row[r room + i] = t, place[t R + r] = r room + i, there[(r room + i) K + j] = index[t K + j]; -1 wherever
 * there is no such row.  Rows for which there is no room are left out. */
OP(pack_rows, (struct lane *l, int32_t *row /* = (R,room) */, int32_t *there /* = (R,room,K) */,
               int32_t *place /* = (N,R) */, const int32_t *index /* (N,K) */, int64_t n, int64_t k,
               int64_t ranks, int64_t share, int64_t el, int64_t room))

/* Moving rows; mats say their type, so these serve R and S alike.  gather_rows: y[i] = x[row[i]], 0
 * where row[i] < 0.  scatter_rows: y[row[i]] = x[i].  gather_sum: y[i] = res[i] + sum over j < K of
 * x[place[i * K + j]], entries < 0 left out; res has the rows of y side by side, or is NULL. */
OP(gather_rows, (struct lane *l, struct mat y, struct mat x, const int32_t *row))
OP(scatter_rows, (struct lane *l, struct mat y, struct mat x, const int32_t *row))
OP(gather_sum, (struct lane *l, struct mat y, const void *res, struct mat x, const int32_t *place,
                int64_t k))

/* The head, for one chunk of T tokens and the vocabulary rows [v0, v0 + V).  part = { max, sum of
 * exp(logit - max), logit of the label or 0 } over these rows; lse_join joins the parts of P ranks
 * into logp and lse; label < 0 means no loss here: logp 0. */
OP(lse_part, (struct lane *l, void *part /* S= (T,3) */, struct mat logits /* R or S (T,V) */,
              const int32_t *label, int64_t v0))
OP(lse_join, (struct lane *l, void *logp /* S= (T) */, void *lse /* S= (T) */,
              const void *part /* S (P,T,3) */, const int32_t *label, int64_t t, int64_t p))
/* dlogits = dlogp (onehot(label) - exp(logits - lse)).  logits may be dlogits themselves. */
OP(logits_dgrad, (struct lane *l, struct mat dlogits /* R= (T,V) */,
                  struct mat logits /* R or S (T,V) */, const void *lse,
                  const void *dlogp /* S (T) */, const int32_t *label, int64_t v0))
/* Weighted negative log likelihood: dlogp = -weight / denom; loss += sum of -weight logp. */
OP(nll_dgrad, (struct lane *l, void *dlogp /* S= (T) */, const void *weight /* S (T) */,
               const void *denom /* S (1) */, int64_t t))
OP(nll_loss, (struct lane *l, void *loss /* S+= (1) */, const void *weight, const void *logp,
              int64_t t))

/* Pairs of documents (Bradley & Terry 1952; DPO: Rafailov et al. 2023).  A span's score is
 * s = sum of weight * out over its tokens, less base.  Where chosen[i] is 1, spans i and i + 1 are a pair
 * with x = beta (s[i] - s[i + 1]) - margin[i] and loss -log sigmoid(x).  dout = dloss/dout / denom, 0 at
 * tokens of no pair.  loss[0] += the losses, loss[1] += pairs with s[i] > s[i + 1], a tie counting half. */
OP(pair_dgrad, (struct lane *l, void *dout /* S= (T) */, const void *out /* S (T) */,
                const void *weight /* S (T) */, const int32_t *q_at /* (spans+1) */,
                const int32_t *chosen /* (spans) */, const void *base /* S (spans) */,
                const void *margin /* S (spans) */, const void *denom /* S (1) */, int64_t t,
                int64_t spans, double beta))
OP(pair_loss, (struct lane *l, void *loss /* S+= (2) */, const void *out, const void *weight,
               const int32_t *q_at, const int32_t *chosen, const void *base, const void *margin,
               int64_t spans, double beta))

/* Draws a token from each row of logits: softmax of logits / temperature, cut to the likeliest tokens
 * whose probabilities first reach top_p (ties to the lower id).  The token drawn is the first whose
 * probability, added to those before it, reaches u[i] of them all: in order of id, or of probability
 * where top_p < 1.  Temperature 0 takes the largest logit.  Probabilities are added in f64. */
OP(draw, (struct lane *l, int32_t *token /* = (T) */, const void *logits /* S (T,V) */,
          const double *u /* (T) in (0, 1) */, int64_t t, int64_t v, double temperature,
          double top_p))

/* The optimizer.  state is a device struct op.h calls step_state: step_control turns the sum of
 * squared gradients into norm, scale, learning rate and bias corrections.  The step is counted and
 * commits where the sum and the N losses are finite; one that does not commit changes nothing, and
 * first_bad then finds the first element of g that is not finite, -1 for none. */
OP(sum_squares, (struct lane *l, void *sum /* S+= (1) */, struct mat g /* (1,N) S or R */))
OP(step_control, (struct lane *l, void *state /* S (STEP_STATE) */, const void *sum /* S (1) */,
                  const void *loss /* S (N) */, int64_t n, const struct step_plan *plan))
OP(first_bad, (struct lane *l, int64_t *where /* = (1) */, struct mat g /* (1,N) S or R */,
               const void *state))
/* AdamW (Loshchilov & Hutter 2019) of a shard, all operands (1,N).  The weights w are R.  master is
 * S, or w itself: then it is updated in place, stochastically rounded where it is bf16.  m and v
 * are S or bf16, stochastically rounded; g is S or R. */
OP(adamw, (struct lane *l, struct mat w, struct mat master, struct mat m, struct mat v,
           struct mat g, const struct stretches *s, const void *state,
           const struct step_plan *plan))
OP(sgd, (struct lane *l, struct mat w, struct mat master, struct mat g, const struct stretches *s,
         const void *state))
