/* row_reader.c -- rows one after the other, and the accounts of what became of each.
 *
 * A bad row is data, not disaster: it is reported, counted and written to the rejects, and only
 * more of them than --max-bad ends the tool. */

#include "text/text.h"

#include <assert.h>
#include <string.h>

const char *row_rejects;
int64_t row_max_bad;
int row_allow_empty;

void row_begin(struct row_reader *r, const char *line, size_t len, int64_t number)
{
    row_init(&r->row, line, len);
    r->row.file = source_name(r->source);
    r->row.number = number;
    r->in++;
}

void row_reader_init(struct row_reader *r, char *const *paths, int64_t n)
{
    *r = (struct row_reader){.max_bad = row_max_bad};
    r->source = source_open(paths, n);
    r->doc = json_doc_new();
    if (row_rejects)
        r->rejects = out_open(row_rejects);
}

int row_next(struct row_reader *r)
{
    char *line;
    size_t len;

    while (source_line(r->source, &line, &len)) {
        row_begin(r, line, len, source_line_number(r->source));
        r->row.is_plain = source_line_plain(r->source, &r->row.offset);
        const char *why = row_parse(&r->row, r->doc);
        if (!why)
            return 1;
        row_bad(r, why);
    }
    return 0;
}

/* {"file", "line", "verdict", "why"}, more, and the row as it was, or its text when it is no JSON.
 */
static void reject(struct row_reader *r, const char *verdict, const char *why, const char *more)
{
    struct buf b = {0}, text = {0};
    struct json json;
    const char *ignored;

    if (!r->rejects)
        return;
    buf_str(&b, "{\"file\":");
    utf8_repair(&text, r->row.file, strlen(r->row.file));
    json_quote(&b, text.data, text.len);
    buf_printf(&b, ",\"line\":%lld,\"verdict\":\"%s\",\"why\":", (long long)r->row.number, verdict);
    json_quote(&b, why, strlen(why));
    buf_str(&b, more);
    if (!r->reject_doc) /* r->doc holds the row, which the tool may still be looking at */
        r->reject_doc = json_doc_new();
    if (json_parse(r->reject_doc, r->row.line, r->row.len, &json, &ignored)) {
        buf_str(&b, ",\"text\":");
        buf_reset(&text);
        utf8_repair(&text, r->row.line, r->row.len);
        json_quote(&b, text.len ? text.data : "", text.len);
    } else {
        buf_str(&b, ",\"row\":");
        buf_add(&b, r->row.line, r->row.len);
    }
    buf_str(&b, "}\n");
    out_write(r->rejects, b.data, b.len);
    buf_release(&b);
    buf_release(&text);
}

static void count(struct row_reader *r, const char *why, int bad)
{
    int64_t i = 0, last = ARRAY_LEN(r->reason) - 1;

    while (i < r->reasons && (r->reason[i].bad != bad || strcmp(r->reason[i].why, why)))
        i++;
    if (i > last) /* more kinds of trouble than the table holds */
        r->reason[i = last].why = "other reasons";
    if (i == r->reasons)
        r->reason[r->reasons++] = (struct row_reason){why, 0, bad};
    r->reason[i].n++;
}

void row_bad(struct row_reader *r, const char *why)
{
    warn("%s:%lld: %s", r->row.file, (long long)r->row.number, why);
    reject(r, "bad", why, "");
    count(r, why, 1);
    if (++r->bad <= r->max_bad)
        return;
    if (r->rejects) /* the evidence stays, although nothing else is published */
        out_close(r->rejects);
    die_with(EXIT_BAD_DATA, "more bad rows than --max-bad %lld", (long long)r->max_bad);
}

void row_drop_with(struct row_reader *r, const char *why, const char *more)
{
    reject(r, "dropped", why, more);
    count(r, why, 0);
}

void row_drop(struct row_reader *r, const char *why)
{
    row_drop_with(r, why, "");
}

static int64_t summary(const struct row_reader *r, int bad, struct buf *out)
{
    struct buf reasons = {0};
    int64_t n = 0;

    for (int64_t i = 0; i < r->reasons; i++) {
        if (r->reason[i].bad != bad)
            continue;
        buf_printf(&reasons, "%s%s %lld", n ? ", " : " (", r->reason[i].why,
                   (long long)r->reason[i].n);
        n += r->reason[i].n;
    }
    buf_printf(out, ", %s %lld%s%s", bad ? "bad" : "dropped", (long long)n, n ? reasons.data : "",
               n ? ")" : "");
    buf_release(&reasons);
    return n;
}

void row_reader_close(struct row_reader *r, int64_t kept)
{
    struct buf b = {0};
    int64_t lost;

    buf_printf(&b, "in %lld, kept %lld", (long long)r->in, (long long)kept);
    lost = summary(r, 0, &b);
    lost += summary(r, 1, &b);
    say("%s", b.data);
    buf_release(&b);
    assert(r->in == kept + lost);
    if (r->rejects)
        out_close(r->rejects);
    source_close(r->source);
    json_doc_free(r->doc);
    json_doc_free(r->reject_doc);
    if (!kept && !row_allow_empty)
        die_with(EXIT_BAD_DATA, "no row is left (--allow-empty accepts that)");
}
