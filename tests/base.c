/* base.c -- claims on dying, memory, element types, hashes, random numbers and threads. */
#include "base/base.h"
#include "child.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- die ---- */

static void die_plain(void *arg)
{
    printf("found so far");
    die("row %d is bad", 7);
}

static void die_errno(void *arg)
{
    errno = ENOENT;
    die_damaged("open %s:", "x");
}

static void die_long(void *arg)
{
    char s[10000];
    memset(s, 'x', sizeof(s) - 1);
    s[sizeof(s) - 1] = 0;
    die_with(EXIT_BAD_DATA, "%s", s);
}

static void say_things(void *arg)
{
    opt_quiet = *(int *)arg;
    say("kept %d", 3);
    warn("beware");
}

static void *die_in_thread(void *arg)
{
    die_misused("thread");
}

static void die_everywhere(void *arg)
{
    pthread_t t[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&t[i], NULL, die_in_thread, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
}

static void ask_too_much(void *arg)
{
    xcalloc(SIZE_MAX / 2, 3);
}

static void test_die(void)
{
    struct ending e = child(die_plain, NULL);
    tool_name = "base";
    ok(ended(&e, 1, "base: row 7 is bad\n"), "die exits 1 and names the program");
    ok(!strcmp(e.out, "found so far"), "die lets out what a report has printed");
    e = child(die_errno, NULL);
    ok(ended(&e, 4, "base: open x: No such file or directory\n"), "a final colon adds strerror");
    e = child(die_long, NULL);
    ok(e.status == 3 && strlen(e.err) > 4000 && e.err[strlen(e.err) - 1] == '\n',
       "an overlong message is cut and still ends its line");
    e = child(say_things, &(int){0});
    ok(ended(&e, 0, "base: kept 3\nbase: beware\n"), "say and warn speak");
    e = child(say_things, &(int){1});
    ok(ended(&e, 0, "base: beware\n"), "--quiet silences say alone");
    e = child(die_everywhere, NULL);
    ok(ended(&e, 2, "base: thread\n"), "eight threads that die say so once");
    e = child(ask_too_much, NULL);
    ok(e.status == 1 && strstr(e.err, "out of memory"), "a product that overflows is no memory");
}

/* ---- buf ---- */

static void test_buf(void)
{
    struct buf b = {0};
    int same = 1;
    buf_str(&b, "");
    ok(b.data && b.len == 0 && !b.data[0], "an empty string makes an empty, terminated buffer");
    for (int i = 0; i < 5000; i++)
        buf_printf(&b, "%d,", i);
    char *p = b.data;
    for (int i = 0; i < 5000; i++)
        same &= strtol(p, &p, 10) == i && *p++ == ',';
    ok(same && p == b.data + b.len && !*p, "buf_printf appends 5000 numbers and terminates them");
    buf_reset(&b);
    buf_printf(&b, "%0300d", 1);
    ok(b.len == 300 && b.data[299] == '1', "buf_printf takes more than it first reserved");
    buf_add(&b, "a\0b", 3);
    ok(b.len == 303 && !memcmp(b.data + 300, "a\0b", 4), "bytes may be NUL");
    buf_release(&b);
    ok(!b.data && !b.len && !b.cap, "buf_release leaves an empty buffer");
    char *s = xstrndup("abc", 10);
    ok(!strcmp(s, "abc"), "xstrndup stops at the end");
    free(s);
}

/* ---- dtype ---- */

static uint16_t narrow(double x, enum dtype to, enum dtype from)
{
    float f = (float)x;
    uint16_t h;
    dtype_convert(&h, to, from == DT_F32 ? (void *)&f : (void *)&x, from, 1);
    return h;
}

static void convert_int(void *arg)
{
    dtype_convert(&(int32_t){0}, DT_I32, &(float){0}, DT_F32, 1);
}

/* Every 16-bit float goes to F32 and F64 and back; halfway points go to the even neighbour. */
static void test_half(enum dtype t)
{
    const char *name = dtype_name(t);
    int mantissa = t == DT_F16 ? 10 : 7, back = 1, ties = 1, near = 1;
    uint16_t infinity = (uint16_t)(t == DT_F16 ? 0x7c00 : 0x7f80),
             quiet = (uint16_t)(1 << (mantissa - 1));
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i, again, next = (uint16_t)(h + 1);
        float f;
        double x, y;
        int nan = (h & 0x7fff) > infinity;
        dtype_convert(&f, DT_F32, &h, t, 1);
        dtype_convert(&x, DT_F64, &h, t, 1);
        dtype_convert(&again, t, &x, DT_F64, 1);
        back &= nan ? isnan(x) && isnan(f) && again == (h | quiet)
                    : again == h && (double)f == x && narrow(x, t, DT_F32) == h;
        if ((h & 0x7fff) >= infinity - 1)
            continue;
        dtype_convert(&y, DT_F64, &next, t, 1);
        double middle = (x + y) / 2;
        uint16_t even = h & 1 ? next : h;
        ties &= narrow(middle, t, DT_F64) == even;
        near &= narrow(nextafter(middle, x), t, DT_F64) == h &&
                narrow(nextafter(middle, y), t, DT_F64) == next;
        if ((double)(float)middle == middle) /* not below the smallest BF16 subnormals */
            ties &= narrow(middle, t, DT_F32) == even;
    }
    ok(back, "%s: every value survives F32 and F64, NaNs become quiet and keep their bits", name);
    ok(ties, "%s: every halfway point rounds to the even neighbour", name);
    ok(near, "%s: a hair off the middle rounds to the nearer", name);
    ok(narrow(1e300, t, DT_F64) == infinity && narrow(-1e300, t, DT_F64) == (infinity | 0x8000) &&
           narrow(INFINITY, t, DT_F32) == infinity,
       "%s: too large becomes infinite", name);
    ok(narrow(-1e-300, t, DT_F64) == 0x8000 && narrow(0, t, DT_F64) == 0,
       "%s: too small becomes a signed zero", name);
}

static void test_dtype(void)
{
    int named = 1;
    for (int t = 0; t < DT_COUNT; t++)
        named &= dtype_parse(dtype_name(t), strlen(dtype_name(t))) == t && dtype_size(t) > 0;
    ok(named, "every type has a size and a name that parses");
    ok(dtype_parse("F3", 2) < 0 && dtype_parse("f32", 3) < 0, "names are exact");
    test_half(DT_F16);
    test_half(DT_BF16);
    ok(narrow(65519.9, DT_F16, DT_F64) == 0x7bff && narrow(65520, DT_F16, DT_F64) == 0x7c00,
       "F16: 65520 is the first to be infinite");
    /* 1 + 2^-8 + 2^-30 is above the middle; through F32 it would land on it and round down. */
    ok(narrow(1 + 0x1p-8 + 0x1p-30, DT_BF16, DT_F64) == 0x3f81, "F64 to BF16 rounds once");
    char odd[1 + 4 * 1000], narrowed[1 + 2 * 1000];
    for (int i = 0; i < 1000; i++)
        memcpy(odd + 1 + 4 * i, &(float){(float)i / 8}, 4);
    dtype_convert(narrowed + 1, DT_F16, odd + 1, DT_F32, 1000);
    memset(odd, 0, sizeof(odd));
    dtype_convert(odd + 1, DT_F32, narrowed + 1, DT_F16, 1000);
    int same = 1;
    for (int i = 0; i < 1000; i++)
        same &= !memcmp(odd + 1 + 4 * i, &(float){(float)i / 8}, 4);
    ok(same, "1000 unaligned elements convert");
    struct ending e = child(convert_int, NULL);
    ok(ended(&e, 1, "base: cannot convert F32 to I32\n"), "integers are not converted");
}

/* ---- hash ---- */

static void test_hash(void)
{
    char h[65], data[1000];
    hash_hex(h, hash_xxh3("", 0));
    ok(!strcmp(h, "2d06800538d394c2"), "XXH3-64 of nothing is the published value");
    for (int i = 0; i < 1000; i++)
        data[i] = (char)(i * 7);
    struct hash_stream *s = hash_stream_new();
    for (int i = 0, n = 0; i < 1000; i += n, n++)
        hash_stream_add(s, data + i, (size_t)MIN(n, 1000 - i));
    ok(hash_stream_value(s) == hash_xxh3(data, 1000), "pieces hash as the whole");
    hash_stream_free(s);
    hash_sha256(h, "abc", 3);
    ok(!strcmp(h, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
       "SHA-256 of abc is FIPS 180's");
    char again[65];
    write_file("abc", "abc", 3);
    ok(!hash_sha256_file(again, "abc") && !strcmp(h, again), "a file hashes as its bytes");
    errno = 0;
    ok(hash_sha256_file(again, "missing") == -1 && errno == ENOENT, "a missing file is -1, errno");
    ok(hash_sha256_file(again, ".") == -1 && errno == EISDIR, "a folder is -1, errno");
}

/* ---- rng ---- */

static int bits_are(uint64_t key, uint64_t hi, uint64_t lo, uint32_t a, uint32_t b, uint32_t c,
                    uint32_t d)
{
    uint32_t r[4];
    rng_bits(r, key, hi, lo);
    return r[0] == a && r[1] == b && r[2] == c && r[3] == d;
}

static int is_permutation(uint64_t key, int64_t n)
{
    char *seen = xcalloc((size_t)n, 1);
    int good = 1;
    for (int64_t i = 0; i < n && good; i++) {
        int64_t j = rng_permute(key, n, i);
        good = j >= 0 && j < n && !seen[j]++;
    }
    free(seen);
    return good;
}

static void test_permute(void)
{
    static const int64_t sizes[] = {1000, 1023, 1024, 1025, 4096, 4097, 65536, 65537};
    int good = 1, count[6] = {0}, fair = 1;
    for (int64_t n = 1; n <= 300; n++)
        good &= is_permutation(5, n) && is_permutation(6, n);
    for (int i = 0; i < ARRAY_LEN(sizes); i++)
        good &= is_permutation(7, sizes[i]);
    ok(good, "rng_permute is a bijection for n = 1..300, 1000, 65537 and others");
    for (uint64_t key = 0; key < 6000; key++) {
        int64_t a = rng_permute(rng_key(key, "p"), 3, 0), b = rng_permute(rng_key(key, "p"), 3, 1);
        count[a * 2 + (b > 3 - a - b)]++;
    }
    for (int i = 0; i < 6; i++)
        fair &= count[i] > 850 && count[i] < 1150; /* five standard deviations */
    ok(fair, "over many keys the six orders of three are equally frequent");
    int64_t large = ((int64_t)1 << 62) + 12345, x = rng_permute(1, large, large - 1);
    ok(x >= 0 && x < large, "rng_permute takes n beyond 2^62");
}

static void test_rounding(void)
{
    const float x[] = {1.003f, -3.3e-5f, 1e30f, 0, 1e-40f, -1.5f};
    int near = 1, fair = 1;
    for (int64_t i = 0; i < ARRAY_LEN(x); i++) {
        double sum = 0, step = fmax(fabs((double)x[i]) * 0x1p-7, 0x1p-133);
        for (uint32_t bits = 0; bits < 0x10000; bits++) {
            uint16_t y = rng_round_bf16(x[i], bits | bits << 16); /* the upper half is not read */
            float z;
            dtype_convert(&z, DT_F32, &y, DT_BF16, 1);
            near &= fabs((double)z - (double)x[i]) < step;
            sum += (double)z;
        }
        fair &= fabs(sum / 0x10000 - (double)x[i]) <= step * 0x1p-15;
    }
    ok(near && fair, "rng_round_bf16 takes a neighbour, and over all bits its mean is the number");
    float nan;
    memcpy(&nan, &(uint32_t){0x7f800001}, 4);
    ok(rng_round_bf16(INFINITY, ~0u) == 0x7f80 && rng_round_bf16(-INFINITY, ~0u) == 0xff80 &&
           (rng_round_bf16(nan, ~0u) & 0x7fff) > 0x7f80,
       "it keeps what is not finite");
}

static void test_rng(void)
{
    test_rounding();
    /* Known answers of the Random123 distribution: zeros, ones, digits of pi. */
    ok(bits_are(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8), "Philox of zeros");
    ok(bits_are(~0ull, ~0ull, ~0ull, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd),
       "Philox of ones");
    ok(bits_are(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull, 0xd16cfe09,
                0x94fdcceb, 0x5001e420, 0x24126ea1),
       "Philox of pi");
    ok(rng_key(1, "a") != rng_key(1, "b") && rng_key(1, "a") != rng_key(2, "a") &&
           rng_key(1, "a") == rng_key(1, "a"),
       "a key depends on seed and label alone");
    double sum = 0, square = 0, cube = 0, mean = 0;
    int64_t n = 200000;
    int inside = 1;
    for (int64_t i = 0; i < n; i++) {
        double u = rng_uniform(3, 1, (uint64_t)i), z = rng_normal(3, 2, (uint64_t)i);
        inside &= u > 0 && u < 1;
        mean += u / (double)n;
        sum += z / (double)n;
        square += z * z / (double)n;
        cube += z * z * z / (double)n;
    }
    ok(inside && fabs(mean - 0.5) < 0.004, "uniform numbers lie in (0, 1) around a half");
    ok(fabs(sum) < 0.012 && fabs(square - 1) < 0.02 && fabs(cube) < 0.05,
       "normal numbers have mean 0, variance 1 and no skew");
    test_permute();
}

/* ---- par ---- */

struct tally {
    _Atomic int hits[1000];
    _Atomic int64_t total;
    pthread_t caller;
    _Atomic int strangers;
};

static void tick(void *arg, int64_t i)
{
    struct tally *t = arg;
    t->hits[i]++;
    t->total += i;
    t->strangers += !pthread_equal(pthread_self(), t->caller);
}

static void nothing(void *arg, int64_t i)
{
    ((char *)arg)[i]++;
}

static void test_par(int64_t threads)
{
    struct par *p = par_new(threads);
    struct tally *t = xcalloc(1, sizeof(*t));
    int once = 1, tiny = 1;
    t->caller = pthread_self();
    par_for(p, 1000, tick, t);
    for (int i = 0; i < 1000; i++)
        once &= t->hits[i] == 1;
    ok(once && par_threads(p) == threads, "%d threads: each index runs once", (int)threads);
    /* Plain bytes: if a loop returned before its work was done, counts would be lost. */
    char marks[7] = {0};
    for (int round = 0; round < 20000; round++) {
        int64_t n = round % 8;
        memset(marks, 0, sizeof(marks));
        par_for(p, n, nothing, marks);
        for (int64_t i = 0; i < 7; i++)
            tiny &= marks[i] == (i < n);
        if (round % 2000 == 0)
            usleep(2000); /* lets the workers fall asleep */
    }
    ok(tiny, "%d threads: 20000 loops of 0 to 7 indices lose and repeat none", (int)threads);
    if (threads == 1)
        ok(!t->strangers, "one thread is the caller's own");
    par_free(p);
    free(t);
}

/* ---- progress ---- */

static void show_progress(void *arg)
{
    const char *terminal = arg;
    struct progress p;
    int fd = open(terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);
    dup2(fd, STDERR_FILENO);
    progress_start(&p, "rows", "rows", 4000);
    usleep(250000);
    progress_add(&p, 1000);
    warn("beware");
    usleep(250000);
    progress_add(&p, 1000);
    progress_end(&p);
    progress_start(&p, "resumed", "steps", 1000000);
    progress_resume(&p, 999000);
    usleep(250000);
    progress_add(&p, 1);
    progress_end(&p);
}

static void test_progress(void)
{
    char seen[1000] = "";
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) {
        skip("progress on a terminal", "no pseudo-terminal here");
        return;
    }
    int keep = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct ending e = child(show_progress, ptsname(terminal));
    ssize_t n = 0, more = 1;
    while (more > 0 && poll(&(struct pollfd){terminal, POLLIN, 0}, 1, 300) == 1)
        n += more = read(terminal, seen + n, sizeof(seen) - 1 - (size_t)n);
    ok(e.status == 0 && strstr(seen, "\rrows: 1.0k/4.0k rows, ") && strstr(seen, "0:00:00 left"),
       "progress tells how far, how fast and how long still");
    const char *resumed = strstr(seen, "\rresumed: 999k/1.0M steps, ");
    ok(resumed && !strstr(resumed, "0:00:00 left"), "what was done before is no part of the rate");
    ok(strstr(seen, "\r\033[Kbase: beware\r\n") != NULL, "a message clears the line first");
    ok(n > 4 && !memcmp(seen + n - 4, "\r\033[K", 4), "progress_end clears the line");
    close(keep);
    close(terminal);
}

int main(void)
{
    tool_name = "base";
    enter_scratch();
    test_die();
    test_buf();
    test_dtype();
    test_hash();
    test_rng();
    test_par(1);
    test_par(2);
    test_par(5);
    test_progress();
    setenv("MOEUTILS_THREADS", "3", 1);
    ok(opt_threads() == 3, "MOEUTILS_THREADS sets the threads");
    unsetenv("MOEUTILS_THREADS");
    ok(opt_threads() >= 1 && opt_threads() <= sysconf(_SC_NPROCESSORS_CONF),
       "without it they are the cores this process may use");
    leave_scratch();
    return finish();
}
