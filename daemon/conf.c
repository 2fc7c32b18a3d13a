/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/conf.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include <ballast/plan.h>
#include <ini.h>

#include "daemon/store/control.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"
#include "daemon/util/suggest.h"
#include "daemon/virt/metadata.h"
#include "daemon/vsock/control.h"

#ifndef BALLAST_SYSCONFDIR
#define BALLAST_SYSCONFDIR "/etc"
#endif

#define FILE_MAX_BYTES (1024 * 1024)
/* what inih was built for; a longer line would be split in silence */
#define LINE_MAX_BYTES 198
#define MESSAGES_MAX   200

/* In the order in which they win. */
static const char *const directories[] = {BALLAST_SYSCONFDIR "/ballast", "/run/ballast", "/usr/local/lib/ballast",
                                          "/usr/lib/ballast"};
#define N_DIRECTORIES (sizeof directories / sizeof *directories)

enum type {
        T_STRING, /* char *; low and high bound its length */
        T_PATH, /* char *; absolute, or empty where low is 0; high bounds its length */
        T_NAME, /* char *; printable ASCII without blanks; low and high bound its length */
        T_BOOL,
        T_UINT,
        T_SIZE,
        T_SIZE_OR_AUTO, /* auto is BL_UNSET */
        T_RATIO, /* permyriad_t */
        T_SPAN,
        T_SPAN_SECONDS, /* whole seconds only */
        T_LOG_LEVEL,
        T_SHARE_MODE, /* enum bl_share_mode */
        T_BUDGET,
};

struct key {
        const char *section;
        const char *name;
        enum type type;
        size_t offset;
        uint64_t low;
        uint64_t high;
        const char *initial; /* NULL: what bl_policy_config_default says */
        const char *doc;
};

/* what fits into sockaddr_un, and the private socket must too */
#define SOCKET_PATH_MAX 107
#define RUNTIME_DIR_MAX (SOCKET_PATH_MAX - (sizeof "/ballast.sock" - 1))

/* clang-format off */
static const struct key keys[] = {
#define KEY(section, name, type, member, low, high, initial, doc) \
        {section, name, type, offsetof(struct bl_conf, member), low, high, initial, doc}
        KEY("Daemon", "Act", T_BOOL, act, 0, 1, "no",
            "Whether Ballast moves memory, or only says what it would do"),
        KEY("Daemon", "LogLevel", T_LOG_LEVEL, log_level, LOG_ERR, LOG_DEBUG, "info",
            "Least important messages that are logged"),
        KEY("Daemon", "LibvirtURI", T_STRING, libvirt_uri, 1, BL_CONF_VALUE_MAX - 1, "qemu:///system",
            "libvirt connection whose VMs are looked after"),
        KEY("Daemon", "LibvirtRunDir", T_PATH, libvirt_run_dir, 1, BL_CONF_VALUE_MAX - 1, "/run/libvirt/qemu",
            "Where libvirt keeps the pid files of its VMs"),
        KEY("Daemon", "VsockControl", T_PATH, vsock_control, 1, RUNTIME_DIR_MAX, BL_VSOCK_CONTROL_DEFAULT,
            "The socket of ballast-vsock, the backend of vhost-user-vsock devices"),
        KEY("Daemon", "StateDir", T_PATH, state_dir, 1, BL_CONF_VALUE_MAX - 1, "/var/lib/ballast",
            "What must outlive a restart: the VMs' original settings"),
        KEY("Daemon", "RuntimeDir", T_PATH, runtime_dir, 1, RUNTIME_DIR_MAX, "/run/ballast",
            "Where the control socket is"),

        KEY("Host", "Budget", T_BUDGET, budget, 64 * BL_MIB, 1024 * 1024 * BL_GIB, "ram",
            "Memory that the host may use for its VMs"),
        KEY("Host", "PSI", T_BOOL, psi, 0, 1, "yes",
            "Whether the kernel's memory pressure reports are watched"),
        KEY("Host", "PSIStall", T_SPAN, psi_stall, BL_MSEC, 10 * BL_SEC, "100ms",
            "Stall within psi_window that counts as memory pressure"),
        KEY("Host", "PSIWindow", T_SPAN, psi_window, 500 * BL_MSEC, 10 * BL_SEC, "1s",
            "Window over which stalls are summed up"),
        KEY("Host", "SampleMin", T_SPAN, sample_min, 5 * BL_MSEC, BL_SEC, "20ms",
            "Shortest time between two looks at free memory"),
        KEY("Host", "SampleMax", T_SPAN, sample_max, 10 * BL_MSEC, 10 * BL_SEC, "1s",
            "Longest time between two looks at free memory"),

        KEY("VM", "Manage", T_BOOL, manage_default, 0, 1, "yes",
            "Whether a VM that does not say is looked after"),
        KEY("VM", "Reservation", T_SIZE, default_reservation, 0, 1024 * 1024 * BL_GIB, "0",
            "Memory below which a VM that does not say is never squeezed"),
        KEY("VM", "SharesPerMiB", T_UINT, shares_per_mib, 1, 1000000, "10",
            "Shares of a VM that does not say, for each MiB of its memory"),
        KEY("VM", "StatsPeriod", T_SPAN_SECONDS, stats_period, 0, 3600 * BL_SEC, "2s",
            "How often guests report their memory; 0 leaves that as it is"),

        KEY("Store", "PoolSize", T_SIZE, store_pool, 0, 1024 * 1024 * BL_GIB, "0",
            "Memory that guests' swapped pages may take on the host; 0: there is no store"),
        KEY("Store", "PoolReady", T_SIZE, store_ready, 0, 1024 * 1024 * BL_GIB, "16M",
            "Part of the pool that is taken from the host ahead of use, at least"),
        KEY("Store", "Disk", T_PATH, store_disk, 0, BL_CONF_VALUE_MAX - 1, "",
            "File or block device below the pool; empty: none"),
        KEY("Store", "DiskSize", T_SIZE, store_disk_size, 0, 1024 * 1024 * BL_GIB, "0",
            "How much of it is used; 0: all of a block device"),
        KEY("Store", "DefaultGroup", T_NAME, store_default_group, 0, BL_STORE_GROUP - 1, "",
            "Trust group of VMs that name none; empty: each is a group of its own"),
        KEY("Store", "Socket", T_PATH, store_socket, 1, SOCKET_PATH_MAX, BL_STORE_NBD_DEFAULT,
            "Where ballast-store serves the VMs' swap"),
        KEY("Store", "Control", T_PATH, store_control, 1, SOCKET_PATH_MAX, BL_STORE_CONTROL_DEFAULT,
            "Where ballast-store is told and asked"),

        KEY("Tiers", "KernelTiers", T_BOOL, pageout, 0, 1, "yes",
            "Whether guests' memory may go into the host's own swap, zram or zswap"),
        KEY("Tiers", "IdleAfter", T_SPAN, pageout_idle, 0, 86400 * BL_SEC, "10min",
            "A VM that did nothing for so long is paged out ahead of need; 0: none ever is"),

        KEY("Sharing", "Mode", T_SHARE_MODE, share_mode, BL_SHARE_OFF, BL_SHARE_GROUP, "off",
            "The most that is done about equal pages of any VM"),
        KEY("Sharing", "Group", T_NAME, share_group, 0, BL_METADATA_GROUP - 1, "",
            "Trust group that KSM serves; empty: that of the VMs that ask, if it is one"),
        KEY("Sharing", "ScanCpu", T_RATIO, share_scan_cpu, 1, 10000, "0.05%",
            "Part of a core that looking for equal pages may take at rest"),
        KEY("Sharing", "KsmdCpu", T_RATIO, share_ksmd_cpu, 100, 10000, "100%",
            "Part of a core that ksmd may take while it merges"),
        KEY("Sharing", "HostKnobs", T_BOOL, share_host_knobs, 0, 1, "no",
            "Whether khugepaged's settings may be changed, which would undo merges"),
        KEY("Sharing", "PaysAt", T_SIZE, policy.share_pays, BL_MIB, 1024 * BL_GIB, NULL,
            "Memory that a CPU-second of ksmd has to free at least"),
        KEY("Sharing", "WakeAt", T_SIZE, policy.share_wake, BL_MIB, 1024 * BL_GIB, NULL,
            "New equal pages that are worth waking ksmd for"),
        KEY("Sharing", "Reserve", T_RATIO, policy.share_reserve, 0, 10000, NULL,
            "Part of what breaking all merged pages apart would take that is kept free"),

        KEY("Policy", "MinFree", T_SIZE_OR_AUTO, policy.min_free, BL_MIB, 1024 * 1024 * BL_GIB, NULL,
            "Free memory below which the host is short; all marks follow from it"),
        KEY("Policy", "IdleTax", T_RATIO, policy.idle_tax, 0, 9900, NULL,
            "How much dearer idle memory is than used memory"),
        KEY("Policy", "GuestMargin", T_SIZE, policy.guest_margin, 16 * BL_MIB, 1024 * BL_GIB, NULL,
            "Memory that a guest is left above what it uses, at least"),
        KEY("Policy", "GuestMarginRatio", T_RATIO, policy.guest_margin_ratio, 0, 10000, NULL,
            "The same as a part of what it uses"),
        KEY("Policy", "DeadBand", T_SIZE, policy.dead_band, BL_MIB, 1024 * BL_GIB, NULL,
            "Changes of a balloon that are not worth a command"),
        KEY("Policy", "Settle", T_SPAN, policy.settle, 0, 600 * BL_SEC, NULL,
            "Time after a command in which a VM is not told the opposite"),
        KEY("Policy", "StuckAfter", T_SPAN, policy.stuck_after, BL_SEC, 600 * BL_SEC, NULL,
            "A guest that does not follow for so long is stuck"),
        KEY("Policy", "RetryFirst", T_SPAN, policy.retry_first, BL_SEC, 3600 * BL_SEC, NULL,
            "When a stuck guest is asked again; doubles each time"),
        KEY("Policy", "RetryMax", T_SPAN, policy.retry_max, BL_SEC, 86400 * BL_SEC, NULL,
            "Longest time between two such attempts"),
#undef KEY
};
/* clang-format on */
#define N_KEYS (sizeof keys / sizeof *keys)

static const struct {
        const char *name;
        int level;
} log_levels[] = {
        {"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE}, {"info", LOG_INFO}, {"debug", LOG_DEBUG},
};
#define N_LOG_LEVELS (sizeof log_levels / sizeof *log_levels)

/* Pairs of which the first may not exceed the second. */
static const struct {
        const char *section;
        const char *smaller;
        const char *larger;
} ordered[] = {
        {"Host", "SampleMin", "SampleMax"},
        {"Host", "PSIStall", "PSIWindow"},
        {"Policy", "RetryFirst", "RetryMax"},
};

/* --- one value ----------------------------------------------------------- */

static void *member(struct bl_conf *c, const struct key *k)
{
        return (char *)c + k->offset;
}

static const void *const_member(const struct bl_conf *c, const struct key *k)
{
        return (const char *)c + k->offset;
}

/* What may stand there, as the rest of "must be ...". */
static void allowed(const struct key *k, char *buf, size_t size)
{
        char low[BL_SIZE_BUF], high[BL_SIZE_BUF];

        switch (k->type) {
        case T_STRING:
                (void)snprintf(buf, size, "a text of at most %" PRIu64 " characters", k->high);
                return;
        case T_PATH:
                (void)snprintf(buf, size, "an absolute path of at most %" PRIu64 " characters", k->high);
                return;
        case T_NAME:
                (void)snprintf(buf, size, "a name of at most %" PRIu64 " printable ASCII characters without blanks",
                               k->high);
                return;
        case T_BOOL:
                (void)snprintf(buf, size, "yes or no");
                return;
        case T_UINT:
                (void)snprintf(buf, size, "a whole number from %" PRIu64 " to %" PRIu64, k->low, k->high);
                return;
        case T_SIZE:
        case T_SIZE_OR_AUTO:
                (void)snprintf(buf, size, "%sa size from %s to %s, as 512M or 1.5G",
                               k->type == T_SIZE_OR_AUTO ? "auto or " : "",
                               bl_size_format_exact(k->low, low, sizeof low),
                               bl_size_format_exact(k->high, high, sizeof high));
                return;
        case T_RATIO:
                (void)snprintf(buf, size, "a percentage from %s to %s",
                               bl_permyriad_format((permyriad_t)k->low, low, sizeof low),
                               bl_permyriad_format((permyriad_t)k->high, high, sizeof high));
                return;
        case T_SPAN:
        case T_SPAN_SECONDS:
                (void)snprintf(buf, size, "a time from %s to %s%s, as 500ms or 2s",
                               bl_span_format(k->low, low, sizeof low), bl_span_format(k->high, high, sizeof high),
                               k->type == T_SPAN_SECONDS ? " in whole seconds" : "");
                return;
        case T_LOG_LEVEL:
                (void)snprintf(buf, size, "error, warning, notice, info or debug");
                return;
        case T_SHARE_MODE:
                (void)snprintf(buf, size, "off, zero or group");
                return;
        case T_BUDGET:
                (void)snprintf(buf, size, "ram, a percentage from 1%% to 100%%, or a size from %s to %s",
                               bl_size_format_exact(k->low, low, sizeof low),
                               bl_size_format_exact(k->high, high, sizeof high));
                return;
        }
}

static bool is_text(enum type t)
{
        return t == T_STRING || t == T_PATH || t == T_NAME;
}

static int parse_string(const struct key *k, const char *text, struct bl_conf *c)
{
        const size_t len = strlen(text);
        char **field = member(c, k), *copy;

        if (len < k->low || len > k->high)
                return -ERANGE;
        if (k->type == T_PATH && len > 0 && (text[0] != '/' || strstr(text, "/../")))
                return -EINVAL;
        for (size_t i = 0; k->type == T_NAME && i < len; i++)
                if (text[i] <= ' ' || text[i] > '~')
                        return -EINVAL;
        copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        free(*field);
        *field = copy;
        return 0;
}

static int parse_budget(const struct key *k, const char *text, struct bl_budget_conf *ret)
{
        struct bl_budget_conf b = {.kind = BL_BUDGET_RAM};
        int r;

        if (strcasecmp(text, "ram") == 0) {
                *ret = b;
                return 0;
        }
        if (strchr(text, '%')) {
                b.kind = BL_BUDGET_PERCENT;
                r = bl_permyriad_parse(text, &b.ratio);
                if (r >= 0 && (b.ratio < 100 || b.ratio > BL_WHOLE))
                        r = -ERANGE;
        } else {
                b.kind = BL_BUDGET_SIZE;
                r = bl_size_parse(text, &b.bytes);
                if (r >= 0 && (b.bytes < k->low || b.bytes > k->high))
                        r = -ERANGE;
        }
        if (r >= 0)
                *ret = b;
        return r;
}

static int parse_log_level(const char *text, int *ret)
{
        for (size_t i = 0; i < N_LOG_LEVELS; i++)
                if (strcasecmp(text, log_levels[i].name) == 0) {
                        *ret = log_levels[i].level;
                        return 0;
                }
        return -EINVAL;
}

static int parse_share_mode(const char *text, enum bl_share_mode *ret)
{
        for (int i = 0; i < _BL_SHARE_MODE_MAX; i++)
                if (strcasecmp(text, bl_share_mode_to_string((enum bl_share_mode)i)) == 0) {
                        *ret = (enum bl_share_mode)i;
                        return 0;
                }
        return -EINVAL;
}

/* The numbers, which all have bounds. */
static int parse_number(const struct key *k, const char *text, uint64_t *ret)
{
        permyriad_t ratio;
        uint64_t v = 0;
        int r = -EINVAL;

        switch (k->type) {
        case T_UINT:
                r = bl_uint_parse(text, &v);
                break;
        case T_SIZE_OR_AUTO:
                if (strcasecmp(text, "auto") == 0) {
                        *ret = BL_UNSET;
                        return 0;
                }
                r = bl_size_parse(text, &v);
                break;
        case T_SIZE:
                r = bl_size_parse(text, &v);
                break;
        case T_RATIO:
                r = bl_permyriad_parse(text, &ratio);
                if (r >= 0)
                        v = ratio;
                break;
        case T_SPAN:
        case T_SPAN_SECONDS:
                r = bl_span_parse(text, &v);
                if (r >= 0 && k->type == T_SPAN_SECONDS && v % BL_SEC)
                        r = -EINVAL;
                break;
        case T_STRING:
        case T_PATH:
        case T_NAME:
        case T_BOOL:
        case T_LOG_LEVEL:
        case T_SHARE_MODE:
        case T_BUDGET:
                break;
        }
        if (r < 0)
                return r;
        if (v < k->low || v > k->high)
                return -ERANGE;
        *ret = v;
        return 0;
}

/* -EINVAL, -ERANGE, -ENOMEM: then nothing is changed. */
static int parse_value(const struct key *k, const char *text, struct bl_conf *c)
{
        uint64_t v;
        int r;

        switch (k->type) {
        case T_STRING:
        case T_PATH:
        case T_NAME:
                return parse_string(k, text, c);
        case T_BOOL:
                return bl_bool_parse(text, member(c, k));
        case T_LOG_LEVEL:
                return parse_log_level(text, member(c, k));
        case T_SHARE_MODE:
                return parse_share_mode(text, member(c, k));
        case T_BUDGET:
                return parse_budget(k, text, member(c, k));
        case T_UINT:
        case T_SIZE:
        case T_SIZE_OR_AUTO:
        case T_SPAN:
        case T_SPAN_SECONDS:
                return parse_number(k, text, member(c, k));
        case T_RATIO:
                r = parse_number(k, text, &v);
                if (r >= 0)
                        *(permyriad_t *)member(c, k) = (permyriad_t)v;
                return r;
        }
        return -EINVAL;
}

static void format_budget(const struct bl_budget_conf *b, char *buf, size_t size)
{
        switch (b->kind) {
        case BL_BUDGET_RAM:
                (void)snprintf(buf, size, "ram");
                return;
        case BL_BUDGET_SIZE:
                (void)bl_size_format_exact(b->bytes, buf, size);
                return;
        case BL_BUDGET_PERCENT:
                (void)bl_permyriad_format(b->ratio, buf, size);
                return;
        }
}

static void format_value(const struct key *k, const struct bl_conf *c, char *buf, size_t size)
{
        const void *p = const_member(c, k);

        switch (k->type) {
        case T_STRING:
        case T_PATH:
        case T_NAME:
                (void)snprintf(buf, size, "%s", *(char *const *)p ? *(char *const *)p : "");
                return;
        case T_BOOL:
                (void)snprintf(buf, size, "%s", *(const bool *)p ? "yes" : "no");
                return;
        case T_UINT:
                (void)snprintf(buf, size, "%" PRIu64, *(const uint64_t *)p);
                return;
        case T_SIZE_OR_AUTO:
                if (*(const uint64_t *)p == BL_UNSET) {
                        (void)snprintf(buf, size, "auto");
                        return;
                }
                (void)bl_size_format_exact(*(const uint64_t *)p, buf, size);
                return;
        case T_SIZE:
                (void)bl_size_format_exact(*(const uint64_t *)p, buf, size);
                return;
        case T_RATIO:
                (void)bl_permyriad_format(*(const permyriad_t *)p, buf, size);
                return;
        case T_SPAN:
        case T_SPAN_SECONDS:
                (void)bl_span_format(*(const usec_t *)p, buf, size);
                return;
        case T_LOG_LEVEL:
                for (size_t i = 0; i < N_LOG_LEVELS; i++)
                        if (log_levels[i].level == *(const int *)p)
                                (void)snprintf(buf, size, "%s", log_levels[i].name);
                return;
        case T_SHARE_MODE:
                (void)snprintf(buf, size, "%s", bl_share_mode_to_string(*(const enum bl_share_mode *)p));
                return;
        case T_BUDGET:
                format_budget(p, buf, size);
                return;
        }
}

static void format_default(const struct key *k, char *buf, size_t size)
{
        struct bl_conf d = {0};

        if (k->initial) {
                (void)snprintf(buf, size, "%s", k->initial);
                return;
        }
        bl_policy_config_default(&d.policy);
        format_value(k, &d, buf, size);
}

/* Section and key names: case and underscores do not matter, so that nobody has
 * to remember which of the two common styles this file has. */
static bool same(const char *a, const char *b)
{
        for (;; a++, b++) {
                while (*a == '_')
                        a++;
                while (*b == '_')
                        b++;
                if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
                        return false;
                if (!*a)
                        return true;
        }
}

static const struct key *find_key(const char *section, const char *name)
{
        for (size_t i = 0; i < N_KEYS; i++)
                if (same(keys[i].section, section) && same(keys[i].name, name))
                        return &keys[i];
        return NULL;
}

/* --- the whole ----------------------------------------------------------- */

/* What the policy must know of settings that are not its own. */
static void derive(struct bl_conf *c)
{
        c->policy.idle_after = c->pageout ? c->pageout_idle : 0;
}

int bl_conf_new(struct bl_conf **ret)
{
        _cleanup_(bl_conf_freep) struct bl_conf *c = calloc(1, sizeof *c);

        if (!c)
                return -ENOMEM;
        c->source = calloc(N_KEYS, sizeof *c->source);
        if (!c->source)
                return -ENOMEM;
        bl_policy_config_default(&c->policy);
        for (size_t i = 0; i < N_KEYS; i++) {
                const int r = keys[i].initial ? parse_value(&keys[i], keys[i].initial, c) : 0;

                if (r < 0)
                        return r;
        }
        derive(c);
        *ret = BL_TAKE(c);
        return 0;
}

struct bl_conf *bl_conf_free(struct bl_conf *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < N_KEYS; i++) {
                if (is_text(keys[i].type))
                        free(*(char **)member(c, &keys[i]));
                if (c->source)
                        free(c->source[i]);
        }
        free(c->source);
        free(c);
        return NULL;
}

static const char *source_of(const struct bl_conf *c, const struct key *k)
{
        return c->source[k - keys] ? c->source[k - keys] : "default";
}

bool bl_conf_setting(const struct bl_conf *c, size_t i, struct bl_conf_setting *ret)
{
        if (i >= N_KEYS)
                return false;
        ret->section = keys[i].section;
        ret->key = keys[i].name;
        ret->doc = keys[i].doc;
        ret->source = source_of(c, &keys[i]);
        allowed(&keys[i], ret->allowed, sizeof ret->allowed);
        format_value(&keys[i], c, ret->value, sizeof ret->value);
        return true;
}

/* Sets value and source together, or neither. */
static int assign(struct bl_conf *c, const struct key *k, const char *value, const char *source)
{
        _cleanup_free_ char *copy = NULL;
        char initial[BL_CONF_VALUE_MAX];
        int r;

        /* "key =" takes back what an earlier file said, as in systemd */
        if (!*value) {
                format_default(k, initial, sizeof initial);
                value = initial;
        }
        if (source) {
                copy = strdup(source);
                if (!copy)
                        return -ENOMEM;
        }
        r = parse_value(k, value, c);
        if (r < 0)
                return r;
        derive(c);
        free(c->source[k - keys]);
        c->source[k - keys] = BL_TAKE(copy);
        return 0;
}

/* Index of the first pair in `ordered` from `i` on that is the wrong way round, or SIZE_MAX. */
static size_t disordered(const struct bl_conf *c, size_t i)
{
        for (; i < sizeof ordered / sizeof *ordered; i++) {
                const struct key *a = find_key(ordered[i].section, ordered[i].smaller);
                const struct key *b = find_key(ordered[i].section, ordered[i].larger);

                if (*(const usec_t *)const_member(c, a) > *(const usec_t *)const_member(c, b))
                        return i;
        }
        return SIZE_MAX;
}

__attribute__((format(printf, 2, 3))) static void say(char **ret, const char *format, ...)
{
        va_list ap;
        char *text;

        if (!ret)
                return;
        va_start(ap, format);
        *ret = vasprintf(&text, format, ap) < 0 ? NULL : text;
        va_end(ap);
}

int bl_conf_set(struct bl_conf *c, const char *section, const char *key, const char *value, const char *source,
                char **ret_message)
{
        const struct key *k = find_key(section, key);
        char before[BL_CONF_VALUE_MAX], may[BL_CONF_ALLOWED_MAX];
        _cleanup_free_ char *source_before = NULL;
        size_t pair;
        int r;

        if (!k)
                return -ENOENT;
        format_value(k, c, before, sizeof before);
        if (c->source[k - keys]) {
                source_before = strdup(c->source[k - keys]);
                if (!source_before)
                        return -ENOMEM;
        }

        r = assign(c, k, value, source);
        if (r == -EINVAL || r == -ERANGE) {
                allowed(k, may, sizeof may);
                say(ret_message, "[%s] %s = %s: must be %s", section, key, value, may);
        }
        if (r < 0)
                return r;

        pair = disordered(c, 0);
        if (pair != SIZE_MAX) {
                say(ret_message, "[%s] %s must not be larger than %s", ordered[pair].section, ordered[pair].smaller,
                    ordered[pair].larger);
                r = assign(c, k, before, source_before);
                return r < 0 ? r : -EINVAL;
        }
        return 0;
}

/* --- files --------------------------------------------------------------- */

struct bl_conf_report *bl_conf_report_clear(struct bl_conf_report *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n; i++)
                free(r->messages[i].text);
        free(r->messages);
        *r = (struct bl_conf_report){0};
        return NULL;
}

struct loading {
        struct bl_conf *conf;
        struct bl_conf_report *report;
        bool bad; /* an error was reported */
        int fatal; /* -ENOMEM */
        size_t n_said; /* messages, also those that were too many */

        /* the file being read */
        const char *path;
        const char *next, *end;
        unsigned line;
        char unknown[64]; /* section that was complained of last */
};

__attribute__((format(printf, 4, 5))) static void report(struct loading *l, int priority, unsigned line,
                                                         const char *format, ...)
{
        struct bl_conf_report *r = l->report;
        struct bl_conf_message *more;
        _cleanup_free_ char *text = NULL;
        char *whole;
        va_list ap;
        int n;

        if (priority == LOG_ERR)
                l->bad = true;
        /* a file of another kind, or a hostile one */
        if (++l->n_said > MESSAGES_MAX)
                return;

        va_start(ap, format);
        n = vasprintf(&text, format, ap);
        va_end(ap);
        if (n < 0) {
                text = NULL;
                l->fatal = -ENOMEM;
                return;
        }
        n = line ? asprintf(&whole, "%s:%u: %s", l->path, line, text) : asprintf(&whole, "%s: %s", l->path, text);
        if (n < 0) {
                l->fatal = -ENOMEM;
                return;
        }
        more = realloc(r->messages, (r->n + 1) * sizeof *more);
        if (!more) {
                free(whole);
                l->fatal = -ENOMEM;
                return;
        }
        r->messages = more;
        r->messages[r->n++] = (struct bl_conf_message){.priority = priority, .text = whole};
}

static void report_unknown_section(struct loading *l, const char *section)
{
        const char *names[N_KEYS], *near;
        size_t n = 0;

        if (!*section) {
                report(l, LOG_WARNING, l->line, "a setting before any [section], ignoring it");
                return;
        }
        /* once, not for each of its lines */
        if (strncmp(l->unknown, section, sizeof l->unknown - 1) == 0)
                return;
        (void)snprintf(l->unknown, sizeof l->unknown, "%s", section);

        for (size_t i = 0; i < N_KEYS; i++)
                if (n == 0 || strcmp(names[n - 1], keys[i].section) != 0)
                        names[n++] = keys[i].section;
        near = bl_suggest(section, names, n);
        report(l, LOG_WARNING, l->line, "unknown section [%s], ignoring what is in it%s%s%s", section,
               near ? "; did you mean [" : "", near ? near : "", near ? "]?" : "");
}

static void report_unknown_key(struct loading *l, const char *section, const char *name)
{
        const char *names[N_KEYS], *near;
        size_t n = 0;

        for (size_t i = 0; i < N_KEYS; i++)
                if (!same(keys[i].section, section) && same(keys[i].name, name)) {
                        report(l, LOG_WARNING, l->line, "unknown key %s in [%s], ignoring it; it belongs in [%s]", name,
                               section, keys[i].section);
                        return;
                }
        for (size_t i = 0; i < N_KEYS; i++)
                if (same(keys[i].section, section))
                        names[n++] = keys[i].name;
        near = bl_suggest(name, names, n);
        report(l, LOG_WARNING, l->line, "unknown key %s in [%s], ignoring it%s%s%s", name, section,
               near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static bool is_section(const char *section)
{
        for (size_t i = 0; i < N_KEYS; i++)
                if (same(keys[i].section, section))
                        return true;
        return false;
}

/* inih's handler: 1 is good.  What is wrong is in the report, and all of a file is looked at. */
static int on_setting(void *userdata, const char *section, const char *name, const char *value)
{
        struct loading *l = userdata;
        char source[PATH_MAX + 16], may[BL_CONF_ALLOWED_MAX];
        const struct key *k;
        int r;

        if (!is_section(section)) {
                report_unknown_section(l, section);
                return 1;
        }
        k = find_key(section, name);
        if (!k) {
                report_unknown_key(l, section, name);
                return 1;
        }

        (void)snprintf(source, sizeof source, "%s:%u", l->path, l->line);
        r = assign(l->conf, k, value, source);
        if (r == -ENOMEM) {
                l->fatal = r;
        } else if (r < 0) {
                allowed(k, may, sizeof may);
                report(l, LOG_ERR, l->line, "[%s] %s = %s: must be %s%s", section, name, value, may,
                       strstr(value, " #") ? " (a # comment needs a line of its own)" : "");
        }
        return 1;
}

/* inih's reader, as fgets(3).  Blanks at the start of a line go, as inih would
 * take such a line for a continuation of the one before. */
static char *next_line(char *buf, int size, void *userdata)
{
        struct loading *l = userdata;
        const char *newline;
        size_t len;

        if (l->next >= l->end || l->fatal < 0)
                return NULL;
        l->line++;
        newline = memchr(l->next, '\n', (size_t)(l->end - l->next));
        len = (size_t)((newline ? newline : l->end) - l->next);

        while (len && (*l->next == ' ' || *l->next == '\t')) {
                l->next++;
                len--;
        }
        if (memchr(l->next, '\0', len)) {
                report(l, LOG_ERR, l->line, "a NUL byte in the line");
                len = 0;
        } else if (len > LINE_MAX_BYTES || len + 2 > (size_t)size) {
                /* a long comment is no mistake */
                if (*l->next != '#' && *l->next != ';')
                        report(l, LOG_ERR, l->line, "the line is longer than %d characters", LINE_MAX_BYTES);
                len = 0;
        }
        memcpy(buf, l->next, len);
        buf[len] = '\n';
        buf[len + 1] = '\0';
        l->next = newline ? newline + 1 : l->end;
        return buf;
}

static int load_path(struct loading *l, bool optional)
{
        _cleanup_free_ char *text = NULL;
        size_t len;
        int r;

        l->line = 0;
        l->unknown[0] = '\0';
        r = bl_fs_read_alloc(l->path, FILE_MAX_BYTES, &text, &len);
        if (r == -ENOMEM)
                return r;
        if (r == -ENOENT && optional) {
                report(l, LOG_WARNING, 0, "is a link to nowhere, ignoring it");
                return 0;
        }
        if (r < 0) {
                report(l, LOG_ERR, 0, "cannot be read: %s", strerror(-r));
                return r;
        }

        l->next = text;
        l->end = text + len;
        r = ini_parse_stream(next_line, l, on_setting, l);
        if (l->fatal < 0)
                return l->fatal;
        if (r > 0)
                report(l, LOG_ERR, (unsigned)r, "is neither a [section] nor \"key = value\" nor a # comment");
        return r < 0 ? -ENOMEM : 0;
}

/* Messages are in the report; a negative answer is for what ends the loading. */
static int load_file(struct loading *l, const char *path, bool optional)
{
        int r;

        l->path = path;
        r = load_path(l, optional);
        l->path = NULL;
        return r;
}

struct dropin {
        char *name;
        char *path;
};

struct dropins {
        struct dropin *d;
        size_t n;
};

static void dropins_clear(struct dropins *ds)
{
        for (size_t i = 0; i < ds->n; i++) {
                free(ds->d[i].name);
                free(ds->d[i].path);
        }
        free(ds->d);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct dropin *)a)->name, ((const struct dropin *)b)->name);
}

/* A file of a directory that wins over this one masks. */
static int add_dropin(struct dropins *ds, const char *dir, const char *name)
{
        struct dropin *more;
        char *path, *copy;

        for (size_t i = 0; i < ds->n; i++)
                if (strcmp(ds->d[i].name, name) == 0)
                        return 0;
        more = realloc(ds->d, (ds->n + 1) * sizeof *more);
        if (!more)
                return -ENOMEM;
        ds->d = more;
        copy = strdup(name);
        if (!copy || asprintf(&path, "%s/%s", dir, name) < 0) {
                free(copy);
                return -ENOMEM;
        }
        ds->d[ds->n++] = (struct dropin){.name = copy, .path = path};
        return 0;
}

static int collect_dropins(struct loading *l, const char *dir, struct dropins *ds)
{
        _cleanup_closedir_ DIR *d = opendir(dir);
        const struct dirent *e;

        if (!d) {
                const int r = -errno;

                if (r == -ENOENT)
                        return 0;
                l->path = dir;
                report(l, LOG_ERR, 0, "cannot be read: %s", strerror(-r));
                l->path = NULL;
                return r;
        }
        while ((e = readdir(d))) {
                const size_t len = strlen(e->d_name);
                int r;

                if (e->d_name[0] == '.' || len < sizeof ".conf" || strcmp(e->d_name + len - 5, ".conf") != 0)
                        continue;
                r = add_dropin(ds, dir, e->d_name);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int load_dropins(struct loading *l, struct dropins *ds)
{
        if (ds->n)
                qsort(ds->d, ds->n, sizeof *ds->d, by_name);
        for (size_t i = 0; i < ds->n; i++) {
                /* /dev/null is read as an empty file */
                const int r = load_file(l, ds->d[i].path, true);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int load_single(struct loading *l, const char *file)
{
        _cleanup_(dropins_clear) struct dropins ds = {0};
        char dir[PATH_MAX];
        int r, n;

        r = load_file(l, file, false);
        if (r < 0)
                return r;
        n = snprintf(dir, sizeof dir, "%s.d", file);
        if (n < 0 || (size_t)n >= sizeof dir)
                return -ENAMETOOLONG;
        r = collect_dropins(l, dir, &ds);
        return r < 0 ? r : load_dropins(l, &ds);
}

static int load_standard(struct loading *l, const char *root)
{
        _cleanup_(dropins_clear) struct dropins ds = {0};
        bool found = false;
        char dir[PATH_MAX], path[PATH_MAX + 32];
        int r;

        for (size_t i = 0; i < N_DIRECTORIES && !found; i++) {
                struct stat st;

                r = bl_path_join(dir, sizeof dir, root, directories[i]);
                if (r < 0)
                        return r;
                (void)snprintf(path, sizeof path, "%s/ballast.conf", dir);
                if (lstat(path, &st) < 0)
                        continue;
                found = true;
                r = load_file(l, path, true);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < N_DIRECTORIES; i++) {
                r = bl_path_join(dir, sizeof dir, root, directories[i]);
                if (r < 0)
                        return r;
                (void)snprintf(path, sizeof path, "%s/ballast.conf.d", dir);
                /* `l` names the file it reads only while it reads it */
                r = collect_dropins(l, path, &ds); // NOLINT(clang-analyzer-core.StackAddressEscape)
                if (r < 0)
                        return r;
        }
        return load_dropins(l, &ds);
}

int bl_conf_load(const struct bl_conf_paths *paths, struct bl_conf **ret, struct bl_conf_report *rep)
{
        _cleanup_(bl_conf_freep) struct bl_conf *c = NULL;
        struct loading l = {.report = rep};
        int r;

        r = bl_conf_new(&c);
        if (r < 0)
                return r;
        l.conf = c;

        r = paths->file ? load_single(&l, paths->file) : load_standard(&l, paths->root);
        if (r < 0)
                return r;

        for (size_t i = disordered(c, 0); i != SIZE_MAX; i = disordered(c, i + 1)) {
                const struct key *a = find_key(ordered[i].section, ordered[i].smaller);
                const struct key *b = find_key(ordered[i].section, ordered[i].larger);
                char x[BL_CONF_VALUE_MAX], y[BL_CONF_VALUE_MAX];

                format_value(a, c, x, sizeof x);
                format_value(b, c, y, sizeof y);
                /* the place of the smaller one if it was set, otherwise of the larger */
                l.path = c->source[a - keys] ? c->source[a - keys] : source_of(c, b);
                report(&l, LOG_ERR, 0, "[%s] %s = %s must not be larger than %s = %s (%s)", a->section, a->name, x,
                       b->name, y, source_of(c, b));
        }
        if (l.fatal < 0)
                return l.fatal;
        if (l.bad)
                return -EINVAL;
        *ret = BL_TAKE(c);
        return 0;
}
