/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event bridge through libvirt's own public functions, with real
 * descriptors and timeouts; also from other threads (run it under TSan). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/virt/event_bridge.h"
#include "tests/unit/test-loop.h"

struct fixture {
        sd_event *event;
        struct bl_event_bridge *bridge;
};

struct seen {
        int calls;
        int events;
        int fd;
        int freed;
        int id;
        bool remove_self;
        bool drain;
};

static int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        assert_int_equal(sd_event_new(&f->event), 0);
        assert_int_equal(bl_event_bridge_new(f->event, &f->bridge), 0);
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        f->bridge = bl_event_bridge_free(f->bridge);
        sd_event_unref(f->event);
        free(f);
        return 0;
}

#define SPIN_UNTIL(f, cond) SPIN_UNTIL_WITHIN(f, 5 * BL_SEC, cond)

static void on_handle(int watch, int fd, int events, void *opaque)
{
        struct seen *s = opaque;
        char buf[64];

        assert_int_equal(watch, s->id);
        s->calls++;
        s->events = events;
        s->fd = fd;
        if (s->drain)
                assert_true(read(fd, buf, sizeof(buf)) > 0);
        if (s->remove_self) {
                assert_int_equal(virEventRemoveHandle(watch), 0);
                assert_int_equal(s->freed, 0); /* never from inside */
        }
}

static void on_timeout(int timer, void *opaque)
{
        struct seen *s = opaque;

        assert_int_equal(timer, s->id);
        s->calls++;
        if (s->remove_self) {
                assert_int_equal(virEventRemoveTimeout(timer), 0);
                assert_int_equal(s->freed, 0);
        }
}

static void on_free(void *opaque)
{
        ((struct seen *)opaque)->freed++;
}

static void test_one_at_a_time(void **state)
{
        struct fixture *f = *state;
        struct bl_event_bridge *second = NULL;

        assert_true(bl_event_bridge_active());
        assert_int_equal(bl_event_bridge_new(f->event, &second), -EBUSY);
        assert_null(second);
}

static void test_handle(void **state)
{
        struct fixture *f = *state;
        struct seen s = {.drain = true};
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        s.id = virEventAddHandle(p[0], VIR_EVENT_HANDLE_READABLE, on_handle, &s, on_free);
        assert_true(s.id > 0);
        SPIN(f, 5000);
        assert_int_equal(s.calls, 0);

        assert_int_equal(write(p[1], "x", 1), 1);
        SPIN_UNTIL(f, s.calls == 1);
        assert_int_equal(s.fd, p[0]); /* libvirt's number, not our duplicate's */
        assert_int_equal(s.events, VIR_EVENT_HANDLE_READABLE);

        /* asking for nothing: nothing, not even the hangup */
        virEventUpdateHandle(s.id, 0);
        close(p[1]);
        SPIN(f, 5000);
        assert_int_equal(s.calls, 1);
        s.drain = false;
        virEventUpdateHandle(s.id, VIR_EVENT_HANDLE_READABLE);
        s.remove_self = true;
        SPIN_UNTIL(f, s.freed == 1);
        assert_int_equal(s.calls, 2);
        assert_true(s.events & VIR_EVENT_HANDLE_HANGUP);
        assert_int_equal(s.freed, 1);
        assert_int_equal(virEventRemoveHandle(s.id), -1);
        close(p[0]);
}

static void test_timeout(void **state)
{
        struct fixture *f = *state;
        struct seen s = {0}, off = {0}, zero = {0};

        s.id = virEventAddTimeout(10, on_timeout, &s, on_free);
        off.id = virEventAddTimeout(-1, on_timeout, &off, on_free);
        zero.id = virEventAddTimeout(0, on_timeout, &zero, on_free);
        zero.remove_self = true;
        SPIN_UNTIL(f, s.calls >= 3); /* it repeats */
        assert_int_equal(off.calls, 0);
        assert_int_equal(zero.calls, 1);
        assert_int_equal(zero.freed, 1);

        virEventUpdateTimeout(s.id, -1);
        virEventUpdateTimeout(off.id, 5);
        SPIN(f, 2000);
        s.calls = 0;
        SPIN(f, 30000);
        assert_int_equal(s.calls, 0);
        SPIN_UNTIL(f, off.calls >= 2);
        assert_int_equal(virEventRemoveTimeout(s.id), 0);
        assert_int_equal(virEventRemoveTimeout(off.id), 0);
        assert_int_equal(virEventRemoveHandle(off.id), -1);
        assert_int_equal(s.freed, 0);
        SPIN_UNTIL(f, s.freed == 1 && off.freed == 1);
}

/* libvirt closes a descriptor right after the removal; the number is then
 * another's, which must not lose its events. */
static void test_number_reused(void **state)
{
        struct fixture *f = *state;

        for (int i = 0; i < 50; i++) {
                struct seen a = {0}, b = {.drain = true};
                int p[2], q[2];

                assert_int_equal(pipe2(p, O_CLOEXEC), 0);
                a.id = virEventAddHandle(p[0], VIR_EVENT_HANDLE_READABLE, on_handle, &a, on_free);
                SPIN(f, 200);
                assert_int_equal(virEventRemoveHandle(a.id), 0);
                close(p[0]);
                assert_int_equal(pipe2(q, O_CLOEXEC), 0);
                assert_int_equal(q[0], p[0]);
                b.id = virEventAddHandle(q[0], VIR_EVENT_HANDLE_READABLE, on_handle, &b, on_free);
                assert_int_equal(write(q[1], "x", 1), 1);
                SPIN_UNTIL(f, b.calls == 1);
                assert_int_equal(a.calls, 0);
                assert_int_equal(a.freed, 1);
                assert_int_equal(virEventRemoveHandle(b.id), 0);
                SPIN_UNTIL(f, b.freed == 1);
                close(q[0]);
                close(q[1]);
                close(p[1]);
        }
}

static void test_same_descriptor_twice(void **state)
{
        struct fixture *f = *state;
        struct seen r = {.drain = true}, w = {.remove_self = true};
        int s[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        r.id = virEventAddHandle(s[0], VIR_EVENT_HANDLE_READABLE, on_handle, &r, on_free);
        w.id = virEventAddHandle(s[0], VIR_EVENT_HANDLE_WRITABLE, on_handle, &w, on_free);
        assert_int_equal(write(s[1], "x", 1), 1);
        SPIN_UNTIL(f, r.calls == 1 && w.calls == 1 && w.freed == 1);
        assert_int_equal(virEventRemoveHandle(r.id), 0);
        SPIN_UNTIL(f, r.freed == 1);
        close(s[0]);
        close(s[1]);
}

/* What libvirt leaves behind is freed with the bridge, and what it asks later is refused. */
static void test_freed_with_the_bridge(void **state)
{
        struct fixture *f = *state;
        struct seen t = {0}, h = {0}, late = {0};

        t.id = virEventAddTimeout(1000, on_timeout, &t, on_free);
        h.id = virEventAddHandle(STDIN_FILENO, 0, on_handle, &h, on_free);
        SPIN(f, 1000);
        assert_int_equal(virEventRemoveTimeout(t.id), 0);
        f->bridge = bl_event_bridge_free(f->bridge);
        assert_false(bl_event_bridge_active());
        assert_int_equal(t.freed, 1);
        assert_int_equal(h.freed, 1);
        assert_int_equal(virEventAddTimeout(1, on_timeout, &late, on_free), -1);
        assert_int_equal(virEventRemoveHandle(h.id), -1);
        virEventUpdateTimeout(t.id, 1);
        /* and a new one works */
        assert_int_equal(bl_event_bridge_new(f->event, &f->bridge), 0);
        late.id = virEventAddTimeout(1, on_timeout, &late, on_free);
        SPIN_UNTIL(f, late.calls > 0);
        assert_int_equal(virEventRemoveTimeout(late.id), 0);
        SPIN_UNTIL(f, late.freed == 1);
}

/* --- other threads ---------------------------------------------------------------- */

struct stress {
        atomic_int calls;
        atomic_int freed;
        atomic_int added;
        atomic_bool stop;
};

static void stress_handle(int watch, int fd, int events, void *opaque)
{
        struct stress *s = opaque;

        /* the descriptor may be closed by now, as libvirt's may */
        (void)watch;
        (void)fd;
        (void)events;
        atomic_fetch_add(&s->calls, 1);
}

static void stress_timeout(int timer, void *opaque)
{
        (void)timer;
        atomic_fetch_add(&((struct stress *)opaque)->calls, 1);
}

static void stress_free(void *opaque)
{
        atomic_fetch_add(&((struct stress *)opaque)->freed, 1);
}

static void *stress_thread(void *arg)
{
        struct stress *s = arg;

        while (!atomic_load(&s->stop)) {
                int p[2], id, timer;

                if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
                        break;
                id = virEventAddHandle(p[0], 0, stress_handle, s, stress_free);
                timer = virEventAddTimeout(-1, stress_timeout, s, stress_free);
                atomic_fetch_add(&s->added, 2);
                virEventUpdateHandle(id, VIR_EVENT_HANDLE_READABLE);
                virEventUpdateTimeout(timer, 0);
                (void)!write(p[1], "x", 1);
                usleep(200);
                virEventUpdateHandle(id, 0);
                virEventUpdateTimeout(timer, 1);
                virEventUpdateHandle(id, VIR_EVENT_HANDLE_READABLE | VIR_EVENT_HANDLE_WRITABLE);
                (void)virEventRemoveHandle(id);
                (void)virEventRemoveTimeout(timer);
                close(p[0]);
                close(p[1]);
        }
        return NULL;
}

static void test_threads(void **state)
{
        struct fixture *f = *state;
        struct stress s = {0};
        pthread_t t[4];

        for (int i = 0; i < 4; i++)
                assert_int_equal(pthread_create(&t[i], NULL, stress_thread, &s), 0);
        SPIN(f, 500000);
        atomic_store(&s.stop, true);
        for (int i = 0; i < 4; i++)
                pthread_join(t[i], NULL);
        SPIN_UNTIL(f, atomic_load(&s.freed) == atomic_load(&s.added));
        assert_true(atomic_load(&s.added) > 20);
        assert_true(atomic_load(&s.calls) > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_one_at_a_time, setup, teardown),
                cmocka_unit_test_setup_teardown(test_handle, setup, teardown),
                cmocka_unit_test_setup_teardown(test_timeout, setup, teardown),
                cmocka_unit_test_setup_teardown(test_number_reused, setup, teardown),
                cmocka_unit_test_setup_teardown(test_same_descriptor_twice, setup, teardown),
                cmocka_unit_test_setup_teardown(test_freed_with_the_bridge, setup, teardown),
                cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
