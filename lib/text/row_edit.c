/* row_edit.c -- a row changed member by member, and the reshapings that need no other row. */

#include "text/text.h"

#include <string.h>

void row_edit_begin(struct row_edit *e, const char *line, size_t len)
{
    buf_reset(&e->line);
    buf_add(&e->line, line, len);
}

void row_edit_json(struct row_edit *e, const char *key, const char *value)
{
    struct buf swap = e->line;

    buf_reset(&e->spare);
    json_edit(&e->spare, e->line.data, e->line.len, key, value);
    e->line = e->spare;
    e->spare = swap;
}

void row_edit_string(struct row_edit *e, const char *key, const char *s, size_t len)
{
    buf_reset(&e->value);
    json_quote(&e->value, s, len);
    row_edit_json(e, key, e->value.data);
}

void row_edit_release(struct row_edit *e)
{
    buf_release(&e->line);
    buf_release(&e->spare);
    buf_release(&e->value);
}

void row_explode(const struct row *row, int64_t k, struct row_edit *e)
{
    static const char *const rewards[] = {"reward_chosen", "reward_rejected"};
    static const char *const leave[] = {"chosen",           "rejected", "reward_chosen",
                                        "reward_rejected",  "margin",   "ref_logp_chosen",
                                        "ref_logp_rejected"};
    struct json reward, gone;

    row_edit_begin(e, row->line, row->len);
    for (int64_t i = 0; i < ARRAY_LEN(leave); i++)
        if (json_get(row->json, leave[i],
                     &gone)) /* an edit that finds nothing scans the row, too */
            row_edit_json(e, leave[i], NULL);
    row_edit_string(e, "response", k ? row->rejected : row->chosen,
                    k ? row->rejected_len : row->chosen_len);
    row_edit_json(e, "sample", k ? "1" : "0");
    if (json_get(row->json, rewards[k], &reward) && json_type(reward) != JSON_NULL) {
        buf_reset(&e->value);
        json_write(&e->value, reward);
        row_edit_json(e, "reward", e->value.data);
    }
}

void row_answer(struct row_edit *e, const char *id, const char *prompt_id, int64_t k,
                const struct buf *text, const char *finish)
{
    static const char *const leave[] = {
        "reward",          "reward_chosen",     "reward_rejected", "chosen", "rejected", "margin",
        "ref_logp_chosen", "ref_logp_rejected", "weight",          "tag",    "text"};
    char number[32];

    for (int64_t i = 0; i < ARRAY_LEN(leave); i++)
        row_edit_json(e, leave[i], NULL);
    row_edit_string(e, "id", id, strlen(id));
    row_edit_string(e, "prompt_id", prompt_id, strlen(prompt_id));
    row_edit_string(e, "response", text->len ? text->data : "", text->len);
    snprintf(number, sizeof number, "%lld", (long long)k);
    row_edit_json(e, "sample", number);
    row_edit_string(e, "finish", finish, strlen(finish));
}

/* The length of the first n words with what stands before them; 0 when no word follows. */
static size_t words_end(const char *s, size_t len, int64_t n)
{
    static const char blanks[] = " \t\n\v\f\r";
    size_t at = 0, end = 0;

    for (int64_t k = 0; k <= n; k++) {
        end = at;
        while (at < len && memchr(blanks, s[at], 6))
            at++;
        if (at == len)
            return 0;
        while (at < len && !memchr(blanks, s[at], 6))
            at++;
    }
    return end;
}

int row_cut_words(const struct row *row, int64_t n, struct row_edit *e)
{
    size_t end = words_end(row->text, row->text_len, n);

    if (!end)
        return -1;
    row_edit_begin(e, row->line, row->len);
    row_edit_json(e, "text", NULL);
    row_edit_json(e, "prompt_id",
                  NULL); /* it kept the pieces of a text together; prompts are new groups */
    row_edit_string(e, "prompt", row->text, end);
    row_edit_string(e, "response", row->text + end, row->text_len - end);
    return 0;
}
