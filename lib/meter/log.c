/* log.c -- the step log: JSON lines, written by one table of fields and read by the same. */
#include "meter/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* MEASURED is a time or a rate: six digits say all there is to know.  REAL is exact, so that two
 * runs can be compared by their logs.  MAYBE is a REAL that is left out when there is none. */
enum figure { INT, REAL, MAYBE, MEASURED, FLAG, TEXT, OBJECT };
struct log_field {
    const char *name;
    enum figure type;
    size_t at;
};
#define HEAD(name, type)                                                                           \
    {                                                                                              \
#name, type, offsetof(struct log_head, name)                                               \
    }
static const struct log_field head_fields[] = {
    HEAD(config, OBJECT),   HEAD(flops_token, REAL), HEAD(params, INT),         HEAD(active, INT),
    HEAD(peak_flops, REAL), HEAD(data, TEXT),        HEAD(flops_square, MAYBE), HEAD(memory, MAYBE),
};
#define STEP(name, type)                                                                           \
    {                                                                                              \
#name, type, offsetof(struct step_line, name)                                              \
    }
static const struct log_field step_fields[] = {
    STEP(step, INT),        STEP(loss, REAL),      STEP(aux, REAL),         STEP(z, REAL),
    STEP(lr, REAL),         STEP(grad_norm, REAL), STEP(tokens, INT),       STEP(step_ms, MEASURED),
    STEP(tflops, MEASURED), STEP(ok, FLAG),        STEP(seconds, MEASURED), STEP(won, MAYBE),
    STEP(squares, MAYBE),   STEP(dropped, MAYBE),  STEP(mtp_loss, MAYBE),
};
/* A line of validation is known by its loss. */
static const struct log_field valid_fields[] = {
    {"step", INT, offsetof(struct valid_line, step)},
    {"valid_loss", REAL, offsetof(struct valid_line, loss)},
    {"seconds", MEASURED, offsetof(struct valid_line, seconds)},
};

/* And one of a save by its time. */
static const struct log_field save_fields[] = {
    {"step", INT, offsetof(struct save_line, step)},
    {"save_ms", MEASURED, offsetof(struct save_line, save_ms)},
    {"waited", FLAG, offsetof(struct save_line, waited)},
    {"bytes", INT, offsetof(struct save_line, bytes)},
};

/* Config text may be laid out over lines; here it must be one. */
static void add_object(struct buf *b, const char *text)
{
    struct json_doc *doc = json_doc_new();
    struct json root;
    const char *why;
    if (json_parse(doc, text, strlen(text), &root, &why))
        die("log: configuration: %s", why);
    json_write(b, root);
    json_doc_free(doc);
}

static void add_real(struct buf *b, double x, enum figure type)
{
    if (!isfinite(x))
        buf_str(b, "null");
    else if (type == MEASURED)
        buf_printf(b, "%.6g", x);
    else
        json_number(b, x);
}

static void add_fields(struct buf *b, const struct log_field *f, int64_t n, const void *from)
{
    for (int64_t i = 0; i < n; i++) {
        const void *p = (const char *)from + f[i].at;
        if (f[i].type == MAYBE && isnan(*(const double *)p))
            continue;
        buf_printf(b, "%s\"%s\":", i || f == head_fields ? "," : "", f[i].name);
        switch (f[i].type) {
        case INT:
            buf_printf(b, "%lld", (long long)*(const int64_t *)p);
            break;
        case FLAG:
            buf_str(b, *(const int *)p ? "true" : "false");
            break;
        case TEXT:
            json_quote(b, *(char *const *)p, strlen(*(char *const *)p));
            break;
        case OBJECT:
            add_object(b, *(char *const *)p);
            break;
        default:
            add_real(b, *(const double *)p, f[i].type);
        }
    }
    buf_str(b, "}\n");
}

void meter_head_write(struct buf *b, const struct log_head *h)
{
    buf_str(b, "{\"log\":\"moe-train\",\"version\":1");
    add_fields(b, head_fields, ARRAY_LEN(head_fields), h);
}

void meter_step_write(struct buf *b, const struct step_line *s)
{
    buf_char(b, '{');
    add_fields(b, step_fields, ARRAY_LEN(step_fields), s);
}

void meter_valid_write(struct buf *b, const struct valid_line *v)
{
    buf_char(b, '{');
    add_fields(b, valid_fields, ARRAY_LEN(valid_fields), v);
}

void meter_save_write(struct buf *b, const struct save_line *s)
{
    buf_char(b, '{');
    add_fields(b, save_fields, ARRAY_LEN(save_fields), s);
}

static int get_field(const struct log_field *f, struct json v, void *p)
{
    size_t len;
    switch (f->type) {
    case INT:
        return json_int(v, p);
    case FLAG:
        return json_bool(v, p);
    case TEXT: {
        const char *s = json_string(v, &len);
        return s ? (*(char **)p = xstrndup(s, len), 0) : -1;
    }
    case OBJECT: {
        struct buf b = {0};
        if (json_type(v) != JSON_OBJECT)
            return -1;
        json_write(&b, v);
        *(char **)p = b.data;
        return 0;
    }
    default:
        *(double *)p = NAN;
        return json_type(v) == JSON_NULL ? 0 : json_real(v, p);
    }
}

static void get_fields(const struct log_field *f, int64_t n, void *to, struct json root,
                       const char *path, int64_t line)
{
    for (int64_t i = 0; i < n; i++) {
        struct json v;
        int found = json_get(root, f[i].name, &v);
        if (!found && f[i].type == MAYBE) {
            *(double *)((char *)to + f[i].at) = NAN;
            continue;
        }
        if (!found)
            die_damaged("%s:%lld: \"%s\" is missing", path, (long long)line, f[i].name);
        if (get_field(&f[i], v, (char *)to + f[i].at))
            die_damaged("%s:%lld: \"%s\" has the wrong type", path, (long long)line, f[i].name);
    }
}

static void check_head(struct json root, const char *path)
{
    struct json v;
    size_t len;
    int64_t version;
    const char *log = json_get(root, "log", &v) ? json_string(v, &len) : NULL;
    if (!log || strcmp(log, "moe-train"))
        die_damaged("%s:1: not a step log", path);
    if (!json_get(root, "version", &v) || json_int(v, &version) || version != 1)
        die_damaged("%s:1: this tool reads version 1 of the log", path);
}

static struct json parse_line(struct json_doc *doc, const char *text, size_t len, const char *path,
                              int64_t line)
{
    struct json root;
    const char *why;
    if (json_parse(doc, text, len, &root, &why))
        die_damaged("%s:%lld: %s", path, (long long)line, why);
    if (json_type(root) != JSON_OBJECT)
        die_damaged("%s:%lld: not an object", path, (long long)line);
    return root;
}

/* Grows v, which holds n, to hold one more: doubled at powers of two. */
static void *room_for_one(void *v, int64_t n, size_t size)
{
    return n & (n - 1) ? v : xrealloc(v, MAX(2 * n, 1) * size);
}

/* Takes in a line; 0 when its step is beyond `until`. */
static int take_line(struct meter_log *m, struct json root, int64_t until, const char *path,
                     int64_t number)
{
    struct json v;
    struct step_line s;
    struct valid_line t;
    struct save_line save;
    if (json_get(root, "save_ms", &v)) { /* nobody asks for them yet */
        get_fields(save_fields, ARRAY_LEN(save_fields), &save, root, path, number);
        return save.step <= until;
    }
    if (json_get(root, "valid_loss", &v)) {
        get_fields(valid_fields, ARRAY_LEN(valid_fields), &t, root, path, number);
        if (t.step > until)
            return 0;
        m->valid = room_for_one(m->valid, m->valids, sizeof t);
        m->valid[m->valids++] = t;
    } else {
        get_fields(step_fields, ARRAY_LEN(step_fields), &s, root, path, number);
        if (s.step > until)
            return 0;
        m->line = room_for_one(m->line, m->n, sizeof s);
        m->line[m->n++] = s;
    }
    return 1;
}

/* Reads lines until one's step is beyond `until`; returns the bytes they take. */
static size_t read_until(struct meter_log *m, const char *path, int64_t until)
{
    struct buf text = read_file(path);
    struct json_doc *doc = json_doc_new();
    size_t at = 0;
    int64_t number = 0;
    *m = (struct meter_log){0};
    for (char *end; at < text.len && (end = memchr(text.data + at, '\n', text.len - at));) {
        struct json root = parse_line(doc, text.data + at, end - text.data - at, path, ++number);
        if (number == 1) {
            check_head(root, path);
            get_fields(head_fields, ARRAY_LEN(head_fields), &m->head, root, path, number);
        } else if (!take_line(m, root, until, path, number)) {
            break;
        }
        at = end + 1 - text.data;
    }
    if (number == 0)
        die_damaged("%s: no header line", path);
    json_doc_free(doc);
    buf_release(&text);
    return at;
}

void meter_log_read(struct meter_log *m, const char *path)
{
    read_until(m, path, INT64_MAX);
}

char *meter_log_path(const char *operand)
{
    return path_is_dir(operand) ? path_join(operand, "log.jsonl") : xstrdup(operand);
}

char *meter_done_path(const char *log)
{
    char *copy = xstrdup(log), *done = path_join(dirname(copy), "done.json");
    free(copy);
    return done;
}

void meter_log_release(struct meter_log *m)
{
    free(m->head.config);
    free(m->head.data);
    free(m->line);
    free(m->valid);
}

void meter_log_cut(const char *path, int64_t step)
{
    struct meter_log m;
    size_t bytes = read_until(&m, path, step);
    meter_log_release(&m);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, bytes) || fsync(fd) || close(fd))
        die("cut %s:", path);
}
