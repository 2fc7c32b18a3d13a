/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bus against a fake manager: who may do what, hostile clients, answers
 * that come late or never, the socket's file, the system bus.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>

#include <cmocka.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>

#include "daemon/bus/bus.h"
#include "daemon/bus/errors.h"
#include "daemon/bus/gate.h"
#include "daemon/bus/internal.h"
#include "daemon/bus/listen.h"
#include "daemon/bus/peer.h"
#include "tests/cli/fake-manager.h"

#define NOBODY     65534
#define TEST_GROUP 4242

static char dir[64];
static char path[100];

struct world {
        sd_event *event;
        struct bl_manager manager;
        struct bl_bus *bus;
        int notes;
        char note[256];
        int note_r;
};

static void on_note(void *userdata, int r, const char *sentence)
{
        struct world *w = userdata;

        w->notes++;
        w->note_r = r;
        (void)snprintf(w->note, sizeof(w->note), "%s", sentence);
}

static int setup_with(void **state, bool system_bus)
{
        struct world *w = calloc(1, sizeof(*w));
        struct bl_bus_options o = {
                .socket_path = path,
                .system_bus = system_bus,
                .group = TEST_GROUP,
                .mode = 0666, /* so that those who are refused get as far as being refused */
                .ops = &fake_ops,
                .note = on_note,
                .note_userdata = w,
        };

        assert_non_null(w);
        assert_true(sd_event_new(&w->event) >= 0);
        w->manager = (struct bl_manager){.event = w->event, .acting = true, .state = "clear"};
        assert_int_equal(bl_bus_new_with(w->event, &w->manager, &o, &w->bus), 0);
        *state = w;
        return 0;
}

static int setup(void **state)
{
        return setup_with(state, false);
}

static int teardown(void **state)
{
        struct world *w = *state;

        w->bus = bl_bus_free(w->bus);
        for (size_t i = 0; i < w->manager.n_mute; i++) /* later than the bus: must do nothing */
                w->manager.mute[i].done(w->manager.mute[i].userdata, 0, "too late");
        sd_event_unref(w->event);
        free(w);
        assert_int_equal(access(path, F_OK), -1);
        return 0;
}

/* Runs the loop for `ms`, or until `child` ends; its exit status then, else -1. */
static int run_loop(struct world *w, int ms, pid_t child)
{
        usec_t now, end;
        int status;

        assert_true(sd_event_now(w->event, CLOCK_MONOTONIC, &now) >= 0);
        end = now + (usec_t)ms * BL_MSEC;
        while (now < end) {
                assert_true(sd_event_run(w->event, 10 * BL_MSEC) >= 0);
                if (child > 0 && waitpid(child, &status, WNOHANG) == child)
                        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
                assert_true(sd_event_now(w->event, CLOCK_MONOTONIC, &now) >= 0);
        }
        return -1;
}

/* ---- a client, in a child process ---- */

static int raw_connect(void)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        return fd;
}

static sd_bus *client_connect(void)
{
        sd_bus *b = NULL;
        int fd = raw_connect();

        if (fd < 0 || sd_bus_new(&b) < 0 || sd_bus_set_fd(b, fd, fd) < 0 || sd_bus_start(b) < 0)
                _exit(99);
        return b;
}

static int call(sd_bus *b, const char *member, sd_bus_error *e, sd_bus_message **ret, const char *types, ...)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        va_list ap;
        int r;

        r = sd_bus_message_new_method_call(b, &m, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, member);
        if (r < 0)
                return r;
        if (types) {
                va_start(ap, types);
                r = sd_bus_message_appendv(m, types, ap);
                va_end(ap);
                if (r < 0)
                        return r;
        }
        return sd_bus_call(b, m, 5 * BL_SEC, e, ret);
}

/* Exit codes of the children: 0 as expected, otherwise the line. */
#define EXPECT(x)                                                               \
        do {                                                                    \
                if (!(x)) {                                                     \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
                        _exit(1);                                               \
                }                                                               \
        } while (0)

typedef void (*child_fn)(sd_bus *b);

static pid_t spawn(child_fn f, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups)
{
        pid_t pid = fork();

        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (uid != 0 &&
                    (setgroups(n_groups, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0))
                        _exit(98);
                f(client_connect());
                _exit(0);
        }
        assert_true(pid > 0);
        return pid;
}

static bool has_error(const sd_bus_error *e, const char *name)
{
        return e->name && strcmp(e->name, name) == 0;
}

/* ---- who may do what ---- */

static void may_read_and_change(sd_bus *b)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        const char *s = NULL;

        EXPECT(call(b, "List", &e, &m, NULL) >= 0);
        EXPECT(sd_bus_message_read_basic(m, 's', &s) > 0);
        EXPECT(strstr(s, "\"schema\":1"));
        m = sd_bus_message_unref(m);
        EXPECT(call(b, "Act", &e, &m, "b", 0) >= 0);
        EXPECT(sd_bus_message_read_basic(m, 's', &s) > 0);
        EXPECT(strcmp(s, "no longer acting") == 0);
}

static void may_only_read(sd_bus *b)
{
        static const struct {
                const char *member, *types;
        } changes[] = {{"Act", "b"}, {"Rollback", NULL}, {"Reload", NULL}};
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        const char *s = NULL;

        EXPECT(call(b, "Status", NULL, &m, NULL) >= 0);
        EXPECT(sd_bus_message_read_basic(m, 's', &s) > 0);
        for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
                _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;

                EXPECT(call(b, changes[i].member, &e, NULL, changes[i].types, 0) < 0);
                EXPECT(has_error(&e, "org.ballast1.Error.NotPermitted"));
                EXPECT(strstr(e.message, "only root"));
        }
        _cleanup_(sd_bus_error_free) sd_bus_error e1 = SD_BUS_ERROR_NULL, e2 = SD_BUS_ERROR_NULL,
                                                  e3 = SD_BUS_ERROR_NULL;
        EXPECT(call(b, "Hold", &e1, NULL, "sb", "", 1) < 0);
        EXPECT(has_error(&e1, "org.ballast1.Error.NotPermitted"));
        EXPECT(call(b, "Balloon", &e2, NULL, "stb", "web1", UINT64_C(1) << 30, 0) < 0);
        EXPECT(has_error(&e2, "org.ballast1.Error.NotPermitted"));
        EXPECT(call(b, "SetVm", &e3, NULL, "sa{sv}bb", "web1", 1, "Shares", "t", UINT64_C(5), 1, 1) < 0);
        EXPECT(has_error(&e3, "org.ballast1.Error.NotPermitted"));
}

static void may_nothing(sd_bus *b)
{
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL, e2 = SD_BUS_ERROR_NULL;
        int acting = 0;

        EXPECT(call(b, "Status", &e, NULL, NULL) < 0);
        EXPECT(has_error(&e, "org.ballast1.Error.NotPermitted"));
        EXPECT(strstr(e.message, "group 'ballast'"));
        EXPECT(sd_bus_get_property_trivial(b, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, "Acting", &e2, 'b', &acting) <
               0);
        EXPECT(has_error(&e2, "org.ballast1.Error.NotPermitted"));
}

static void test_root(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(may_read_and_change, 0, 0, NULL, 0)), 0);
        assert_int_equal(w->manager.changes, 1);
        assert_false(w->manager.acting);
}

static void test_supplementary_group(void **state)
{
        const gid_t groups[] = {100, TEST_GROUP, 5000};
        struct world *w = *state;

        if (geteuid() != 0)
                skip();
        assert_int_equal(run_loop(w, 20000, spawn(may_only_read, NOBODY, NOBODY, groups, 3)), 0);
        assert_int_equal(w->manager.changes, 0);
}

static void test_primary_group(void **state)
{
        struct world *w = *state;

        if (geteuid() != 0)
                skip();
        assert_int_equal(run_loop(w, 20000, spawn(may_only_read, NOBODY, TEST_GROUP, NULL, 0)), 0);
        assert_int_equal(w->manager.changes, 0);
}

static void test_many_groups(void **state)
{
        struct world *w = *state;
        gid_t groups[300];

        if (geteuid() != 0)
                skip();
        for (size_t i = 0; i < 300; i++)
                groups[i] = (gid_t)(10000 + i);
        groups[299] = TEST_GROUP;
        assert_int_equal(run_loop(w, 20000, spawn(may_only_read, NOBODY, NOBODY, groups, 300)), 0);
}

static void test_stranger(void **state)
{
        const gid_t groups[] = {100, 5000};
        struct world *w = *state;

        if (geteuid() != 0)
                skip();
        assert_int_equal(run_loop(w, 20000, spawn(may_nothing, NOBODY, NOBODY, groups, 2)), 0);
        assert_int_equal(w->manager.changes, 0);
        assert_int_equal(w->manager.reads, 1); /* the bus's own, at its start */
}

static void test_access(void **state)
{
        const gid_t groups[] = {1, 2, 3};

        (void)state;
        assert_int_equal(bl_access_for(0, NULL, 0, BL_BUS_NO_GROUP), BL_ACCESS_CHANGE);
        assert_int_equal(bl_access_for(7, groups, 3, 3), BL_ACCESS_READ);
        assert_int_equal(bl_access_for(7, groups, 2, 3), BL_ACCESS_NONE);
        assert_int_equal(bl_access_for(7, groups, 3, BL_BUS_NO_GROUP), BL_ACCESS_NONE);
        /* a process may not be in group -1, but would it be, it is not "no group" */
        assert_int_equal(bl_access_for(7, (const gid_t[]){BL_BUS_NO_GROUP}, 1, BL_BUS_NO_GROUP), BL_ACCESS_NONE);
}

/* ---- calls and answers ---- */

static void calls(sd_bus *b)
{
        static const char *const documents[] = {"Status", "List", "Tiers", "Plan", "Config"};
        const char *s = NULL;

        for (size_t i = 0; i < 4; i++) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
                json_t *doc;

                EXPECT(call(b, documents[i], NULL, &m, NULL) >= 0);
                EXPECT(sd_bus_message_read_basic(m, 's', &s) > 0);
                doc = json_loads(s, 0, NULL);
                EXPECT(json_integer_value(json_object_get(doc, "schema")) == BL_SCHEMA_VERSION);
                json_decref(doc);
        }
#define FAILS(error, member, ...)                                       \
        do {                                                            \
                sd_bus_error e = SD_BUS_ERROR_NULL;                     \
                EXPECT(call(b, member, &e, NULL, __VA_ARGS__) < 0);     \
                if (!has_error(&e, error))                              \
                        fprintf(stderr, "%s: %s\n", e.name, e.message); \
                EXPECT(has_error(&e, error));                           \
                sd_bus_error_free(&e);                                  \
        } while (0)
        FAILS("org.ballast1.Error.NoSuchVm", "Show", "s", "none-such");
        FAILS("org.ballast1.Error.InvalidArgument", "Show", "s", "");
        FAILS("org.ballast1.Error.NoSuchVm", "Explain", "s", "none-such");
        FAILS("org.ballast1.Error.NoSuchVm", "Hold", "sb", "none-such", 1);
        FAILS("org.ballast1.Error.Busy", "Hold", "sb", "busy", 1);
        FAILS("org.ballast1.Error.OutOfRange", "Balloon", "stb", "web1", UINT64_C(0), 0);
        FAILS("org.ballast1.Error.InvalidArgument", "Reload", NULL);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Nonsense", "t", UINT64_C(5), 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Limit", "s", "5", 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Managed", "t", UINT64_C(1), 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Sharing", "s", "yes", 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Sharing", "b", 1, 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 0, 1, 1);
        FAILS("org.ballast1.Error.InvalidArgument", "SetVm", "sa{sv}bb", "web1", 1, "Shares", "t", UINT64_C(5), 0, 0);
        FAILS("org.ballast1.Error.OutOfRange", "SetVm", "sa{sv}bb", "web1", 2, "Limit", "t", UINT64_C(5), "Reservation",
              "t", UINT64_C(6), 1, 1);
        FAILS("org.freedesktop.DBus.Error.UnknownMethod", "NoSuchMethod", NULL);
        FAILS("org.freedesktop.DBus.Error.InvalidArgs", "Act", "s", "on");
        EXPECT(call(b, "SetVm", NULL, NULL, "sa{sv}bb", "web1", 5, "Reservation", "t", UINT64_C(11), "Managed", "b", 1,
                    "Shares", "t", UINT64_C(13), "Sharing", "s", "zero", "Group", "s", "web", 1, 0) >= 0);
        EXPECT(call(b, "Balloon", NULL, NULL, "stb", "slow", UINT64_C(17), 1) >= 0);
}

static void test_calls(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(calls, 0, 0, NULL, 0)), 0);
        assert_int_equal(w->manager.last_set.reservation, 11);
        assert_int_equal(w->manager.last_set.shares, 13);
        assert_true(w->manager.last_set.limit == BL_UNSET);
        assert_int_equal(w->manager.last_set.managed, 1);
        assert_int_equal(w->manager.last_set.sharing, BL_SHARE_ZERO);
        assert_string_equal(w->manager.last_set.group, "web");
        assert_true(w->manager.last_live);
        assert_false(w->manager.last_persistent);
        assert_int_equal(w->manager.last_bytes, 17);
        assert_true(w->manager.last_take);
}

static void introspects(sd_bus *b)
{
        static const char *const words[] = {
                "<interface name=\"org.ballast1.Manager\">",
                "name=\"SetVm\"",
                "type=\"a{sv}\" name=\"settings\"",
                "<signal name=\"HostStateChanged\">",
                "name=\"Metrics\"",
                "<property name=\"HostState\" type=\"s\"",
        };
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *all = NULL;
        const char *s = NULL, *key;
        int n = 0;

        EXPECT(sd_bus_call_method(b, BL_BUS_NAME, BL_BUS_PATH, "org.freedesktop.DBus.Introspectable", "Introspect",
                                  NULL, &m, "") >= 0);
        EXPECT(sd_bus_message_read_basic(m, 's', &s) > 0);
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                if (!strstr(s, words[i]))
                        fprintf(stderr, "%s not in %s\n", words[i], s);
                EXPECT(strstr(s, words[i]));
        }
        EXPECT(sd_bus_call_method(b, BL_BUS_NAME, BL_BUS_PATH, "org.freedesktop.DBus.Properties", "GetAll", NULL, &all,
                                  "s", BL_BUS_INTERFACE) >= 0);
        EXPECT(sd_bus_message_enter_container(all, 'a', "{sv}") > 0);
        while (sd_bus_message_enter_container(all, 'e', "sv") > 0) {
                EXPECT(sd_bus_message_read_basic(all, 's', &key) > 0);
                if (strcmp(key, "HostState") == 0) {
                        EXPECT(sd_bus_message_read(all, "v", "s", &s) > 0);
                        EXPECT(strcmp(s, "clear") == 0);
                } else if (strcmp(key, "BudgetBytes") == 0) {
                        uint64_t t = 0;

                        EXPECT(sd_bus_message_read(all, "v", "t", &t) > 0);
                        EXPECT(t == 24 * BL_GIB);
                } else
                        EXPECT(sd_bus_message_skip(all, "v") > 0);
                EXPECT(sd_bus_message_exit_container(all) > 0);
                n++;
        }
        EXPECT(n == 7);
}

static void test_introspection(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(introspects, 0, 0, NULL, 0)), 0);
        assert_true(w->manager.reads <= 2); /* one document for GetAll, one at the start */
}

static void waits_for_signals(sd_bus *b)
{
        bool state = false, acting = false, host = false;

        EXPECT(call(b, "Status", NULL, NULL, NULL) >= 0);
        EXPECT(call(b, "Act", NULL, NULL, "b", 0) >= 0);
        for (int i = 0; i < 100 && !(state && acting && host); i++) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

                EXPECT(sd_bus_process(b, &m) >= 0);
                if (!m) {
                        EXPECT(sd_bus_wait(b, 100 * BL_MSEC) >= 0);
                        continue;
                }
                if (sd_bus_message_is_signal(m, BL_BUS_INTERFACE, "HostStateChanged") > 0) {
                        const char *from = NULL, *to = NULL;

                        EXPECT(sd_bus_message_read(m, "ss", &from, &to) > 0);
                        EXPECT(strcmp(from, "clear") == 0 && strcmp(to, "soft") == 0);
                        state = true;
                } else if (sd_bus_message_is_signal(m, "org.freedesktop.DBus.Properties", "PropertiesChanged") > 0) {
                        const char *interface = NULL, *key = NULL, *value = NULL;
                        int on = 1;

                        EXPECT(sd_bus_message_read(m, "s", &interface) > 0);
                        EXPECT(sd_bus_message_enter_container(m, 'a', "{sv}") > 0);
                        EXPECT(sd_bus_message_enter_container(m, 'e', "sv") > 0);
                        EXPECT(sd_bus_message_read(m, "s", &key) > 0);
                        if (strcmp(key, "Acting") == 0) {
                                EXPECT(sd_bus_message_read(m, "v", "b", &on) > 0);
                                acting = acting || !on;
                        } else if (strcmp(key, "HostState") == 0) {
                                EXPECT(sd_bus_message_read(m, "v", "s", &value) > 0);
                                EXPECT(strcmp(value, "soft") == 0);
                                host = true;
                        }
                }
        }
        EXPECT(state && acting && host);
}

static void test_signals(void **state)
{
        struct world *w = *state;
        pid_t pid = spawn(waits_for_signals, 0, 0, NULL, 0);

        for (int i = 0; i < 100 && w->manager.changes == 0; i++)
                (void)run_loop(w, 20, 0);
        assert_int_equal(w->manager.changes, 1);
        w->manager.state = "soft";
        bl_bus_state_changed(w->bus, "clear", "soft");
        assert_int_equal(run_loop(w, 20000, pid), 0);
        bl_bus_state_changed(NULL, "clear", "soft");
        bl_bus_refresh(NULL);
}

/* ---- those who leave, and those who never get an answer ---- */

static void asks_and_leaves(sd_bus *b)
{
        sd_bus_message *m = NULL;
        uint64_t cookie;

        for (int i = 0; i < 20; i++) {
                EXPECT(sd_bus_message_new_method_call(b, &m, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, "Hold") >= 0);
                EXPECT(sd_bus_message_append(m, "sb", i % 2 ? "mute" : "slow", 1) >= 0);
                EXPECT(sd_bus_send(b, m, &cookie) >= 0);
        }
        EXPECT(sd_bus_flush(b) >= 0);
        EXPECT(call(b, "Status", NULL, NULL, NULL) >= 0);
}

static void test_answer_after_leaving(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(asks_and_leaves, 0, 0, NULL, 0)), 0);
        (void)run_loop(w, 500, 0); /* the slow answers come now */
        assert_int_equal(w->bus->n_clients, 0);
        assert_int_equal(w->manager.n_mute, 10);
        for (size_t i = 0; i < 5; i++)
                w->manager.mute[i].done(w->manager.mute[i].userdata, -EIO, NULL);
        memmove(w->manager.mute, w->manager.mute + 5, 5 * sizeof(w->manager.mute[0]));
        w->manager.n_mute = 5; /* the rest is answered after the bus has gone: teardown */
}

static void asks_too_much(sd_bus *b)
{
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        sd_bus_message *m = NULL;
        uint64_t cookie;

        for (int i = 0; i < 128; i++) {
                EXPECT(sd_bus_message_new_method_call(b, &m, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, "Hold") >= 0);
                EXPECT(sd_bus_message_append(m, "sb", "mute", 1) >= 0);
                EXPECT(sd_bus_send(b, m, &cookie) >= 0);
        }
        EXPECT(call(b, "Hold", &e, NULL, "sb", "mute", 1) < 0);
        EXPECT(has_error(&e, "org.ballast1.Error.Busy"));
}

static void test_pending_is_bounded(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(asks_too_much, 0, 0, NULL, 0)), 0);
        assert_int_equal(w->manager.n_mute, 128);
}

/* ---- hostile clients ---- */

/* A good client is still served while `fds` do what they do. */
static void still_serves(struct world *w)
{
        assert_int_equal(run_loop(w, 20000, spawn(introspects, 0, 0, NULL, 0)), 0);
}

/* What the daemon does with it: true when it hangs up. */
static bool hangs_up(struct world *w, int fd)
{
        char buf[4096];

        for (int i = 0; i < 50; i++) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                ssize_t n;

                (void)run_loop(w, 10, 0);
                if (poll(&p, 1, 0) <= 0)
                        continue;
                n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return true;
        }
        return false;
}

#define HELLO "\0AUTH EXTERNAL 30\r\nBEGIN\r\n"

static int hostile(const void *data, size_t n)
{
        int fd = raw_connect();

        assert_true(fd >= 0);
        assert_int_equal(send(fd, data, n, MSG_NOSIGNAL), n);
        return fd;
}

static void test_garbage(void **state)
{
        struct world *w = *state;
        static const struct {
                const char *data;
                size_t n;
        } all[] = {
#define DATA(s) {s, sizeof(s) - 1}
                DATA("GET / HTTP/1.1\r\n\r\n"),
                DATA("\0GET / HTTP/1.1\r\n\r\n"),
                DATA("\0BEGIN\r\n"),
                DATA("\0DATA\r\n"),
                DATA("\0AUTH ANONYMOUS\r\nBEGIN\r\n"),
                DATA("\0AUTH EXTERNAL\r\nDATA\r\nCANCEL\r\nBEGIN\r\n"),
                DATA("\0\0\0\0\0\0\0"),
                DATA("\0\r\n"),
                DATA(HELLO "xxxxxxxxxxxxxxxx"),
                /* 128 MiB are announced */
                DATA(HELLO "l\1\0\1\0\0\0\x08\1\0\0\0\0\0\0\0"),
                DATA(HELLO "l\1\0\1\0\0\0\0\1\0\0\0\xff\xff\xff\xff"),
                DATA(HELLO "B\1\0\1\0\1\0\1\0\0\0\1\0\0\0\0"),
                DATA(HELLO "l\1\0\2\0\0\0\0\1\0\0\0\x08\0\0\0abcdefgh"),
#undef DATA
        };

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
                int fd = hostile(all[i].data, all[i].n);

                if (!hangs_up(w, fd))
                        fail_msg("garbage %zu is not answered by hanging up", i);
                (void)close(fd);
        }
        /* well framed, nonsense inside: sd-bus drops the message */
        static const char nonsense[] = HELLO "l\1\0\1\0\0\0\0\1\0\0\0\x08\0\0\0abcdefgh";
        int fd = hostile(nonsense, sizeof(nonsense) - 1);
        assert_false(hangs_up(w, fd));
        (void)close(fd);
        (void)run_loop(w, 50, 0);
        assert_int_equal(w->bus->n_clients, 0);
        still_serves(w);
}

static void test_half_open(void **state)
{
        struct world *w = *state;
        int quiet = raw_connect(), half = hostile("\0AUTH EXT", 9), shut = hostile(HELLO, sizeof(HELLO) - 1);

        assert_int_equal(shutdown(shut, SHUT_WR), 0);
        assert_true(hangs_up(w, shut));
        still_serves(w);
        (void)run_loop(w, 50, 0);
        assert_int_equal(w->bus->n_clients, 2);
        (void)close(quiet);
        (void)close(half);
        (void)close(shut);
        (void)run_loop(w, 50, 0);
        assert_int_equal(w->bus->n_clients, 0);
}

/* Byte by byte it is the same conversation. */
static void test_slow_writer(void **state)
{
        static const char hello[] = "\0AUTH\r\nAUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";
        static const char answer[] = "REJECTED EXTERNAL ANONYMOUS\r\nDATA\r\nOK ";
        struct world *w = *state;
        int fd = raw_connect();
        char buf[256] = "";

        for (size_t i = 0; i < sizeof(hello) - 1; i++) {
                assert_int_equal(send(fd, hello + i, 1, MSG_NOSIGNAL), 1);
                (void)run_loop(w, 1, 0);
        }
        (void)run_loop(w, 50, 0);
        assert_true(recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT) > 0);
        assert_memory_equal(buf, answer, sizeof(answer) - 1);
        assert_non_null(strstr(buf, "\r\nERROR\r\n")); /* no descriptors are taken */
        assert_int_equal(w->bus->n_clients, 1);
        (void)close(fd);
}

/* Asks for more and more and reads nothing: is dropped, in bounded memory. */
static void never_reads(sd_bus *b)
{
        sd_bus_message *m = NULL;
        uint64_t cookie;
        int r = 0;

        for (int i = 0; i < 20000 && r >= 0; i++) {
                EXPECT(sd_bus_message_new_method_call(b, &m, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, "List") >= 0);
                r = sd_bus_send(b, m, &cookie);
                sd_bus_message_unref(m);
                if (r >= 0)
                        r = sd_bus_flush(b);
        }
        /* the requests themselves may all fit into the socket */
        struct pollfd p = {.fd = sd_bus_get_fd(b)};
        EXPECT(r < 0 || (poll(&p, 1, 10000) == 1 && (p.revents & POLLHUP)));
}

static void test_slow_reader(void **state)
{
        struct world *w = *state;

        assert_int_equal(run_loop(w, 20000, spawn(never_reads, 0, 0, NULL, 0)), 0);
        (void)run_loop(w, 50, 0);
        assert_int_equal(w->bus->n_clients, 0);
        assert_true(w->manager.reads < 2000);
        still_serves(w);
}

static void test_hundred_connections(void **state)
{
        struct world *w = *state;
        int fds[100];

        for (size_t i = 0; i < 100; i++) {
                fds[i] = raw_connect();
                assert_true(fds[i] >= 0);
                (void)run_loop(w, 1, 0);
        }
        (void)run_loop(w, 100, 0);
        assert_int_equal(w->bus->n_clients, BL_BUS_MAX_CLIENTS);
        assert_int_equal(w->notes, 1); /* said once, not 36 times */
        assert_true(hangs_up(w, fds[99]));
        (void)close(fds[0]);
        (void)run_loop(w, 50, 0);
        still_serves(w);
        for (size_t i = 1; i < 100; i++)
                (void)close(fds[i]);
        (void)run_loop(w, 200, 0);
        assert_int_equal(w->bus->n_clients, 0);
}

static void opens_a_hundred(sd_bus *b)
{
        (void)b;
        for (int i = 0; i < 100; i++)
                EXPECT(raw_connect() >= 0);
        (void)sleep(30);
}

static void test_root_is_not_locked_out(void **state)
{
        struct world *w = *state;
        pid_t pids[4];

        if (geteuid() != 0)
                skip();
        for (uid_t i = 0; i < 4; i++)
                pids[i] = spawn(opens_a_hundred, 1000 + i, TEST_GROUP, NULL, 0);
        for (int i = 0; i < 200 && w->bus->n_clients < BL_BUS_MAX_READERS; i++)
                (void)run_loop(w, 10, 0);
        (void)run_loop(w, 200, 0);
        assert_int_equal(w->bus->n_clients, BL_BUS_MAX_READERS);
        still_serves(w);
        for (size_t i = 0; i < 4; i++) {
                (void)kill(pids[i], SIGKILL);
                assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        }
}

/* ---- the gate's parser ---- */

static void test_gate_pieces(void **state)
{
        static const char in[] = "\0AUTH EXTERNAL 31303030\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
                                 "l\1\0\1\3\0\0\0\1\0\0\0\1\0\0\0abcdefgh123"
                                 "B\1\0\1\0\0\0\0\0\0\0\1\0\0\0\0";
        static const char want[] = "\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
                                   "l\1\0\1\3\0\0\0\1\0\0\0\1\0\0\0abcdefgh123"
                                   "B\1\0\1\0\0\0\0\0\0\0\1\0\0\0\0";

        (void)state;
        for (size_t step = 1; step < sizeof(in); step++) {
                struct bl_gate_parser p = {0};
                uint8_t got[256], out[BL_GATE_OUT(sizeof(in))];
                size_t n_got = 0;

                for (size_t i = 0; i < sizeof(in) - 1; i += step) {
                        size_t n = sizeof(in) - 1 - i < step ? sizeof(in) - 1 - i : step;
                        ssize_t r = bl_gate_parse(&p, (const uint8_t *)in + i, n, out);

                        assert_true(r >= 0 && (size_t)r <= BL_GATE_OUT(n));
                        memcpy(got + n_got, out, (size_t)r);
                        n_got += (size_t)r;
                }
                assert_int_equal(n_got, sizeof(want) - 1);
                assert_memory_equal(got, want, n_got);
        }
}

static void test_gate_bounds(void **state)
{
        struct bl_gate_parser p = {0};
        uint8_t in[BL_GATE_AUTH_MAX * 2], out[BL_GATE_OUT(sizeof(in))];
        uint8_t head[16] = {'l', 1, 0, 1, 0xf0, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};

        (void)state;
        memset(in, 'A', sizeof(in));
        in[0] = 0;
        assert_int_equal(bl_gate_parse(&p, in, sizeof(in), out), -EBADMSG); /* a line without end */
        p = (struct bl_gate_parser){0};
        for (size_t i = 1; i + 6 <= sizeof(in); i += 6)
                memcpy(in + i, "AUTH\r\n", 6);
        assert_int_equal(bl_gate_parse(&p, in, sizeof(in), out), -EMSGSIZE); /* a dialogue without end */
        /* 65536 bytes in all pass, one more does not */
        p = (struct bl_gate_parser){.started = true, .mechanism = true, .running = true};
        assert_int_equal(bl_gate_parse(&p, head, 16, out), 16);
        assert_int_equal(p.body_left, 65520);
        p = (struct bl_gate_parser){.started = true, .mechanism = true, .running = true};
        head[4]++;
        assert_int_equal(bl_gate_parse(&p, head, 16, out), -EMSGSIZE);
        head[3] = 2;
        p = (struct bl_gate_parser){.started = true, .mechanism = true, .running = true};
        assert_int_equal(bl_gate_parse(&p, head, 16, out), -EBADMSG);
}

/* ---- the socket's file ---- */

static void test_listener(void **state)
{
        struct bl_listener *l = NULL, *other = NULL;
        char lock[160];
        struct stat st;
        int fd;

        (void)state;
        /* left by a killed daemon */
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        (void)close(fd);
        assert_int_equal(access(path, F_OK), 0);
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        fd = raw_connect();
        assert_true(fd >= 0);
        (void)close(fd);
        /* a living one */
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &other), -EADDRINUSE);
        assert_null(other);
        /* also when its lock file was removed by somebody tidy */
        (void)snprintf(lock, sizeof(lock), "%s.lock", path);
        assert_int_equal(unlink(lock), 0);
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &other), -EADDRINUSE);
        fd = raw_connect();
        assert_true(fd >= 0);
        (void)close(fd);
        l = bl_listener_free(l);
        assert_int_equal(access(path, F_OK), -1);
        /* another's file is not removed */
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l), 0);
        assert_int_equal(unlink(path), 0);
        fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
        assert_true(fd >= 0);
        (void)close(fd);
        l = bl_listener_free(l);
        assert_int_equal(access(path, F_OK), 0);
        /* and something that is no socket is not replaced */
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l), -EEXIST);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(bl_listener_new("/none/such/dir/sock", BL_BUS_NO_GROUP, 0600, &l), -ENOENT);
        char longer[300];
        memset(longer, 'a', sizeof(longer) - 1);
        longer[0] = '/';
        longer[299] = 0;
        assert_int_equal(bl_listener_new(longer, BL_BUS_NO_GROUP, 0600, &l), -ENAMETOOLONG);
        assert_null(bl_listener_free(NULL));
        if (geteuid() == 0) {
                assert_int_equal(bl_listener_new(path, TEST_GROUP, 0660, &l), 0);
                assert_int_equal(stat(path, &st), 0);
                assert_int_equal(st.st_mode & 07777, 0660);
                assert_int_equal(st.st_gid, TEST_GROUP);
                l = bl_listener_free(l);
        }
}

/* Without CAP_CHOWN the socket is for root alone, rather than not there. */
static void test_no_chown(void **state)
{
        struct bl_listener *l = NULL;
        struct stat st;
        pid_t pid;
        int status;

        (void)state;
        if (geteuid() != 0)
                skip();
        pid = fork();
        if (pid == 0) {
                struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
                struct __user_cap_data_struct d[2] = {0};

                EXPECT(syscall(SYS_capget, &h, d) == 0);
                d[0].effective &= ~(1U << CAP_CHOWN);
                EXPECT(syscall(SYS_capset, &h, d) == 0);
                EXPECT(bl_listener_new(path, TEST_GROUP, 0660, &l) == 0);
                EXPECT(!bl_listener_has_group(l));
                EXPECT(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
                l = bl_listener_free(l);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

/* kill -9 leaves the file; the next daemon takes the place */
static void test_killed(void **state)
{
        struct bl_listener *l = NULL;
        int ready[2];
        char c;
        pid_t pid;

        (void)state;
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                if (bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l) < 0)
                        _exit(1);
                (void)!write(ready[1], "x", 1);
                (void)pause();
        }
        assert_int_equal(read(ready[0], &c, 1), 1);
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l), -EADDRINUSE);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(access(path, F_OK), 0);
        assert_int_equal(bl_listener_new(path, BL_BUS_NO_GROUP, 0600, &l), 0);
        l = bl_listener_free(l);
        (void)close(ready[0]);
        (void)close(ready[1]);
}

/* ---- errors ---- */

static void test_errors(void **state)
{
        (void)state;
        for (int e = 1; e < 134; e++) {
                const char *name = bl_bus_error_name(-e);

                assert_non_null(name);
                assert_int_equal(strncmp(name, BL_BUS_ERROR_PREFIX, strlen(BL_BUS_ERROR_PREFIX)), 0);
                assert_string_equal(name, bl_bus_error_name(e));
                if (strcmp(name, BL_BUS_ERROR_PREFIX "Failed") != 0)
                        assert_string_equal(bl_bus_error_name(bl_bus_error_errno(name)), name);
                assert_non_null(bl_bus_error_sentence(-e));
        }
        assert_int_equal(bl_bus_error_errno("org.ballast1.Error.NoSuchVm"), -ENOENT);
        assert_int_equal(bl_bus_error_errno("org.ballast1.Error.NotPermitted"), -EPERM);
        assert_int_equal(bl_bus_error_errno("com.example.Other"), -EIO);
        assert_int_equal(bl_bus_error_errno(NULL), -EIO);
        assert_non_null(bl_bus_error_sentence(123456));
}

/* ---- the system bus: a private dbus-daemon ---- */

static pid_t start_broker(const char *address)
{
        char config[128], option[160];
        pid_t pid;
        FILE *f;

        (void)snprintf(config, sizeof(config), "%s/bus.conf", dir);
        f = fopen(config, "we");
        assert_non_null(f);
        fprintf(f,
                "<busconfig><type>system</type><listen>%s</listen><auth>EXTERNAL</auth><policy context='default'>"
                "<allow user='*'/><allow own='*'/><allow send_type='method_call'/><allow send_type='signal'/>"
                "<allow send_requested_reply='true' send_type='method_return'/>"
                "<allow send_requested_reply='true' send_type='error'/>"
                "<allow receive_type='method_call'/><allow receive_type='method_return'/>"
                "<allow receive_type='error'/><allow receive_type='signal'/></policy></busconfig>",
                address);
        (void)fclose(f);
        (void)snprintf(option, sizeof(option), "--config-file=%s", config);
        pid = fork();
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
                execlp("dbus-daemon", "dbus-daemon", option, "--nofork", "--nopidfile", NULL);
                _exit(127);
        }
        return pid;
}

static void stop_broker(pid_t pid)
{
        (void)kill(pid, SIGTERM);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static char broker_socket[128];

static bool wait_note(struct world *w, const char *word)
{
        for (int i = 0; i < 500; i++) {
                (void)run_loop(w, 10, 0);
                if (strstr(w->note, word))
                        return true;
        }
        return false;
}

typedef void (*system_fn)(sd_bus *b);

static int as_user_on_system_bus(struct world *w, system_fn f, uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
        pid_t pid = fork();

        if (pid == 0) {
                sd_bus *b = NULL;

                if (uid != 0 &&
                    (setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0))
                        _exit(98);
                if (sd_bus_open_system(&b) < 0)
                        _exit(97);
                f(b);
                _exit(0);
        }
        return run_loop(w, 20000, pid);
}

static void may_nothing_on_system_bus(sd_bus *b)
{
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL, e2 = SD_BUS_ERROR_NULL;

        EXPECT(call(b, "Status", &e, NULL, NULL) < 0);
        EXPECT(has_error(&e, "org.ballast1.Error.NotPermitted"));
        EXPECT(call(b, "Act", &e2, NULL, "b", 0) < 0);
        EXPECT(has_error(&e2, "org.ballast1.Error.NotPermitted"));
}

static void test_system_bus(void **state)
{
        const gid_t groups[] = {TEST_GROUP};
        char address[160];
        struct world *w;
        pid_t broker;

        if (geteuid() != 0 || system("command -v dbus-daemon >/dev/null") != 0)
                skip();
        (void)snprintf(broker_socket, sizeof(broker_socket), "%s/bus.sock", dir);
        (void)snprintf(address, sizeof(address), "unix:path=%s", broker_socket);
        (void)setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1);
        (void)setup_with(state, true);
        w = *state;
        /* missing: said once, and served on the private socket */
        (void)run_loop(w, 50, 0);
        assert_int_equal(w->notes, 1);
        assert_int_equal(w->note_r, -ENOENT);
        assert_non_null(strstr(w->note, broker_socket));
        still_serves(w);
        /* it appears */
        broker = start_broker(address);
        assert_true(wait_note(w, "serving on the system bus"));
        assert_int_equal(as_user_on_system_bus(w, introspects, 0, 0, NULL, 0), 0);
        assert_int_equal(as_user_on_system_bus(w, may_read_and_change, 0, 0, NULL, 0), 0);
        w->manager.changes = 0;
        assert_int_equal(as_user_on_system_bus(w, may_nothing_on_system_bus, NOBODY, NOBODY, NULL, 0), 0);
        assert_int_equal(as_user_on_system_bus(w, may_only_read, NOBODY, NOBODY, groups, 1), 0);
        assert_int_equal(w->manager.changes, 0);
        /* it restarts */
        stop_broker(broker);
        assert_true(wait_note(w, "went away"));
        (void)unlink(broker_socket);
        w->note[0] = 0;
        broker = start_broker(address);
        assert_true(wait_note(w, "serving on the system bus"));
        assert_int_equal(as_user_on_system_bus(w, calls, 0, 0, NULL, 0), 0);
        (void)teardown(state);
        stop_broker(broker);
        (void)unsetenv("DBUS_SYSTEM_BUS_ADDRESS");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_access),
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_listener),
                cmocka_unit_test(test_no_chown),
                cmocka_unit_test(test_killed),
                cmocka_unit_test(test_gate_pieces),
                cmocka_unit_test(test_gate_bounds),
                cmocka_unit_test_setup_teardown(test_root, setup, teardown),
                cmocka_unit_test_setup_teardown(test_supplementary_group, setup, teardown),
                cmocka_unit_test_setup_teardown(test_primary_group, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_groups, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stranger, setup, teardown),
                cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
                cmocka_unit_test_setup_teardown(test_introspection, setup, teardown),
                cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_answer_after_leaving, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pending_is_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
                cmocka_unit_test_setup_teardown(test_half_open, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slow_writer, setup, teardown),
                cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hundred_connections, setup, teardown),
                cmocka_unit_test_setup_teardown(test_root_is_not_locked_out, setup, teardown),
                cmocka_unit_test(test_system_bus),
        };
        int r;

        (void)signal(SIGPIPE, SIG_IGN);
        (void)strcpy(dir, "/tmp/ballast-bus-XXXXXX");
        if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
                return 1;
        (void)snprintf(path, sizeof(path), "%s/ballast.sock", dir);
        r = cmocka_run_group_tests(tests, NULL, NULL);
        static const char *const left[] = {"ballast.sock.lock", "ballast.sock", "bus.conf", "bus.sock"};
        for (size_t i = 0; i < 4; i++) {
                char file[160];

                (void)snprintf(file, sizeof(file), "%s/%s", dir, left[i]);
                (void)unlink(file);
        }
        (void)rmdir(dir);
        return r;
}
