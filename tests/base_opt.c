/* base_opt.c -- claims on options, each parsed in a forked child. */
#include "base/base.h"
#include "child.h"
#include "tap.h"

#include <fcntl.h>
#include <math.h>

static int64_t count = 64, threads = 1;
static int64_t seed;
static double rate = 0.1, share = NAN;
static const char *method = "fa", *output;
static struct strv data;
static int all;
static const struct opt table[] = {OPT_INT('n', "count", &count, "n", "how many"),
                                   OPT_REAL(0, "rate", &rate, "x", "how fast"),
                                   OPT_CHOICE('m', "method", &method, "fa|rwr|ca", "which"),
                                   OPT_STR('o', "output", &output, "file", "where to write"),
                                   OPT_LIST('d', "data", &data, "set", "what to read"),
                                   OPT_FLAG('a', "all", &all, "everything"),
                                   OPT_INT('j', "threads", &threads, "n", "threads"),
                                   OPT_SEED(&seed, "of draws"),
                                   OPT_REAL(0, "share", &share, "x", "if any"),
                                   OPT_END};

/* Parses a command line given as words and prints what came of it. */
static void parse(void *arg)
{
    const char **words = arg;
    char *argv[32] = {(char *)"/usr/bin/tool"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = xstrdup(words[argc - 1]);
    int first = opt_parse(argc, argv, table, "tool [options] [file ...]", "Does things.");
    char *line = opt_provenance(table);
    printf("%s|%d operands|count %s", line, argc - first, opt_given("count") ? "given" : "default");
    printf("%s%s", opt_quiet ? "|quiet" : "", opt_verbose ? "|verbose" : "");
    free(line);
}
#define PARSE(...) child(parse, (const char *[]){__VA_ARGS__, NULL})

static int says(const struct ending *e, const char *out)
{
    if (e->status == 0 && !strcmp(e->out, out) && !*e->err)
        return 1;
    printf("# exit %d, said: %s, stderr: %s\n", e->status, e->out, e->err);
    return 0;
}

static void test_flags(void)
{
    struct ending e = child(parse, (const char *[]){NULL});
    ok(says(&e, "tool|0 operands|count default"), "no options, all defaults");
    e = PARSE("-n", "3", "a", "--rate=2.50", "b", "--method", "ca", "-aqv", "-");
    ok(says(&e, "tool --count 3 --rate 2.5 --method ca --all a b -|3 operands|count "
                "given|quiet|verbose"),
       "letters, names and operands mix");
    e = PARSE("--", "-n", "x y");
    ok(says(&e, "tool -n 'x y'|2 operands|count default"), "after -- all are operands");
    e = PARSE("-d", "it's", "--data", "b", "-o", "");
    ok(says(&e, "tool --data 'it'\\''s' --data b|0 operands|count default"), "lists grow");
    e = PARSE("-n64");
    ok(says(&e, "tool|0 operands|count given"), "a default that is given counts as given");
    static const char *const sizes[][2] = {{"64k", "65536"},
                                           {"2m", "2097152"},
                                           {"1G", "1073741824"},
                                           {"0", "0"},
                                           {"9223372036854775807", "9223372036854775807"}};
    for (int i = 0; i < ARRAY_LEN(sizes); i++) {
        char *want = xasprintf("tool --count %s|0 operands|count given", sizes[i][1]);
        e = PARSE("-n", sizes[i][0]);
        ok(says(&e, want), "%s is %s", sizes[i][0], sizes[i][1]);
        free(want);
    }
    e = PARSE("--rate", "inf");
    ok(says(&e, "tool --rate inf|0 operands|count default"), "a real may be infinite");
}

static void test_misuse(void)
{
    static const struct {
        const char *word, *value, *err;
    } cases[] = {
        {"--nope", NULL, "unknown option --nope (see --help)"},
        {"--nope=3", NULL, "unknown option --nope (see --help)"},
        {"-z", NULL, "unknown option -z (see --help)"},
        {"-aza", "x", "unknown option -z (see --help)"},
        {"--count", NULL, "option --count wants a value (see --help)"},
        {"-an", NULL, "option -n wants a value (see --help)"},
        {"--all=1", NULL, "option --all takes no value (see --help)"},
        {"--ver", NULL, "ambiguous option --ver (see --help)"},
        {"--cuont", NULL, "unknown option --cuont (did you mean --count?)"},
        {"--metod=fa", NULL, "unknown option --metod (did you mean --method?)"},
        {"--quietly", NULL, "unknown option --quietly (did you mean --quiet?)"},
        {"--lck", "x", "unknown option --lck (did you mean --lock?)"},
        {"--rrrate", NULL, "unknown option --rrrate (did you mean --rate?)"},
        {"--moment", NULL, "unknown option --moment (see --help)"},
        {"-n", "-3", "--count -3: must be 0 or more"},
        {"-n", "-1k", "--count -1k: must be 0 or more"},
        {"-n", "3x", "--count: \"3x\" is not an integer, which k, m, g or t may follow"},
        {"-n", "", "--count: \"\" is not an integer"},
        {"-n", " 3", "--count: \" 3\" is not an integer"},
        {"-n", "1.5", "--count: \"1.5\" is not an integer, which k, m, g or t may follow"},
        {"-n", "9223372036854775808", "--count: \"9223372036854775808\" is too large"},
        {"-n", "9007199254740992k", "--count: \"9007199254740992k\" is too large"},
        {"--rate", "nan", "--rate: \"nan\" is not a number"},
        {"--rate", "1,5", "--rate: \"1,5\" is not a number"},
        {"-m", "f", "--method: \"f\" is none of fa|rwr|ca"},
        {"-m", "fa|rwr", "--method: \"fa|rwr\" is none of fa|rwr|ca"},
        {"-m", "", "--method: \"\" is none of fa|rwr|ca"},
    };
    for (int i = 0; i < ARRAY_LEN(cases); i++) {
        char *err = xasprintf("tool: %s\n", cases[i].err);
        struct ending e = PARSE(cases[i].word, cases[i].value);
        ok(ended(&e, 2, err) && !*e.out, "exit 2: %s", cases[i].err);
        free(err);
    }
}

static void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static void test_sources(void)
{
    write_text("c", "# a comment\n\n count=7\r\nmethod = rwr\ndata = a\ndata = \" b \"\nall = "
                    "yes\nquiet = 1\n");
    struct ending e = PARSE("--config", "c");
    ok(says(&e,
            "tool --count 7 --method rwr --data a --data ' b ' --all|0 operands|count given|quiet"),
       "a config file sets options");
    e = PARSE("--data", "z", "-n", "1", "--config", "c");
    ok(says(&e, "tool --count 1 --method rwr --data z --all|0 operands|count given|quiet"),
       "flags win over the config file, wherever it is named");
    setenv("MOEUTILS_CONFIG", "c", 1);
    setenv("MOEUTILS_THREADS", "5", 1);
    setenv("MOEUTILS_COUNT", "99", 1);
    e = PARSE("x");
    ok(says(&e, "tool --count 7 --method rwr --data a --data ' b ' --all --threads 5 x|1 "
                "operands|count given|quiet"),
       "MOEUTILS_CONFIG and MOEUTILS_THREADS are read, no other variable");
    write_text("t", "threads = 2\n");
    e = PARSE("--config", "t");
    ok(says(&e, "tool --threads 5|0 operands|count default"),
       "--config replaces MOEUTILS_CONFIG, and the environment wins over the file");
    e = PARSE("-j", "9", "--config", "t");
    ok(says(&e, "tool --threads 9|0 operands|count default"), "a flag wins over the environment");
    unsetenv("MOEUTILS_CONFIG");
    unsetenv("MOEUTILS_THREADS");
    e = PARSE("--print-config", "-o", " x", "-d", "\"q", "-d", "", "--rate", "1e-9", "-a", "-s",
              "-5");
    ok(says(&e, "count = 64\nrate = 1e-09\nmethod = fa\noutput = \" x\"\ndata = \"\\\"q\"\ndata = "
                "\"\"\nall = 1\n"
                "threads = 1\nseed = -5\n# share =\n"),
       "--print-config prints every option");
    write_text("p", e.out);
    e = PARSE("--config", "p");
    ok(says(&e, "tool --rate 1e-09 --output ' x' --data '\"q' --data '' --all --seed -5|0 "
                "operands|count given"),
       "and --config reads it back");
    e = PARSE("--print-config");
    ok(says(&e, "count = 64\nrate = 0.1\nmethod = fa\n# output =\n# data =\nall = 0\nthreads = "
                "1\nseed = 0\n# share =\n"),
       "what has no value is a comment");
    static const struct {
        const char *text, *err;
    } bad[] = {
        {"count = 1\n\ncuont = 2\n", "tool: f:3: unknown option cuont (did you mean count?)\n"},
        {"help = 1\n", "tool: f:1: unknown option help (see --help)\n"},
        {"count\n", "tool: f:1: not a line `name = value`\n"},
        {"count = x\n", "tool: f:1: count: \"x\" is not an integer\n"},
        {"all = maybe\n", "tool: f:1: all: \"maybe\" is neither 0 nor 1\n"},
        {"output = \"a\n", "tool: f:1: output: not a quoted string\n"},
    };
    for (int i = 0; i < ARRAY_LEN(bad); i++) {
        write_text("f", bad[i].text);
        e = PARSE("--config", "f");
        ok(ended(&e, 2, bad[i].err), "exit 2: %s", bad[i].err + 6);
    }
    write_file("f", "count = 1\n\0all = 1\n", 19);
    e = PARSE("--config", "f");
    ok(ended(&e, 2, "tool: f: not a text file\n"), "a config file with a NUL is refused");
    e = PARSE("--config", "missing");
    ok(ended(&e, 1, "tool: missing: No such file or directory\n"), "so is one that is missing");
}

static void test_common(void)
{
    struct ending e = PARSE("--version");
    ok(says(&e, "tool (moeutils) 0.1.0\n"), "--version");
    e = PARSE("-n", "wrong", "--config", "missing", "-h");
    ok(e.status == 0 && !*e.err &&
           strstr(e.out, "usage: tool [options] [file ...]\nDoes things.\n"),
       "--help comes before any complaint");
    ok(strstr(e.out, "\n  -n, --count n               how many [64]\n") &&
           strstr(e.out, "\n      --rate x                how fast [0.1]\n") &&
           strstr(e.out, "\n  -m, --method fa|rwr|ca      which [fa]\n") &&
           strstr(e.out, "\n  -o, --output file           where to write\n") &&
           strstr(e.out, "\n  -a, --all                   everything\n"),
       "--help has each option with its default");
    static const char *const names[] = {"-h, --help",     "--version",   "--config file",
                                        "--print-config", "-q, --quiet", "-v, --verbose",
                                        "--lock file"};
    for (int i = 0; i < ARRAY_LEN(names); i++)
        ok(strstr(e.out, names[i]) != NULL, "--help has %s", names[i]);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    e = child_to(full, parse, (const char *[]){"--help", NULL});
    close(full);
    ok(ended(&e, 1, "tool: standard output: No space left on device\n"), "--help sees a full disk");
    lock_take("lock");
    e = PARSE("--lock", "lock");
    ok(ended(&e, 75, "tool: another process holds the lock lock\n"), "--lock exits 75 when held");
    e = PARSE("--lock", "free");
    ok(says(&e, "tool|0 operands|count default"), "--lock takes a free lock");
}

int main(void)
{
    unsetenv("MOEUTILS_CONFIG");
    unsetenv("MOEUTILS_THREADS");
    unsetenv("MOEUTILS_DEVICE");
    unsetenv("POSIXLY_CORRECT");
    enter_scratch();
    test_flags();
    test_misuse();
    test_sources();
    test_common();
    leave_scratch();
    return finish();
}
