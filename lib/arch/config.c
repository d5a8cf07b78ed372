/* config.c -- config.json to struct config and back.
 *
 * A field of the file is a row of a table: what all families share is here, what is a family's own
 * in its file; both directions read the same rows.  What would change the model and is not
 * implemented is refused by name.  The text is kept, so that what nobody here reads survives. */
#include "arch/rows.h"

#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(struct config, member)
static const struct config_field common[] = {
    {"num_hidden_layers", AT(layers), FIELD_COUNT, .required = 1},
    {"hidden_size", AT(d), FIELD_COUNT, .required = 1},
    {"num_attention_heads", AT(heads), FIELD_COUNT, .required = 1},
    {"num_key_value_heads", AT(groups), FIELD_COUNT, .required = 1, .nullable = 1},
    {"head_dim", AT(c), FIELD_COUNT, .nullable = 1},
    {"vocab_size", AT(vocab), FIELD_COUNT, .required = 1},
    {"max_position_embeddings", AT(positions), FIELD_COUNT, .required = 1},
    {"rms_norm_eps", AT(eps), FIELD_REAL, .required = 1},
    {"rope_theta", AT(theta), FIELD_REAL, .nullable = 1}, /* or in rope_parameters: read_rope() */
    {"initializer_range", AT(init), FIELD_REAL, .otherwise = 0.02},
    {"router_z_loss_coef", AT(z), FIELD_REAL},
    {"tie_word_embeddings", AT(tied), FIELD_FLAG},
    {"bos_token_id", AT(bos), FIELD_TOKEN, .nullable = 1, .otherwise = -1},
    {"eos_token_id", AT(eos), FIELD_TOKEN, .nullable = 1, .otherwise = -1},
};

static const char *const takes[] = {
    [FIELD_COUNT] = "a positive integer",
    [FIELD_WHOLE] = "a whole number and not negative",
    [FIELD_REAL] = "a number and not negative",
    [FIELD_FLAG] = "true or false",
    [FIELD_TOKEN] = "a token id, or a list of them",
};

/* Fields that have one value here; absent and null are that value. */
static const struct {
    const char *key, *string;
    double number; /* of a number or a truth value, where string is NULL */
} only[] = {
    {"hidden_act", .string = "silu"},       {"attention_dropout", .number = 0},
    {"attention_bias", .number = 0},        {"mlp_bias", .number = 0},
    {"partial_rotary_factor", .number = 1},
};

/* Counts are ints so that every product of two stays exact. */
static int field_read(enum field_type type, struct json v, double *x)
{
    int64_t i;
    int flag;
    if (type == FIELD_REAL)
        return json_real(v, x) || !(*x >= 0) ? -1 : 0;
    if (type == FIELD_FLAG) {
        if (json_bool(v, &flag))
            return -1;
        *x = flag;
        return 0;
    }
    if (type == FIELD_TOKEN && json_type(v) == JSON_ARRAY) {
        struct json_iter list;
        json_iter_init(&list, v);
        if (!json_iter_next(&list))
            return -1;
        v = list.value;
    }
    if (json_int(v, &i) || i < (type == FIELD_COUNT) || i > INT32_MAX)
        return -1;
    *x = (double)i;
    return 0;
}

static void field_set(struct config *c, const struct config_field *f, double x)
{
    char *at = (char *)c + f->at;
    if (f->type == FIELD_REAL)
        *(double *)at = x;
    else if (f->type == FIELD_FLAG)
        *(int *)at = x != 0;
    else
        *(int64_t *)at = (int64_t)x;
}

static double field_get(const struct config *c, const struct config_field *f)
{
    const char *at = (const char *)c + f->at;
    return f->type == FIELD_REAL   ? *(const double *)at
           : f->type == FIELD_FLAG ? *(const int *)at
                                   : (double)*(const int64_t *)at;
}

/* A family's own row stands in for the common one of the same key. */
static int is_own(const struct arch *arch, const struct config_field *f)
{
    for (int64_t i = 0; i < arch->fields_n; i++)
        if (f != &arch->fields[i] && !strcmp(f->key, arch->fields[i].key))
            return 1;
    return 0;
}

static void read_fields(struct config *c, const struct config_field *f, int64_t n, struct json root,
                        const char *who)
{
    for (; n--; f++) {
        struct json v;
        double x = f->otherwise;
        if (is_own(c->arch, f))
            continue;
        if (!json_get(root, f->key, &v) && !(f->alias && json_get(root, f->alias, &v))) {
            if (f->required)
                die_misused("%s: \"%s\" is missing", who, f->key);
        } else if (!(f->nullable && json_type(v) == JSON_NULL) && field_read(f->type, v, &x)) {
            die_misused("%s: \"%s\" is not %s", who, f->key, takes[f->type]);
        }
        field_set(c, f, x);
    }
}

int config_get(struct json object, const char *key, struct json *v)
{
    return json_get(object, key, v) && json_type(*v) != JSON_NULL;
}

static void read_only_values(struct json object, const char *who)
{
    for (int64_t i = 0; i < ARRAY_LEN(only); i++) {
        struct json v;
        double x;
        int flag;
        size_t len;
        if (!config_get(object, only[i].key, &v))
            continue;
        if (only[i].string) {
            const char *s = json_string(v, &len);
            if (!s || strcmp(s, only[i].string))
                die_misused("%s: \"%s\" is not \"%s\", the only one implemented", who, only[i].key,
                            only[i].string);
            continue;
        }
        if (!json_bool(v, &flag))
            x = flag;
        else if (json_real(v, &x))
            x = -1;
        if (x != only[i].number)
            die_misused("%s: \"%s\" is not %g, the only value implemented", who, only[i].key,
                        only[i].number);
    }
}

/* RoPE's base stands at the top or, in newer files, in rope_parameters; rope_scaling is the older
 * name of what else stands there. */
static void read_rope(struct config *c, struct json root, const char *who)
{
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    for (int64_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct json rope, v;
        double theta;
        if (!config_get(root, keys[i], &rope))
            continue;
        if (json_type(rope) != JSON_OBJECT)
            die_misused("%s: \"%s\" is not an object", who, keys[i]);
        rope_read(c, rope, keys[i], who);
        read_only_values(rope, who);
        if (!config_get(rope, "rope_theta", &v))
            continue;
        if (field_read(FIELD_REAL, v, &theta))
            die_misused("%s: \"rope_theta\" is not %s", who, takes[FIELD_REAL]);
        if (config_get(root, "rope_theta", &v) && c->theta != theta)
            die_misused("%s: \"rope_theta\" is %g and %g in \"%s\"", who, c->theta, theta, keys[i]);
        c->theta = theta;
    }
    if (!c->theta)
        die_misused("%s: \"rope_theta\" is missing", who);
}

/* What else there is on top of a family has other tensors, or another use of the same ones. */
static int read_reward(struct json root, const struct arch *arch, const char *who)
{
    struct json v, labels;
    struct json_iter i;
    size_t len;
    if (!config_get(root, "architectures", &v))
        return 0;
    if (json_type(v) != JSON_ARRAY)
        die_misused("%s: \"architectures\" is not a list", who);
    json_iter_init(&i, v);
    if (!json_iter_next(&i))
        return 0;
    const char *name = json_string(i.value, &len);
    if (name && !strcmp(name, arch->architecture))
        return 0;
    if (!name || strcmp(name, arch->reward_architecture))
        die_misused("%s: \"architectures\" is \"%s\"; known are: %s, %s", who, name ? name : "?",
                    arch->architecture, arch->reward_architecture);
    if (config_get(root, "id2label", &labels) && json_count(labels) != 1)
        die_misused("%s: \"id2label\" has %lld labels; a reward model has one", who,
                    (long long)json_count(labels));
    return 1;
}

/* What fields must hold together. */
static void check(const struct config *c, const char *who)
{
    const struct {
        const char *what;
        int holds;
    } rules[] = {
        {"\"num_attention_heads\" is not a multiple of \"num_key_value_heads\"",
         c->heads % c->groups == 0},
        {"\"head_dim\" is missing and \"hidden_size\" is not a multiple of \"num_attention_heads\"",
         c->c > 0},
        {"\"head_dim\" is odd, so RoPE has no pairs to rotate", c->kv_rank || c->c % 2 == 0},
        {"the experts chosen for a token are more than there are", c->k <= c->experts},
        {"\"num_hidden_layers\" times the experts of a layer is more than 100000",
         (c->layers + c->further) * MAX(1, c->experts) <= EXPERTS_MAX},
        {"\"rms_norm_eps\" is 0", c->eps > 0},
        {"\"bos_token_id\" is not below \"vocab_size\"", c->bos < c->vocab},
        {"\"eos_token_id\" is not below \"vocab_size\"", c->eos < c->vocab},
    };
    for (int64_t i = 0; i < ARRAY_LEN(rules); i++)
        if (!rules[i].holds)
            die_misused("%s: %s", who, rules[i].what);
}

static void head_sizes(struct config *c)
{
    if (!c->kv_rank) {
        if (!c->c && c->d % c->heads == 0)
            c->c = c->d / c->heads;
        c->cv = c->c_turn = c->c;
        return;
    }
    c->c = c->c_own + c->c_turn;
}

void config_parse(struct config *c, const char *text, size_t text_len, const char *who)
{
    struct json_doc *doc = json_doc_new();
    struct json root, v;
    size_t len;
    const char *why;
    if (json_parse(doc, text, text_len, &root, &why))
        die_misused("%s: %s", who, why);
    if (json_type(root) != JSON_OBJECT)
        die_misused("%s: not a JSON object", who);
    if ((why = json_duplicate_key(root)))
        die_misused("%s: \"%s\" stands twice", who, why);
    const char *type = json_get(root, "model_type", &v) ? json_string(v, &len) : NULL;
    if (!type)
        die_misused("%s: \"model_type\" is missing", who);
    *c = (struct config){
        .arch = arch_find(type), .gate_scale = 1, .expert_groups = 1, .group_limit = 1};
    if (!c->arch)
        die_misused("%s: \"model_type\" is \"%s\"; known are: %s", who, type, arch_names());
    read_fields(c, common, ARRAY_LEN(common), root, who);
    read_fields(c, c->arch->fields, c->arch->fields_n, root, who);
    read_only_values(root, who);
    c->reward = read_reward(root, c->arch, who);
    read_rope(c, root, who);
    if (config_get(root, "quantization_config", &v))
        die_misused("%s: \"quantization_config\": quantised weights are not implemented", who);
    if (!c->groups)
        c->groups = c->heads;
    head_sizes(c);
    check(c, who);
    if (c->reward)
        c->further = 0;
    if (c->arch->read && (why = c->arch->read(c, root)))
        die_misused("%s: %s", who, why);
    c->json = xstrndup(text, text_len);
    json_doc_free(doc);
}

void config_release(struct config *c)
{
    free(c->json);
    free(c->dense);
    *c = (struct config){0};
}

static void edit(struct buf *text, const char *key, const char *value)
{
    struct buf next = {0};
    json_edit(&next, text->data, text->len, key, value);
    buf_release(text);
    *text = next;
}

/* As a JSON number that readers with types take for a real one, even when it is whole. */
static void add_real(struct buf *b, double x)
{
    size_t from = b->len;
    json_number(b, x);
    if (!strpbrk(b->data + from, ".e"))
        buf_str(b, ".0");
}

/* Whether the text's value is to stay: a list that begins with the token. */
static int stays(struct json text, const struct config_field *f, double x)
{
    struct json v;
    double first;
    return f->type == FIELD_TOKEN && json_get(text, f->key, &v) && json_type(v) == JSON_ARRAY &&
           !field_read(FIELD_TOKEN, v, &first) && first == x;
}

static void edit_fields(struct buf *text, const struct config *c, const struct config_field *f,
                        int64_t n, struct json was)
{
    struct buf v = {0};
    struct json is;
    for (; n--; f++) {
        double x = field_get(c, f);
        if (stays(was, f, x) || (f->type == FIELD_COUNT && x == 0)) /* 0: it has none */
            continue;
        if (!json_get(was, f->key, &is) && x == f->otherwise)
            continue;
        buf_reset(&v);
        if (f->type == FIELD_FLAG)
            buf_str(&v, x ? "true" : "false");
        else if (f->type == FIELD_TOKEN && x < 0)
            buf_str(&v, "null");
        else if (f->type == FIELD_REAL)
            add_real(&v, x);
        else
            buf_printf(&v, "%lld", (long long)x);
        edit(text, f->key, v.data);
        if (f->alias)
            edit(text, f->alias, NULL); /* two could disagree */
    }
    buf_release(&v);
}

void config_write(const struct config *c, struct buf *out, const char *torch_dtype)
{
    struct buf text = {0}, v = {0}, parameters = {0};
    struct json_doc *doc = json_doc_new();
    struct json root, rope, labels;
    const char *why;
    buf_str(&text, c->json ? c->json : "{}");
    if (json_parse(doc, text.data, text.len, &root, &why))
        die("the model's configuration: %s", why);
    if (config_get(root, "rope_parameters", &rope))
        json_write(&parameters, rope);

    buf_printf(&v, "[\"%s\"]", c->reward ? c->arch->reward_architecture : c->arch->architecture);
    edit(&text, "architectures", v.data);
    if (c->reward && !(config_get(root, "id2label", &labels) && json_count(labels) == 1)) {
        edit(&text, "id2label", "{\"0\":\"reward\"}");
        edit(&text, "label2id", "{\"reward\":0}");
    }
    buf_reset(&v);
    buf_printf(&v, "\"%s\"", c->arch->model_type);
    edit(&text, "model_type", v.data);
    buf_reset(&v);
    buf_printf(&v, "\"%s\"", torch_dtype);
    edit(&text, "torch_dtype", v.data);
    edit(&text, "dtype", NULL); /* the newer name of torch_dtype; two could disagree */
    edit_fields(&text, c, common, ARRAY_LEN(common), root);
    edit_fields(&text, c, c->arch->fields, c->arch->fields_n, root);
    if (parameters.len) {
        buf_reset(&v);
        add_real(&v, c->theta);
        edit(&parameters, "rope_theta", v.data);
        edit(&text, "rope_parameters", parameters.data);
    }
    buf_add(out, text.data, text.len);
    json_doc_free(doc);
    buf_release(&text), buf_release(&v), buf_release(&parameters);
}
