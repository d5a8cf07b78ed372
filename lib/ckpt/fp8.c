/* fp8.c -- weights of 8 bits, one factor for each block of them (128 x 128 in what DeepSeek and
 * Qwen publish), as the numbers they stand for: w = q x factor, in float32, then rounded. */
#include "ckpt_priv.h"

#include <math.h>
#include <stdlib.h>

/* F8_E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, and all ones are NaN. */
static float widen(uint8_t q)
{
    int e = q >> 3 & 15, m = q & 7;
    float x = (q & 127) == 127 ? NAN : e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    return q >> 7 ? -x : x;
}

void fp8_put(struct blob_file *f, enum dtype to, const uint8_t *src, int64_t rows, int64_t cols,
             const float *factor, struct fp8_blocks b)
{
    float number[256], *line = xmalloc((size_t)cols * sizeof *line);
    int64_t across = (cols + b.cols - 1) / b.cols;
    for (int q = 0; q < 256; q++)
        number[q] = widen((uint8_t)q);
    for (int64_t r = 0; r < rows; r++, src += cols) {
        const float *by = factor + r / b.rows * across;
        for (int64_t c = 0; c < cols; c++)
            line[c] = number[src[c]] * by[c / b.cols];
        elements_put(f, to, line, DT_F32, cols);
    }
    free(line);
}

struct fp8_blocks fp8_config(struct buf *text, const char *who)
{
    struct fp8_blocks b = {0};
    struct json_doc *doc = json_doc_new();
    struct json root, q, v;
    struct json_iter i;
    const char *why;
    size_t n;
    int64_t size[2] = {0, 0};
    int sizes = 0;
    if (!json_parse(doc, text->data, text->len, &root, &why) && json_type(root) == JSON_OBJECT &&
        json_get(root, "quantization_config", &q) && json_type(q) == JSON_OBJECT &&
        json_get(q, "quant_method", &v) && json_string(v, &n) &&
        !strcmp(json_string(v, &n), "fp8")) {
        if (json_get(q, "weight_block_size", &v) && json_type(v) == JSON_ARRAY)
            for (json_iter_init(&i, v); json_iter_next(&i); sizes++)
                if (sizes > 1 || json_int(i.value, &size[sizes]) || size[sizes] < 1)
                    sizes = 2;
        if (sizes != 2)
            die_misused("%s: \"quantization_config\" is fp8 without a \"weight_block_size\" of two "
                        "counts",
                        who);
        struct buf without = {0};
        json_edit(&without, text->data, text->len, "quantization_config", NULL);
        buf_release(text);
        *text = without;
        b = (struct fp8_blocks){size[0], size[1]};
    }
    json_doc_free(doc);
    return b;
}
