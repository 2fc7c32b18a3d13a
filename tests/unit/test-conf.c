/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <syslog.h>

#include "daemon/conf.h"
#include "tests/unit/test-host-util.h"

static void report_clear(struct bl_conf_report *r)
{
        (void)bl_conf_report_clear(r);
}

#define _cleanup_report_ _cleanup_(report_clear)
#define _cleanup_conf_   _cleanup_(bl_conf_freep)

static int load(struct bl_conf **ret, struct bl_conf_report *rep)
{
        return bl_conf_load(&(struct bl_conf_paths){.root = test_root}, ret, rep);
}

/* Keys in tests are written as in older files: low_case; the table says LowCase. */
static bool is_key(const char *key, const char *low)
{
        for (; *low; low++)
                if (*low != '_' && tolower((unsigned char)*key++) != *low)
                        return false;
        return *key == '\0';
}

static const char *setting(const struct bl_conf *c, const char *key, struct bl_conf_setting *s)
{
        for (size_t i = 0; bl_conf_setting(c, i, s); i++)
                if (is_key(s->key, key))
                        return s->value;
        fail_msg("no setting %s", key);
        return NULL;
}

static void test_defaults(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        struct bl_conf_setting s;

        (void)state;
        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(rep.n, 0);
        assert_string_equal(c->libvirt_uri, "qemu:///system");
        assert_string_equal(c->libvirt_run_dir, "/run/libvirt/qemu");
        assert_string_equal(c->state_dir, "/var/lib/ballast");
        assert_string_equal(c->runtime_dir, "/run/ballast");
        assert_false(c->act);
        assert_true(c->manage_default);
        assert_true(c->psi);
        assert_int_equal(c->budget.kind, BL_BUDGET_RAM);
        assert_int_equal(c->stats_period, 2 * BL_SEC);
        assert_int_equal(c->default_reservation, 0);
        assert_int_equal(c->shares_per_mib, 10);
        assert_int_equal(c->sample_min, 20 * BL_MSEC);
        assert_int_equal(c->sample_max, BL_SEC);
        assert_int_equal(c->log_level, LOG_INFO);
        assert_int_equal(c->policy.min_free, BL_UNSET);
        assert_int_equal(c->policy.idle_tax, 7500);
        assert_false(c->policy.test.no_floors);
        for (size_t i = 0; bl_conf_setting(c, i, &s); i++) {
                assert_string_equal(s.source, "default");
                assert_true(*s.doc && *s.allowed);
                assert_true(*s.value || strcmp(s.key, "Disk") == 0 || strcmp(s.key, "DefaultGroup") == 0 ||
                            strcmp(s.key, "Group") == 0);
        }
}

static void test_all_kinds_of_values(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        struct bl_conf_setting s;
        char expected[PATH_MAX];

        (void)state;
        test_write("/etc/ballast/ballast.conf", "# comment\n"
                                                "; another\n"
                                                "[daemon]\n"
                                                "act=yes\n"
                                                "  log_level =\tdebug  \n"
                                                "libvirt_uri = test:///default ; why not\n"
                                                "\n"
                                                "[host]\r\n"
                                                "budget = 24G\r\n"
                                                "psi = off\n"
                                                "[vm]\n"
                                                "stats_period = 0\n"
                                                "shares_per_mib = 20\n"
                                                "[policy]\n"
                                                "min_free = 1.5G\n"
                                                "idle_tax = 50%\n"
                                                "retry_max = 1h\n"
                                                "[host]\n"
                                                "sample_min = 10ms"); /* no newline at the end */
        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(rep.n, 0);
        assert_true(c->act);
        assert_int_equal(c->log_level, LOG_DEBUG);
        assert_string_equal(c->libvirt_uri, "test:///default");
        assert_int_equal(c->budget.kind, BL_BUDGET_SIZE);
        assert_int_equal(c->budget.bytes, 24 * BL_GIB);
        assert_false(c->psi);
        assert_int_equal(c->stats_period, 0);
        assert_int_equal(c->shares_per_mib, 20);
        assert_int_equal(c->policy.min_free, 3 * BL_GIB / 2);
        assert_int_equal(c->policy.idle_tax, 5000);
        assert_int_equal(c->policy.retry_max, 3600 * BL_SEC);
        assert_int_equal(c->sample_min, 10 * BL_MSEC);

        assert_string_equal(setting(c, "min_free", &s), "1536M");
        (void)snprintf(expected, sizeof expected, "%s/etc/ballast/ballast.conf:15", test_root);
        assert_string_equal(s.source, expected);
        assert_string_equal(setting(c, "budget", &s), "24G");
        assert_string_equal(setting(c, "settle", &s), "10s");
        assert_string_equal(s.source, "default");
}

static void test_budgets(void **state)
{
        _cleanup_conf_ struct bl_conf *c = NULL;
        struct bl_conf_setting s;

        (void)state;
        assert_int_equal(bl_conf_new(&c), 0);
        assert_int_equal(bl_conf_set(c, "host", "budget", "75%", "test", NULL), 0);
        assert_int_equal(c->budget.kind, BL_BUDGET_PERCENT);
        assert_int_equal(c->budget.ratio, 7500);
        assert_string_equal(setting(c, "budget", &s), "75%");
        assert_int_equal(bl_conf_set(c, "host", "budget", "101%", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "host", "budget", "0%", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "host", "budget", "1M", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "host", "budget", "most", "test", NULL), -EINVAL);
        assert_int_equal(c->budget.kind, BL_BUDGET_PERCENT);
        assert_int_equal(bl_conf_set(c, "host", "budget", "RAM", "test", NULL), 0);
        assert_int_equal(c->budget.kind, BL_BUDGET_RAM);
}

static void test_sharing(void **state)
{
        _cleanup_conf_ struct bl_conf *c = NULL;
        _cleanup_free_ char *may = NULL;
        struct bl_conf_setting s;

        (void)state;
        assert_int_equal(bl_conf_new(&c), 0);
        assert_int_equal(c->share_mode, BL_SHARE_OFF);
        assert_string_equal(c->share_group, "");
        assert_int_equal(c->share_scan_cpu, 5);
        assert_int_equal(c->share_ksmd_cpu, BL_WHOLE);
        assert_false(c->share_host_knobs);
        assert_int_equal(bl_conf_set(c, "sharing", "mode", "GROUP", "test", NULL), 0);
        assert_int_equal(c->share_mode, BL_SHARE_GROUP);
        assert_string_equal(setting(c, "mode", &s), "group");
        assert_int_equal(bl_conf_set(c, "sharing", "mode", "yes", "test", &may), -EINVAL);
        assert_non_null(strstr(may, "off, zero or group"));
        assert_int_equal(c->share_mode, BL_SHARE_GROUP);
        assert_int_equal(bl_conf_set(c, "sharing", "mode", "", "test", NULL), 0);
        assert_int_equal(c->share_mode, BL_SHARE_OFF);
        assert_int_equal(bl_conf_set(c, "sharing", "group", "a b", "test", NULL), -EINVAL);
        assert_int_equal(bl_conf_set(c, "sharing", "scan_cpu", "0%", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "sharing", "scan_cpu", "0.01%", "test", NULL), 0);
        assert_int_equal(c->share_scan_cpu, 1);
        assert_int_equal(bl_conf_set(c, "sharing", "ksmd_cpu", "0.5%", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "sharing", "pays_at", "100K", "test", NULL), -ERANGE);
        assert_int_equal(bl_conf_set(c, "sharing", "pays_at", "16M", "test", NULL), 0);
        assert_int_equal(c->policy.share_pays, 16 * BL_MIB);
        assert_int_equal(bl_conf_set(c, "sharing", "wake_at", "64M", "test", NULL), 0);
        assert_int_equal(c->policy.share_wake, 64 * BL_MIB);
        assert_int_equal(bl_conf_set(c, "sharing", "reserve", "25%", "test", NULL), 0);
        assert_int_equal(c->policy.share_reserve, 2500);
}

static void test_directories_and_dropins(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        struct bl_conf_setting s;

        (void)state;
        /* the main file of /run wins over that of /usr/lib, wholly */
        test_write("/usr/lib/ballast/ballast.conf", "[vm]\nshares_per_mib=99\n[policy]\nsettle=99s\n");
        test_write("/run/ballast/ballast.conf", "[policy]\nsettle=1s\nstuck_after=1s\nretry_first=1s\n");
        /* in the order of names, over all directories */
        test_write("/usr/lib/ballast/ballast.conf.d/30-c.conf", "[policy]\nsettle=3s\n");
        test_write("/etc/ballast/ballast.conf.d/20-b.conf", "[policy]\nsettle=2s\nstuck_after=2s\n");
        /* masked by name */
        test_write("/usr/lib/ballast/ballast.conf.d/40-masked.conf", "[policy]\nsettle=4s\n");
        test_write("/run/ballast/ballast.conf.d/40-masked.conf", "[policy]\nsettle=5s\n");
        assert_int_equal(symlink("/dev/null", test_path("/etc/ballast/ballast.conf.d/40-masked.conf")), 0);
        test_write("/usr/lib/ballast/ballast.conf.d/50-replaced.conf", "[vm]\nmanage=no\n");
        test_write("/run/ballast/ballast.conf.d/50-replaced.conf", "[vm]\nreservation=1G\n");
        /* not read */
        test_write("/etc/ballast/ballast.conf.d/60-backup.conf~", "[policy]\nsettle=6s\n");
        test_write("/etc/ballast/ballast.conf.d/.70-hidden.conf", "[policy]\nsettle=7s\n");
        test_write("/etc/ballast/ballast.conf.d/README", "settle\n");

        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(rep.n, 0);
        assert_int_equal(c->policy.settle, 3 * BL_SEC);
        assert_int_equal(c->policy.stuck_after, 2 * BL_SEC);
        assert_int_equal(c->policy.retry_first, BL_SEC);
        assert_int_equal(c->shares_per_mib, 10);
        assert_true(c->manage_default);
        assert_int_equal(c->default_reservation, BL_GIB);
        (void)setting(c, "reservation", &s);
        assert_non_null(strstr(s.source, "/run/ballast/ballast.conf.d/50-replaced.conf:2"));
}

static void test_an_empty_value_is_the_default_again(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;

        (void)state;
        test_write("/etc/ballast/ballast.conf", "[policy]\nsettle = 1s\nmin_free = 1G\n[daemon]\nstate_dir=/x\n");
        test_write("/etc/ballast/ballast.conf.d/a.conf", "[policy]\nsettle =\nmin_free=\n[daemon]\nstate_dir=\n");
        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(c->policy.settle, 10 * BL_SEC);
        assert_int_equal(c->policy.min_free, BL_UNSET);
        assert_string_equal(c->state_dir, "/var/lib/ballast");
}

static void test_single_file(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        char file[PATH_MAX];

        (void)state;
        assert_int_equal(bl_path_join(file, sizeof file, test_root, "/my.conf"), 0);
        assert_int_equal(bl_conf_load(&(struct bl_conf_paths){.file = file}, &c, &rep), -ENOENT);
        assert_null(c);
        assert_int_equal(rep.n, 1);
        assert_int_equal(rep.messages[0].priority, LOG_ERR);
        assert_non_null(strstr(rep.messages[0].text, "/my.conf: cannot be read: No such file"));
        assert_null(bl_conf_report_clear(&rep));

        test_write("/my.conf", "[policy]\nsettle = 1s\n");
        test_write("/my.conf.d/x.conf", "[policy]\nstuck_after = 9s\n");
        assert_int_equal(bl_conf_load(&(struct bl_conf_paths){.file = file}, &c, &rep), 0);
        assert_int_equal(c->policy.settle, BL_SEC);
        assert_int_equal(c->policy.stuck_after, 9 * BL_SEC);
}

static void expect_message(const char *text, int r, int priority, const char *expected)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        char full[PATH_MAX];

        test_write("/etc/ballast/ballast.conf", text);
        assert_int_equal(load(&c, &rep), r);
        assert_true((r == 0) == (c != NULL));
        assert_int_equal(rep.n, 1);
        assert_int_equal(rep.messages[0].priority, priority);
        (void)snprintf(full, sizeof full, "%s/etc/ballast/ballast.conf%s", test_root, expected);
        assert_string_equal(rep.messages[0].text, full);
}

/* IdleTax, idle_tax, idletax: all the same, and so are sections. */
static void test_names_in_any_style(void **state)
{
        static const char *const styles[] = {"[Policy]\nIdleTax=5%\n", "[policy]\nidle_tax = 5%\n",
                                             "[POLICY]\nidletax=5%\n"};

        (void)state;
        for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
                _cleanup_report_ struct bl_conf_report rep = {0};
                _cleanup_conf_ struct bl_conf *c = NULL;

                test_write("/etc/ballast/ballast.conf", styles[i]);
                assert_int_equal(load(&c, &rep), 0);
                assert_int_equal(rep.n, 0);
                assert_int_equal(c->policy.idle_tax, 500);
        }
}

static void test_unknown_things_are_warned_of(void **state)
{
        (void)state;
        expect_message("[Policy]\n\nIdleTex = 5%\n", 0, LOG_WARNING,
                       ":3: unknown key IdleTex in [Policy], ignoring it; did you mean IdleTax?");
        expect_message("[Daemon]\nIdleTax = 5%\n", 0, LOG_WARNING,
                       ":2: unknown key IdleTax in [Daemon], ignoring it; it belongs in [Policy]");
        expect_message("[policy]\ncolour = blue\n", 0, LOG_WARNING, ":2: unknown key colour in [policy], ignoring it");
        expect_message("[policies]\nidle_tax = 5%\nsettle = x\n", 0, LOG_WARNING,
                       ":2: unknown section [policies], ignoring what is in it; did you mean [Policy]?");
        expect_message("act = yes\n", 0, LOG_WARNING, ":1: a setting before any [section], ignoring it");
        /* tests only: never from a file */
        expect_message("[policy]\nno_floors = yes\n", 0, LOG_WARNING,
                       ":2: unknown key no_floors in [policy], ignoring it");
}

static void test_bad_values_are_errors(void **state)
{
        (void)state;
        expect_message("[daemon]\nact = perhaps\n", -EINVAL, LOG_ERR, ":2: [daemon] act = perhaps: must be yes or no");
        expect_message("[policy]\nidle_tax = 175%\n", -EINVAL, LOG_ERR,
                       ":2: [policy] idle_tax = 175%: must be a percentage from 0% to 99%");
        expect_message("[policy]\nguest_margin = 64MB\n", -EINVAL, LOG_ERR,
                       ":2: [policy] guest_margin = 64MB: must be a size from 16M to 1T, as 512M or 1.5G");
        expect_message("[policy]\nmin_free = 5\n", -EINVAL, LOG_ERR,
                       ":2: [policy] min_free = 5: must be auto or a size from 1M to 1P, as 512M or 1.5G");
        expect_message("[vm]\nstats_period = 1500ms\n", -EINVAL, LOG_ERR,
                       ":2: [vm] stats_period = 1500ms: must be a time from 0 to 1h in whole seconds, as 500ms or 2s");
        expect_message("[host]\nsample_min = 1s # slow\n", -EINVAL, LOG_ERR,
                       ":2: [host] sample_min = 1s # slow: must be a time from 5ms to 1s, as 500ms or 2s "
                       "(a # comment needs a line of its own)");
        expect_message("[daemon]\nstate_dir = var\n", -EINVAL, LOG_ERR,
                       ":2: [daemon] state_dir = var: must be an absolute path of at most 255 characters");
        expect_message("[daemon]\nlog_level = loud\n", -EINVAL, LOG_ERR,
                       ":2: [daemon] log_level = loud: must be error, warning, notice, info or debug");
        expect_message("[vm]\nshares_per_mib = 0\n", -EINVAL, LOG_ERR,
                       ":2: [vm] shares_per_mib = 0: must be a whole number from 1 to 1000000");
        expect_message("[daemon]\nact = yes\nnonsense\n", -EINVAL, LOG_ERR,
                       ":3: is neither a [section] nor \"key = value\" nor a # comment");
        expect_message("[policy]\nretry_first = 20min\n", -EINVAL, LOG_ERR,
                       ":2: [Policy] RetryFirst = 20min must not be larger than RetryMax = 10min (default)");
}

static void test_all_messages_and_nothing_applied(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        struct bl_conf *c = NULL;

        (void)state;
        test_write("/etc/ballast/ballast.conf", "[policy]\nsettle = 1s\nretry_max = x\n[nope]\na=b\n");
        test_write("/etc/ballast/ballast.conf.d/a.conf", "[daemon]\nact = 7\n");
        assert_int_equal(load(&c, &rep), -EINVAL);
        assert_null(c);
        assert_int_equal(rep.n, 3);
        assert_non_null(strstr(rep.messages[0].text, "ballast.conf:3: "));
        assert_int_equal(rep.messages[1].priority, LOG_WARNING);
        assert_non_null(strstr(rep.messages[2].text, "a.conf:2: "));
}

static void test_hostile_files(void **state)
{
        static const char nul[] = "[daemon]\nact\0 = yes\nlog_level = debug\n";
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL;
        _cleanup_free_ char *big = malloc(2 << 20);
        char line[400];

        (void)state;
        assert_non_null(big);

        test_write_bytes("/etc/ballast/ballast.conf", nul, sizeof nul - 1);
        assert_int_equal(load(&c, &rep), -EINVAL);
        assert_non_null(strstr(rep.messages[0].text, ":2: a NUL byte in the line"));
        assert_null(bl_conf_report_clear(&rep));

        /* inih would take the rest of a long line for a line of its own */
        memset(line, 'x', sizeof line);
        memcpy(line, "[daemon]\nstate_dir = /", 22);
        memcpy(line + 250, "act = yes\n", 11);
        test_write("/etc/ballast/ballast.conf", line);
        assert_int_equal(load(&c, &rep), -EINVAL);
        assert_int_equal(rep.n, 1);
        assert_non_null(strstr(rep.messages[0].text, ":2: the line is longer than 198 characters"));
        assert_null(bl_conf_report_clear(&rep));

        memset(line, '#', 300);
        memcpy(line + 300, "\n[daemon]\nact = yes\n", 21);
        test_write("/etc/ballast/ballast.conf", line);
        assert_int_equal(load(&c, &rep), 0);
        assert_true(c->act);
        c = bl_conf_free(c);

        memset(big, '[', 2 << 20);
        test_write_bytes("/etc/ballast/ballast.conf", big, 2 << 20);
        assert_int_equal(load(&c, &rep), -EFBIG);
        assert_int_equal(rep.n, 1);
        assert_null(bl_conf_report_clear(&rep));

        /* many errors: not all are kept, but it is one */
        for (size_t i = 0; i < 1 << 16; i++)
                memcpy(big + i * 8, "act = x\n", 8);
        memcpy(big, "[daemon]\n#######", 16);
        test_write_bytes("/etc/ballast/ballast.conf", big, 8 << 16);
        assert_int_equal(load(&c, &rep), -EINVAL);
        assert_int_equal(rep.n, 200);
        assert_null(bl_conf_report_clear(&rep));

        /* a directory, and a link to nowhere */
        assert_int_equal(unlink(test_path("/etc/ballast/ballast.conf")), 0);
        assert_int_equal(bl_fs_mkdir_p(test_path("/etc/ballast/ballast.conf.d/dir.conf"), 0755), 0);
        assert_int_equal(load(&c, &rep), -EISDIR);
        assert_null(bl_conf_report_clear(&rep));
        assert_int_equal(rmdir(test_path("/etc/ballast/ballast.conf.d/dir.conf")), 0);
        assert_int_equal(symlink("/nowhere/at/all", test_path("/etc/ballast/ballast.conf.d/a.conf")), 0);
        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(rep.n, 1);
        assert_int_equal(rep.messages[0].priority, LOG_WARNING);
}

static void test_set(void **state)
{
        _cleanup_conf_ struct bl_conf *c = NULL;
        _cleanup_free_ char *message = NULL;
        struct bl_conf_setting s;

        (void)state;
        assert_int_equal(bl_conf_new(&c), 0);
        assert_int_equal(bl_conf_set(c, "daemon", "act", "yes", "ballastctl", NULL), 0);
        assert_true(c->act);
        assert_string_equal(setting(c, "act", &s), "yes");
        assert_string_equal(s.source, "ballastctl");
        assert_int_equal(bl_conf_set(c, "daemon", "acting", "yes", "x", &message), -ENOENT);
        assert_null(message);
        assert_int_equal(bl_conf_set(c, "daemon", "act", "7", "x", &message), -EINVAL);
        assert_string_equal(message, "[daemon] act = 7: must be yes or no");
        free(message);
        message = NULL;
        assert_true(c->act);
        (void)setting(c, "act", &s);
        assert_string_equal(s.source, "ballastctl");

        assert_int_equal(bl_conf_set(c, "host", "sample_max", "10ms", "x", &message), -EINVAL);
        assert_string_equal(message, "[Host] SampleMin must not be larger than SampleMax");
        assert_int_equal(c->sample_max, BL_SEC);
        (void)setting(c, "sample_max", &s);
        assert_string_equal(s.source, "default");
        assert_int_equal(bl_conf_set(c, "daemon", "act", "", NULL, NULL), 0);
        assert_false(c->act);
        (void)setting(c, "act", &s);
        assert_string_equal(s.source, "default");
}

/* A socket address has 108 bytes. */
static void test_runtime_dir_leaves_room_for_the_socket(void **state)
{
        _cleanup_conf_ struct bl_conf *c = NULL;
        char dir[128];

        (void)state;
        assert_int_equal(bl_conf_new(&c), 0);
        memset(dir, 'd', sizeof dir);
        dir[0] = '/';
        dir[107 - strlen("/ballast.sock")] = '\0';
        assert_int_equal(bl_conf_set(c, "daemon", "runtime_dir", dir, "x", NULL), 0);
        dir[107 - strlen("/ballast.sock")] = 'd';
        dir[107 - strlen("/ballast.sock") + 1] = '\0';
        assert_int_equal(bl_conf_set(c, "daemon", "runtime_dir", dir, "x", NULL), -ERANGE);
}

/* All of a text's white space made single blanks. */
static void flatten(char *text)
{
        char *to = text;

        for (const char *p = text; *p; p++)
                if (!isspace((unsigned char)*p))
                        *to++ = *p;
                else if (to > text && to[-1] != ' ')
                        *to++ = ' ';
        *to = '\0';
}

/* Each key is in the man page once, below its section and with its default; and no other is. */
static void test_man_page_has_exactly_the_keys(void **state)
{
        _cleanup_free_ char *man = NULL;
        _cleanup_conf_ struct bl_conf *c = NULL;
        struct bl_conf_setting s;
        const char *p;
        size_t n = 0, found = 0;

        (void)state;
        assert_int_equal(bl_fs_read_alloc("daemon/ballast.conf.5.scd", 1 << 20, &man, NULL), 0);
        flatten(man);
        assert_int_equal(bl_conf_new(&c), 0);
        for (; bl_conf_setting(c, n, &s); n++) {
                char pattern[BL_CONF_VALUE_MAX + 16];
                const char *section, *key, *def, *next;

                (void)snprintf(pattern, sizeof pattern, " # [%s] ", s.section);
                section = strstr(man, pattern);
                if (!section) {
                        fail_msg("ballast.conf(5) has no section [%s]", s.section);
                        return;
                }
                (void)snprintf(pattern, sizeof pattern, " *%s* = ", s.key);
                key = strstr(man, pattern);
                if (!key) {
                        fail_msg("ballast.conf(5) has no key %s", s.key);
                        return;
                }
                next = strstr(section + 2, " # ");
                if (key < section || (next && key > next))
                        fail_msg("ballast.conf(5) has %s in another section", s.key);
                (void)snprintf(pattern, sizeof pattern, "Default: %s.", s.value[0] ? s.value : "none");
                def = strstr(key, pattern);
                next = strstr(key + strlen(s.key) + 5, "* = ");
                if (!def || (next && def > next))
                        fail_msg("ballast.conf(5) does not say that %s is %s by default", s.key, s.value);
        }
        for (p = man; (p = strstr(p, "* = ")); p++)
                found++;
        assert_int_equal(found, n);
}

/* The shipped file with all its settings uncommented is exactly the defaults. */
static void test_shipped_file_has_exactly_the_keys(void **state)
{
        _cleanup_report_ struct bl_conf_report rep = {0};
        _cleanup_conf_ struct bl_conf *c = NULL, *shipped = NULL, *defaults = NULL;
        _cleanup_free_ char *text = NULL, *out = NULL;
        struct bl_conf_setting s, d;
        size_t n = 0, settings = 0;

        (void)state;
        assert_int_equal(bl_conf_load(&(struct bl_conf_paths){.file = "systemd/ballast.conf"}, &shipped, &rep), 0);
        assert_int_equal(rep.n, 0);

        assert_int_equal(bl_fs_read_alloc("systemd/ballast.conf", 1 << 20, &text, NULL), 0);
        out = calloc(1, strlen(text) + 1);
        assert_non_null(out);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                if (line[0] == '#' && isupper((unsigned char)line[1]) && strchr(line, '=')) {
                        line++;
                        settings++;
                }
                strcat(out, line);
                strcat(out, "\n");
        }
        test_write("/etc/ballast/ballast.conf", out);
        assert_int_equal(load(&c, &rep), 0);
        assert_int_equal(rep.n, 0);
        assert_int_equal(bl_conf_new(&defaults), 0);
        for (; bl_conf_setting(c, n, &s); n++) {
                assert_true(bl_conf_setting(defaults, n, &d));
                if (strcmp(s.source, "default") == 0)
                        fail_msg("systemd/ballast.conf has no %s", s.key);
                assert_string_equal(s.value, d.value);
                assert_true(bl_conf_setting(shipped, n, &s));
                assert_string_equal(s.source, "default");
        }
        assert_int_equal(settings, n);
}

static void test_free_is_null_safe(void **state)
{
        (void)state;
        assert_null(bl_conf_free(NULL));
        assert_null(bl_conf_report_clear(NULL));
}

#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, test_root_make, test_root_remove)

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_ROOT(test_defaults),
                IN_ROOT(test_all_kinds_of_values),
                cmocka_unit_test(test_budgets),
                cmocka_unit_test(test_sharing),
                IN_ROOT(test_directories_and_dropins),
                IN_ROOT(test_an_empty_value_is_the_default_again),
                IN_ROOT(test_single_file),
                IN_ROOT(test_names_in_any_style),
                IN_ROOT(test_unknown_things_are_warned_of),
                IN_ROOT(test_bad_values_are_errors),
                IN_ROOT(test_all_messages_and_nothing_applied),
                IN_ROOT(test_hostile_files),
                cmocka_unit_test(test_set),
                cmocka_unit_test(test_runtime_dir_leaves_room_for_the_socket),
                cmocka_unit_test(test_man_page_has_exactly_the_keys),
                IN_ROOT(test_shipped_file_has_exactly_the_keys),
                cmocka_unit_test(test_free_is_null_safe),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
