/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/clock.h"
#include "guestagent/job.h"
#include "guestagent/status.h"

#define TEXT_MAX 2048U

static const char *const state_names[] = {"high", "clear", "soft", "hard", "low"};

static const struct row {
        enum bl_wire_grant grant;
        const char *key;
        const char *label;
} rows[] = {
        {BL_GRANT_RESERVATION, "reservation", "reservation"},
        {BL_GRANT_LIMIT, "limit", "limit"},
        {BL_GRANT_SHARES, "shares", "shares"},
        {BL_GRANT_MAX, "max", "configured"},
        {BL_GRANT_TARGET, "target", "balloon target"},
        {BL_GRANT_ACTUAL, "actual", "balloon size"},
        {BL_GRANT_RESIDENT, "resident", "resident"},
        {BL_GRANT_COMPRESSED, "compressed", "compressed"},
        {BL_GRANT_SHARED, "shared", "shared"},
        {BL_GRANT_SWAPPED, "swapped", "swapped"},
        {BL_GRANT_STORE_HELD, "store_held", "held by the store"},
        {BL_GRANT_STORE_ROOM, "store_room", "room in the store"},
};

/* Of this guest's own figures. */
static const struct stat_row {
        enum bl_wire_stat stat;
        const char *key;
        const char *label; /* NULL: not a size */
} stat_rows[] = {
        {BL_STAT_STORE_SIZE, "swap_size", "swap there"}, {BL_STAT_STORE_USED, "swap_used", "of it used"},
        {BL_STAT_STORE_ERROR, "swap_errno", NULL},       {BL_STAT_SWAP_AHEAD, "swap_ahead", "other swap before"},
        {BL_STAT_ZSWAPPED, "zswapped", "in zswap"},
};

static const char *const swap_names[_BL_STORE_SWAP_MAX] = {
        [BL_STORE_SWAP_NONE] = "none",       [BL_STORE_SWAP_PREPARING] = "preparing", [BL_STORE_SWAP_ON] = "on",
        [BL_STORE_SWAP_LEAVING] = "leaving", [BL_STORE_SWAP_FAILED] = "failed",       [BL_STORE_SWAP_OFF] = "off",
};

/* What is used changes all the time: it is written when it changed by this. */
#define USED_STEP (4 * BL_MIB)

/* --- writing ---------------------------------------------------------------- */

struct text {
        char buf[TEXT_MAX];
        size_t len;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *format, ...)
{
        va_list args;
        int n;

        va_start(args, format);
        n = vsnprintf(t->buf + t->len, sizeof t->buf - t->len, format, args);
        va_end(args);
        t->len = bl_min(t->len + (size_t)n, sizeof t->buf - 1);
}

static void add_name(struct text *t, const char *key, const char *name)
{
        if (name)
                add(t, "  \"%s\": \"%s\",\n", key, name);
        else
                add(t, "  \"%s\": null,\n", key);
}

static void add_number(struct text *t, const char *key, uint64_t v)
{
        if (v == BL_UNSET)
                add(t, ",\n  \"%s\": null", key);
        else
                add(t, ",\n  \"%s\": %" PRIu64, key, v);
}

static const char *truth(uint64_t v)
{
        return v == BL_UNSET ? "null" : v ? "true" : "false";
}

static void add_swap(struct text *t, const struct bl_wire_stats *s)
{
        uint64_t state = s->v[BL_STAT_STORE_STATE];

        if (state < _BL_STORE_SWAP_MAX)
                add(t, ",\n  \"swap_state\": \"%s\"", swap_names[state]);
        else
                add(t, ",\n  \"swap_state\": null");
        for (size_t i = 0; i < sizeof stat_rows / sizeof stat_rows[0]; i++)
                add_number(t, stat_rows[i].key, s->v[stat_rows[i].stat]);
        add(t, ",\n  \"zswap\": %s", truth(s->v[BL_STAT_ZSWAP]));
}

static void build(struct text *t, const char *transport, const struct bl_wire_entitlement *grant,
                  const struct bl_wire_stats *swap)
{
        struct bl_wire_entitlement none;
        uint64_t state;

        bl_wire_entitlement_init(&none);
        t->len = 0;
        add(t, "{\n  \"agent\": \"%s\",\n  \"pid\": %d,\n  \"at_us\": %" PRIu64 ",\n", BALLAST_VERSION, (int)getpid(),
            guest_clock(CLOCK_BOOTTIME));
        add(t, "  \"known\": %s,\n", grant ? "true" : "false");
        add_name(t, "transport", transport);
        if (!grant)
                grant = &none;
        state = grant->v[BL_GRANT_STATE];
        add_name(t, "host_state", state < sizeof state_names / sizeof state_names[0] ? state_names[state] : NULL);
        add(t, "  \"managed\": %s", truth(grant->v[BL_GRANT_MANAGED]));
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                add_number(t, rows[i].key, grant->v[rows[i].grant]);
        add_swap(t, swap);
        add(t, "\n}\n");
}

static void make_directory(const char *path)
{
        char dir[PATH_MAX];
        const char *slash = strrchr(path, '/');

        if (!slash || slash == path || (size_t)(slash - path) >= sizeof dir)
                return;
        memcpy(dir, path, (size_t)(slash - path));
        dir[slash - path] = '\0';
        /* whoever may log in may look; what is wrong with it, opening the file will say */
        if (mkdir(dir, 0755) == 0)
                (void)chmod(dir, 0755);
}

static int replace(const char *path, const struct text *t)
{
        char fresh[PATH_MAX];
        _cleanup_close_ int fd = -1;
        int r;

        if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
                return -ENAMETOOLONG;
        make_directory(path);
        fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        (void)fchmod(fd, 0644);
        r = guest_write_all(fd, t->buf, t->len);
        if (r == 0 && rename(fresh, path) < 0)
                r = -errno;
        if (r < 0)
                (void)unlink(fresh);
        return r;
}

void guest_status_init(struct guest_status *s, const char *path, void (*log)(const char *text))
{
        *s = (struct guest_status){.path = path, .log = log, .due = true};
        bl_wire_stats_init(&s->swap);
}

static bool is_news(enum bl_wire_stat stat, uint64_t was, uint64_t now)
{
        if (was == BL_UNSET || now == BL_UNSET || (stat != BL_STAT_STORE_USED && stat != BL_STAT_ZSWAPPED))
                return was != now;
        return bl_distance(was, now) >= USED_STEP || (now == 0 && was != 0);
}

void guest_status_swap(struct guest_status *s, const struct bl_wire_stats *stats)
{
        for (enum bl_wire_stat stat = BL_STAT_STORE_STATE; stat <= BL_STAT_ZSWAPPED; stat++)
                if (is_news(stat, s->swap.v[stat], stats->v[stat])) {
                        s->swap = *stats;
                        s->due = true;
                        return;
                }
}

void guest_status_step(struct guest_status *s, const char *transport, const struct bl_wire_entitlement *grant,
                       usec_t now)
{
        struct text t;
        int r;

        if (!s->due || now < s->next_at)
                return;
        s->due = false;
        s->next_at = now + GUEST_STATUS_GAP;
        build(&t, transport, grant, &s->swap);
        r = replace(s->path, &t);
        if (r < 0 && !s->failed) {
                char text[256];

                (void)snprintf(text, sizeof text, "%s: cannot write, ignoring: %s", s->path, strerror(-r));
                s->log(text);
        }
        s->failed = r < 0;
}

usec_t guest_status_wait(const struct guest_status *s, usec_t now)
{
        return s->due ? bl_sub_sat(s->next_at, now) : BL_UNSET;
}

void guest_status_end(const struct guest_status *s)
{
        (void)unlink(s->path);
}

/* --- reading ---------------------------------------------------------------- */

/* The value of a key in a file of ours; NULL: it is not there. */
static const char *find(const char *text, const char *key)
{
        char quoted[32];
        const char *p;

        (void)snprintf(quoted, sizeof quoted, "\"%s\": ", key);
        p = strstr(text, quoted);
        return p ? p + strlen(quoted) : NULL;
}

static uint64_t find_number(const char *text, const char *key)
{
        const char *p = find(text, key);

        return p && *p >= '0' && *p <= '9' ? strtoull(p, NULL, 10) : BL_UNSET;
}

/* A name, or a word such as true.  *ret is "" where it is null. */
static void find_word(const char *text, const char *key, char *ret, size_t size)
{
        const char *p = find(text, key);
        size_t n;

        ret[0] = '\0';
        if (!p || strncmp(p, "null", 4) == 0)
                return;
        p += *p == '"';
        n = bl_min(strcspn(p, "\",\n"), size - 1);
        memcpy(ret, p, n);
        ret[n] = '\0';
}

static void print_row(FILE *f, const char *label, const char *value)
{
        (void)fprintf(f, "%-17s %s\n", label, value[0] ? value : "not known");
}

static void print_size(FILE *f, const char *label, uint64_t v)
{
        char word[64] = "";

        if (v != BL_UNSET)
                (void)snprintf(word, sizeof word, "%" PRIu64 ".%" PRIu64 " MiB", v / BL_MIB, v % BL_MIB * 10 / BL_MIB);
        print_row(f, label, word);
}

/* What there is to say of it; in most guests nothing. */
static void print_swap(FILE *f, const char *text)
{
        uint64_t error = find_number(text, "swap_errno");
        uint64_t ahead = find_number(text, "swap_ahead");
        char word[64], zswap[8];

        find_word(text, "swap_state", word, sizeof word);
        if (!word[0] || strcmp(word, "none") == 0)
                return;
        print_row(f, "swap on the store", word);
        for (size_t i = 0; i < sizeof stat_rows / sizeof stat_rows[0]; i++) {
                uint64_t v = find_number(text, stat_rows[i].key);

                if (stat_rows[i].label && v != BL_UNSET)
                        print_size(f, stat_rows[i].label, v);
        }
        if (error != BL_UNSET)
                (void)fprintf(f, "warning: the last that was asked of it failed: %s\n", strerror((int)error));
        if (ahead != BL_UNSET && ahead > 0)
                (void)fprintf(f, "warning: other swap of the same or a higher priority fills first\n");
        find_word(text, "zswap", zswap, sizeof zswap);
        if (strcmp(zswap, "true") == 0)
                (void)fprintf(f, "warning: zswap takes pages before the store does; zswap.enabled=0 ends that\n");
}

static void print_people(FILE *f, const char *text)
{
        uint64_t at = find_number(text, "at_us");
        char word[64];

        find_word(text, "transport", word, sizeof word);
        print_row(f, "transport", word[0] ? word : "none now");
        find_word(text, "host_state", word, sizeof word);
        print_row(f, "host memory", word);
        find_word(text, "managed", word, sizeof word);
        print_row(f, "balloon managed", strcmp(word, "true") == 0 ? "yes" : strcmp(word, "false") == 0 ? "no" : "");
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                uint64_t v = find_number(text, rows[i].key);

                if (rows[i].grant != BL_GRANT_SHARES) {
                        print_size(f, rows[i].label, v);
                        continue;
                }
                word[0] = '\0';
                if (v != BL_UNSET)
                        (void)snprintf(word, sizeof word, "%" PRIu64, v);
                print_row(f, rows[i].label, word);
        }
        print_swap(f, text);
        if (at != BL_UNSET)
                (void)fprintf(f, "%-17s %" PRIu64 " s ago\n", "since",
                              bl_sub_sat(guest_clock(CLOCK_BOOTTIME), at) / BL_SEC);
}

static int read_text(const char *path, char *buf, size_t size)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = read(fd, buf, size - 1);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        return 0;
}

static bool is_running(uint64_t pid)
{
        return pid > 0 && pid <= INT_MAX && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

int guest_status_print(FILE *f, const char *path, bool json, const char **ret_why)
{
        char text[TEXT_MAX], known[8];
        int r = read_text(path, text, sizeof text);

        if (r < 0 && r != -ENOENT)
                return r;
        if (r == -ENOENT || !is_running(find_number(text, "pid"))) {
                *ret_why = "no agent runs here";
                return 1;
        }
        find_word(text, "known", known, sizeof known);
        if (strcmp(known, "true") != 0) {
                *ret_why = "the host has said nothing about this guest's memory yet";
                return 1;
        }
        if (json)
                (void)fputs(text, f);
        else
                print_people(f, text);
        return fflush(f) != 0 || ferror(f) ? -EIO : 0;
}
