/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The manager's links to agents: who calls for whom, who takes whose place, and
 * what a guest that lies or floods gets.  The backend's worker is played by the
 * test: a socket bound to the name that tells the VM. */
#include "tests/unit/test-manager-util.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/vhost_user_vsock.h"

/* A call for a VM, as a worker makes it; -1: it could not be made. */
static int call_as(const struct fixture *f, const char *uuid)
{
        static unsigned n;
        struct sockaddr_un me = {.sun_family = AF_UNIX}, there = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int len;

        assert_true(fd >= 0);
        len = snprintf(me.sun_path + 1, sizeof(me.sun_path) - 1, BL_VHOST_USER_VSOCK_NAME "%s/%d.%u", uuid,
                       (int)getpid(), ++n);
        assert_int_equal(
                bind(fd, (struct sockaddr *)&me, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)),
                0);
        snprintf(there.sun_path, sizeof(there.sun_path), "%s/run/" BL_VHOST_USER_VSOCK_SOCKET, f->dir);
        assert_int_equal(connect(fd, (struct sockaddr *)&there, sizeof(there)), 0);
        return fd;
}

static void say(int fd, int len, const uint8_t *frame)
{
        assert_true(len > 0);
        assert_int_equal(send(fd, frame, (size_t)len, MSG_NOSIGNAL), len);
}

static void say_hello(int fd, const char *version)
{
        struct bl_wire_hello h = {.major = BL_WIRE_MAJOR, .minor = BL_WIRE_MINOR, .features = 0xff};
        uint8_t frame[BL_WIRE_FRAME_MAX];

        snprintf(h.version, sizeof(h.version), "%s", version);
        say(fd, bl_wire_encode_hello(&h, frame, sizeof(frame)), frame);
}

static void say_stats(int fd, uint64_t available)
{
        struct bl_wire_stats s;
        uint8_t frame[BL_WIRE_FRAME_MAX];

        bl_wire_stats_init(&s);
        s.v[BL_STAT_MEM_TOTAL] = 1000 * BL_MIB;
        s.v[BL_STAT_MEM_AVAILABLE] = available;
        say(fd, bl_wire_encode_stats(&s, frame, sizeof(frame)), frame);
}

static void say_request(int fd, uint64_t bytes, uint64_t urgency)
{
        const struct bl_wire_request r = {.bytes = bytes, .urgency = urgency, .deadline = BL_UNSET};
        uint8_t frame[BL_WIRE_FRAME_MAX];

        say(fd, bl_wire_encode_request(&r, frame, sizeof(frame)), frame);
}

/* Has the other side hung up? */
static bool ended(int fd)
{
        char buf[4096];
        ssize_t n;

        while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
                ;
        return n == 0 || errno == ECONNRESET;
}

/* The next action that the daemon sent; false: none in what has come. */
static bool action_of(int fd, struct bl_wire_action *ret)
{
        uint8_t buf[8192];
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        bool found = false;

        if (n <= 0)
                return false;
        bl_wire_iter_init(&it, buf, (size_t)n);
        while (bl_wire_next(&it, &f) > 0)
                found = found || (f.type == BL_WIRE_ACTION && bl_wire_decode_action(&f, ret) == 0);
        return found;
}

static struct bl_guest *a_guest(struct fixture *f, const char *name)
{
        vm_create(f, name, false);
        SPIN_UNTIL(f, is_known(f, name));
        return guest(f, name);
}

static bool has_agent(const struct bl_guest *g, const char *version)
{
        return g->agent.hello && strcmp(g->agent.version, version) == 0;
}

static void test_call(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "caller");
        int fd = call_as(f, g->uuid_text);

        assert_null(bl_guests_channel(g));
        say_hello(fd, "one");
        SPIN_UNTIL(f, has_agent(g, "one"));
        assert_string_equal(bl_guests_channel(g), "vhost-user-vsock");
        say_stats(fd, 300 * BL_MIB);
        SPIN_UNTIL(f, g->agent_stats.source == BL_STATS_AGENT);
        assert_int_equal(g->agent_stats.available, 300 * BL_MIB);
        close(fd);
        SPIN_UNTIL(f, !g->agent.hello);
        assert_null(bl_guests_channel(g));
}

/* Nobody is spoken for who is not there, and other users' calls are not taken. */
static void test_nobody(void **state)
{
        struct fixture *f = *state;
        int fd = call_as(f, "00000000-1111-2222-3333-444444444444");

        SPIN_UNTIL(f, ended(fd));
        close(fd);
}

/* The newcomer takes over by its hello, not before: a call that says nothing does no harm. */
static void test_newcomer(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "newcomer");
        int first = call_as(f, g->uuid_text), silent_one, second;

        say_hello(first, "first");
        SPIN_UNTIL(f, has_agent(g, "first"));
        SPIN(f, 250 * BL_MSEC);
        silent_one = call_as(f, g->uuid_text);
        say_stats(silent_one, 1 * BL_MIB); /* before its hello: counts for nothing */
        SPIN_UNTIL(f, g->agent.trial.agent != NULL);
        SPIN(f, 250 * BL_MSEC);
        assert_true(has_agent(g, "first"));
        assert_false(ended(first));
        assert_int_equal(g->agent_stats.source, BL_STATS_NONE);
        second = call_as(f, g->uuid_text);
        say_hello(second, "second");
        SPIN_UNTIL(f, has_agent(g, "second"));
        assert_true(ended(first));
        assert_true(ended(silent_one));
        assert_null(g->agent.trial.agent);
        /* what the old one still says is not heard */
        close(first);
        close(silent_one);
        SPIN(f, 50 * BL_MSEC);
        assert_true(has_agent(g, "second"));
        close(second);
        SPIN_UNTIL(f, !g->agent.hello);
}

/* Two at most, however many come. */
static void test_flood_of_calls(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "flood"), *other = a_guest(f, "quiet");
        int fds[64], good = call_as(f, other->uuid_text);
        unsigned open = 0;

        say_hello(good, "good");
        for (size_t i = 0; i < 64; i++) {
                fds[i] = call_as(f, g->uuid_text);
                say_hello(fds[i], "flood");
        }
        SPIN_UNTIL(f, has_agent(other, "good"));
        SPIN(f, 300 * BL_MSEC);
        for (size_t i = 0; i < 64; i++)
                open += !ended(fds[i]);
        assert_true(open <= 2);
        for (size_t i = 0; i < 64; i++)
                close(fds[i]);
        assert_true(has_agent(other, "good"));
        close(good);
}

static void test_request(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "asks");
        int fd = call_as(f, g->uuid_text);
        usec_t at, asked;
        struct bl_vm vm;

        say_hello(fd, "asks");
        SPIN_UNTIL(f, g->agent.hello);
        SPIN(f, 100 * BL_MSEC);
        at = f->m->tick_at;
        asked = bl_now();
        say_stats(fd, 20 * BL_MIB);
        say_request(fd, 96 * BL_MIB, BL_URGENCY_STOP);
        SPIN_UNTIL(f, g->request.at != 0);
        /* a tick of its own, at once, with the figures that came before it */
        SPIN_UNTIL_WITHIN(f, BL_SEC, f->m->tick_at > at && f->m->tick_at >= g->request.at);
        assert_true(f->m->tick_at - asked < 500 * BL_MSEC);
        assert_int_equal(g->agent_stats.available, 20 * BL_MIB);
        (void)bl_guest_to_vm(g, bl_now(), &vm);
        assert_int_equal(vm.request.bytes, 96 * BL_MIB);
        assert_true(vm.request.stop);
        close(fd);
        SPIN_UNTIL(f, !g->agent.hello);
}

static void test_ask(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "asked");
        struct bl_wire_action a = {0};
        uint8_t frame[BL_WIRE_FRAME_MAX];
        struct bl_wire_result r;
        int fd;

        ASK(f, bl_control_ask(f->m, "asked", "ping", BL_UNSET, on_done, f));
        assert_int_equal(f->r, -ESTALE);
        ASK(f, bl_control_ask(f->m, "asked", "jump", BL_UNSET, on_done, f));
        assert_int_equal(f->r, -EINVAL);
        ASK(f, bl_control_ask(f->m, "none-such", "ping", BL_UNSET, on_done, f));
        assert_int_equal(f->r, -ENOENT);
        fd = call_as(f, g->uuid_text);
        say_hello(fd, "asked");
        SPIN_UNTIL(f, g->agent.hello);
        f->answers = 0;
        bl_control_ask(f->m, "asked", "trim", 64 * BL_MIB, on_done, f);
        SPIN_UNTIL(f, a.id != 0 || action_of(fd, &a));
        assert_int_equal(a.kind, BL_ACTION_TRIM);
        assert_int_equal(a.bytes, 64 * BL_MIB);
        /* one at a time */
        ASK(f, bl_control_ask(f->m, "asked", "ping", BL_UNSET, on_done, f));
        assert_int_equal(f->r, -EBUSY);
        r = (struct bl_wire_result){.id = a.id, .status = BL_RESULT_PARTLY, .bytes = 48 * BL_MIB, .took = 1000};
        say(fd, bl_wire_encode_result(&r, frame, sizeof(frame)), frame);
        SPIN_UNTIL(f, f->answers == 2);
        assert_int_equal(f->r, 0);
        assert_non_null(strstr(f->message, "48 MiB"));
        /* one that is under way when the connection ends is answered too, once */
        bl_control_ask(f->m, "asked", "compact", BL_UNSET, on_done, f);
        close(fd);
        SPIN_UNTIL(f, f->answers == 3);
        assert_int_equal(f->r, -ESTALE);
        SPIN(f, 50 * BL_MSEC);
        assert_int_equal(f->answers, 3);
}

/* A VM that goes takes the question with it; the asker still has its answer. */
static void test_gone(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "goes");
        int fd = call_as(f, g->uuid_text);

        say_hello(fd, "goes");
        SPIN_UNTIL(f, g->agent.hello);
        f->answers = 0;
        bl_control_ask(f->m, "goes", "hints", BL_UNSET, on_done, f);
        assert_int_equal(virDomainDestroy(f->vms[f->n_vms - 1]), 0);
        SPIN_UNTIL(f, !guest(f, "goes"));
        assert_int_equal(f->answers, 1);
        assert_int_equal(f->r, -ESTALE);
        SPIN_UNTIL(f, ended(fd));
        close(fd);
}

static void test_hints(void **state)
{
        struct fixture *f = *state;
        struct bl_guest *g = a_guest(f, "hints");
        int fd = call_as(f, g->uuid_text);
        uint8_t runs[64], frame[BL_WIRE_FRAME_MAX];
        struct bl_wire_hints h = {.scan = 7, .kind = BL_HINT_FREE, .file = BL_UNSET, .runs = runs};
        struct bl_wire_run run = {.pfn = 100, .pages = 512};
        uint64_t pfn = 0;
        int n;

        say_hello(fd, "hints");
        SPIN_UNTIL(f, g->agent.hello);
        n = bl_wire_run_put(h.kind, &run, &pfn, runs, sizeof(runs));
        assert_true(n > 0);
        h.runs_size = (size_t)n;
        say(fd, bl_wire_encode_hints(&h, frame, sizeof(frame)), frame);
        h.kind = BL_HINT_INACTIVE_FILE;
        h.flags = BL_HINTS_LAST | BL_HINTS_CUT;
        say(fd, bl_wire_encode_hints(&h, frame, sizeof(frame)), frame);
        SPIN_UNTIL(f, g->agent.hints.complete);
        assert_int_equal(g->agent.hints.free, 512);
        assert_int_equal(g->agent.hints.inactive_file, 512);
        assert_int_equal(g->agent.hints.runs, 2);
        assert_true(g->agent.hints.cut);
        /* another scan counts anew */
        h.scan = 8;
        h.flags = 0;
        say(fd, bl_wire_encode_hints(&h, frame, sizeof(frame)), frame);
        SPIN_UNTIL(f, g->agent.hints.scan == 8);
        assert_int_equal(g->agent.hints.free, 0);
        assert_int_equal(g->agent.hints.inactive_file, 512);
        assert_false(g->agent.hints.complete);
        close(fd);
        SPIN_UNTIL(f, !g->agent.hello);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_call, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_nobody, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_newcomer, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_flood_of_calls, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_request, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_ask, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_gone, setup_started, teardown),
                cmocka_unit_test_setup_teardown(test_hints, setup_started, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
