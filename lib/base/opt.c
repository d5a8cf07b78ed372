/* opt.c -- options as a table beside their variables.
 *
 * A value may come from a config file, the environment or a flag, and the later of these wins.  The
 * command line is therefore read in full before anything is set; each source then replaces what an
 * earlier one said, a list as a whole. */
#include "base.h"
#include "internal.h"
#include "opt_table.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int opt_quiet, opt_verbose;

static const char *config_path, *lock_path;
static int wants_help, wants_version, wants_config;

static const struct opt common[] = {
    OPT_FLAG('h', "help", &wants_help, "print this and exit"),
    OPT_FLAG(0, "version", &wants_version, "print the version and exit"),
    OPT_STR(0, "config", &config_path, "file", "read options from lines `long-name = value`"),
    OPT_FLAG(0, "print-config", &wants_config, "print the options as a config file and exit"),
    OPT_FLAG('q', "quiet", &opt_quiet, "no progress, no summaries"),
    OPT_FLAG('v', "verbose", &opt_verbose, "say more"),
    OPT_STR(0, "lock", &lock_path, "file", "exit 75 when another process holds this lock"),
    OPT_END};

static const struct {
    const char *variable, *name;
} environment[] = {{"MOEUTILS_THREADS", "threads"}, {"MOEUTILS_DEVICE", "device"}};

struct entry { /* an option of this tool, the common ones last */
    const struct opt *opt;
    enum opt_source source; /* who set it last */
    char *initial;          /* its value in the program text */
};
static struct entry *entries;
static int64_t entry_count, own_count; /* own: of the tool's table */
static const struct opt *tables[] = {NULL, common};
static char **operands;

static struct entry *entry_find(const char *name, size_t len)
{
    for (int64_t i = 0; i < entry_count; i++)
        if (strlen(entries[i].opt->name) == len && !memcmp(entries[i].opt->name, name, len))
            return &entries[i];
    return NULL;
}

static _Noreturn void die_unknown(const char *where, const char *dashes, const char *name, int len)
{
    const char *near = opt_near(name, (size_t)len, tables, ARRAY_LEN(tables));
    die_misused(near ? "%sunknown option %s%.*s (did you mean %s%s?)"
                     : "%sunknown option %s%.*s (see --help)",
                where, dashes, len, name, dashes, near);
}

static void set(struct entry *e, enum opt_source source, const char *who, const char *text)
{
    int fresh = e->source != source;
    if (e->source != OPT_FROM_PROGRAM && (fresh || e->opt->type != OPT_T_LIST))
        opt_value_free(e->opt);
    e->source = source;
    opt_value_set(e->opt, who, text, fresh);
}

/* ---- the three sources ---- */

static void config_line(const char *path, int64_t number, char *line)
{
    static const char blank[] = " \t\r";
    char *key = line + strspn(line, blank), *equals = strchr(key, '=');
    if (!*key || *key == '#')
        return;
    if (!equals)
        die_misused("%s:%lld: not a line `name = value`", path, (long long)number);
    size_t len = (size_t)(equals - key);
    while (len && strchr(blank, key[len - 1]))
        len--;
    struct entry *e = entry_find(key, len);
    if (!e || e->opt->value == &wants_help || e->opt->value == &wants_version ||
        e->opt->value == &config_path || e->opt->value == &wants_config)
        die_unknown(xasprintf("%s:%lld: ", path, (long long)number), "", key, (int)len);
    char *value = equals + 1 + strspn(equals + 1, blank), *end = value + strlen(value);
    while (end > value && strchr(blank, end[-1]))
        *--end = 0;
    char *who = xasprintf("%s:%lld: %s", path, (long long)number, e->opt->name);
    if (*value == '"') {
        struct json_doc *d = json_doc_new(); /* for values with blanks at their ends */
        struct json v;
        const char *why, *plain = NULL;
        size_t n;
        if (json_parse(d, value, (size_t)(end - value), &v, &why) || !(plain = json_string(v, &n)))
            die_misused("%s: not a quoted string", who);
        set(e, OPT_FROM_CONFIG, who, plain);
        json_doc_free(d);
    } else {
        set(e, OPT_FROM_CONFIG, who, value);
    }
    free(who);
}

static void read_config(const char *path)
{
    struct buf text = read_file(path);
    int64_t number = 0;
    if (strlen(text.data) != text.len)
        die_misused("%s: not a text file", path);
    for (char *line = text.data, *next; line; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        config_line(path, ++number, line);
    }
    buf_release(&text);
}

static void read_environment(void)
{
    for (int64_t i = 0; i < ARRAY_LEN(environment); i++) {
        const char *value = getenv(environment[i].variable);
        struct entry *e = entry_find(environment[i].name, strlen(environment[i].name));
        if (value && *value && e)
            set(e, OPT_FROM_ENVIRONMENT, environment[i].variable, value);
    }
}

enum { LONG_FIRST = 256 }; /* what getopt_long() returns for entries[0] by its long name */

struct given { /* a flag on the command line */
    struct entry *entry;
    const char *value;
};

/* getopt_long() leaves in optopt the letter, the option that was used wrongly, or 0 for a long name
 * that is none. */
static _Noreturn void complain(char **argv, int wants_value)
{
    const char *word = argv[optind - 1];
    int len = (int)strcspn(word, "=") - 2, matches = 0; /* of its name */
    if (optopt >= LONG_FIRST)
        die_misused("option --%s %s (see --help)", entries[optopt - LONG_FIRST].opt->name,
                    wants_value ? "wants a value" : "takes no value");
    if (optopt)
        die_misused(wants_value ? "option -%c wants a value (see --help)"
                                : "unknown option -%c (see --help)",
                    optopt);
    for (int64_t i = 0; i < entry_count; i++)
        matches += !strncmp(entries[i].opt->name, word + 2, (size_t)len);
    if (matches > 1)
        die_misused("ambiguous option --%.*s (see --help)", len, word + 2);
    die_unknown("", "--", word + 2, len);
}

/* Returns the flags in their order; argv is permuted. */
static struct given *read_flags(int argc, char **argv, int64_t *count)
{
    struct given *given = xcalloc((size_t)argc * 2 + 1, sizeof(*given));
    struct option *longs = xcalloc((size_t)entry_count + 1, sizeof(*longs));
    struct buf letters = {0};
    int64_t room = argc * 2;
    buf_char(&letters, ':'); /* we word the errors */
    for (int64_t i = 0; i < entry_count; i++) {
        const struct opt *o = entries[i].opt;
        int has_arg = o->type != OPT_T_FLAG;
        longs[i] = (struct option){o->name, has_arg, NULL, (int)(LONG_FIRST + i)};
        if (o->letter)
            buf_printf(&letters, "%c%s", o->letter, has_arg ? ":" : "");
    }
    *count = 0;
    optind = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, letters.data, longs, NULL)) != -1;) {
        if (c == '?' || c == ':')
            complain(argv, c == ':');
        struct entry *e = c >= LONG_FIRST ? &entries[c - LONG_FIRST] : entries;
        while (c < LONG_FIRST && e->opt->letter != c)
            e++;
        if (*count == room) {
            room *= 2; /* many letters in one word */
            given = xrealloc(given, (size_t)room * sizeof(*given));
        }
        given[(*count)++] = (struct given){e, optarg};
    }
    free(longs);
    buf_release(&letters);
    return given;
}

static _Noreturn void print_and_exit(struct buf *text)
{
    struct out *o = out_open(NULL);
    out_write(o, text->data, text->len);
    out_close(o);
    _exit(EXIT_DONE); /* nothing else is open yet */
}

static void make_entries(const struct opt *table)
{
    tables[0] = table;
    entry_count = 0;
    for (int t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct opt *o = tables[t]; o->name; o++) {
            entries = xrealloc(entries, (size_t)(entry_count + 1) * sizeof(*entries));
            entries[entry_count++] = (struct entry){o, OPT_FROM_PROGRAM, opt_value_text(o)};
            own_count = t == 0 ? entry_count : own_count;
        }
}

/* A standard stream that the caller closed would be the next file opened, and rows or messages
 * would go there.  It becomes one on which reading or writing fails; words go nowhere. */
static void claim_standard_streams(void)
{
    static const int mode[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < ARRAY_LEN(mode); fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode[fd]) != fd)
            _exit(EXIT_FAILED);
}

int opt_parse(int argc, char **argv, const struct opt *table, const char *synopsis,
              const char *about)
{
    struct buf text = {0};
    int64_t given_count;
    if (argc > 0) {
        const char *slash = strrchr(argv[0], '/');
        tool_name = slash ? slash + 1 : argv[0];
    }
    claim_standard_streams();
    make_entries(table);
    struct given *given = read_flags(argc, argv, &given_count);
    config_path = getenv("MOEUTILS_CONFIG");
    for (int64_t i = 0; i < given_count; i++) {
        if (given[i].entry->opt->value == &wants_help) {
            opt_help(&text, table, common, synopsis, about);
            print_and_exit(&text);
        }
        if (given[i].entry->opt->value == &wants_version) {
            buf_printf(&text, "%s (moeutils) " MOEUTILS_VERSION "\n", tool_name);
            print_and_exit(&text);
        }
        if (given[i].entry->opt->value == &config_path)
            config_path = given[i].value;
    }
    if (config_path && *config_path)
        read_config(config_path);
    read_environment();
    for (int64_t i = 0; i < given_count; i++) {
        char *who = xasprintf("--%s", given[i].entry->opt->name);
        set(given[i].entry, OPT_FROM_FLAG, who, given[i].value);
        free(who);
    }
    free(given);
    operands = argv + optind;
    if (wants_config) {
        opt_config(&text, table);
        print_and_exit(&text);
    }
    if (lock_path)
        lock_take(lock_path);
    return optind;
}

int opt_given(const char *name)
{
    struct entry *e = entry_find(name, strlen(name));
    return e && e->source != OPT_FROM_PROGRAM;
}

char *opt_provenance(const struct opt *table)
{
    struct buf b = {0};
    buf_str(&b, tool_name);
    for (int64_t i = 0; i < own_count; i++) {
        char *now = opt_value_text(entries[i].opt);
        if (strcmp(now, entries[i].initial))
            opt_flags_text(&b, entries[i].opt);
        free(now);
    }
    for (char **o = operands; o && *o; o++) {
        buf_char(&b, ' ');
        opt_shell_quote(&b, *o);
    }
    return b.data;
}

int64_t opt_threads(void)
{
    const char *text = getenv("MOEUTILS_THREADS");
    int64_t n = 0;
    if (text && *text) {
        const struct opt o = OPT_INT(0, "threads", &n, "n", "");
        opt_value_set(&o, "MOEUTILS_THREADS", text, 1);
        if (n < 1)
            die_misused("MOEUTILS_THREADS: \"%s\" is no number of threads", text);
        return n;
    }
    return cores_usable();
}
