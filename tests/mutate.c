/* mutate.c -- every one-byte change, loss and repetition in rows of each form: none may crash or
 * make what is no row.  It is the fuzz target over a fixed set of inputs. */

#include "fuzz/rows.c"
#include "tap.h"

static const char *const seeds[] = {
    "{\"id\":7,\"text\":\"A b. C\\u00e9 \\n\\nd\xc3\xa9\",\"n\":[1.5e3,null,true]}",
    "{\"chosen\":\"\\n\\nHuman: q\\n\\nAssistant: a\",\"rejected\":\"\\n\\nHuman: "
    "q\\n\\nAssistant: b\"}",
    "{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"chosen\":[{\"role\":\"assistant\","
    "\"content\":\"a\"}],\"rejected\":[{\"role\":\"assistant\",\"content\":\"\\\"b\\\\\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":"
    "\"a\"}]}",
    "{\"prompt\":\"\\n\\nHuman: "
    "q\\n\\nAssistant:\",\"responses\":[\"a\",\"b\"],\"rewards\":[1,-0.5]}",
    "{\"instruction\":\"do\",\"input\":\"it\",\"output\":\"done\",\"text\":\"all\"}",
    "{\"prompt\":\"q\",\"response\":\"r\",\"reward\":1,\"sample\":0,\"weight\":2e-3,\"tag\":\"t\"}",
};

int main(void)
{
    static const char bytes[] = "\"\\{}[]:,0-.eE unt\x01\x7f\x80\xc3\xed\xf4\xff";

    for (int64_t i = 0; i < ARRAY_LEN(seeds); i++) {
        size_t len = strlen(seeds[i]);
        char *s = xmalloc(len + 1);
        int64_t n = 0;
        for (size_t at = 0; at < len; at++) {
            for (size_t k = 0; k < sizeof bytes; k++, n++) { /* the final NUL, too */
                memcpy(s, seeds[i], len);
                s[at] = bytes[k];
                LLVMFuzzerTestOneInput((uint8_t *)s, len);
            }
            memcpy(s, seeds[i], at);
            memcpy(s + at, seeds[i] + at + 1, len - at - 1);
            LLVMFuzzerTestOneInput((uint8_t *)s, len - 1);
            memcpy(s, seeds[i], at + 1);
            memcpy(s + at + 1, seeds[i] + at, len - at);
            LLVMFuzzerTestOneInput((uint8_t *)s, len + 1);
            LLVMFuzzerTestOneInput((uint8_t *)s, at); /* cut off */
            n += 3;
        }
        ok(n > 1000, "%lld mutations of row %d", (long long)n, (int)i);
        free(s);
    }
    return finish();
}
