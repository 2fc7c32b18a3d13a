/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The line to the store, against one that comes, goes, hangs and answers nonsense. */
#include "tests/unit/test-store-fake.h"

#include "daemon/storelink.h"
#include "daemon/util/clock.h"
#include "tests/unit/test-loop.h"

#define SPIN_UNTIL(f, cond) SPIN_UNTIL_WITHIN(f, 20 * BL_SEC, cond)

struct fixture {
        sd_event *event;
        struct fake_store store;
        struct bl_storelink *link;
        int n_figures, n_events, answers, r;
        size_t n_vms;
        uint64_t last_held, backing;
        struct bl_store_event last;
        enum bl_storelink_state told[32];
        int n_told;
};

static void on_state(void *userdata, enum bl_storelink_state s)
{
        struct fixture *f = userdata;

        assert_true(f->n_told < 32);
        f->told[f->n_told++] = s;
}

static void on_figures(void *userdata, const struct bl_store_reply *r, const struct bl_store_vm *vms, size_t n)
{
        struct fixture *f = userdata;

        assert_non_null(r);
        f->n_figures++;
        f->n_vms = n;
        if (n > 0)
                f->last_held = vms[n - 1].held;
}

static void on_event(void *userdata, const struct bl_store_event *ev)
{
        struct fixture *f = userdata;

        f->n_events++;
        f->last = *ev;
}

static const struct bl_storelink_handler handler = {.state = on_state, .figures = on_figures, .event = on_event};

static void on_answer(void *userdata, int r, const struct bl_store_figures *figures)
{
        struct fixture *f = userdata;

        f->answers++;
        f->r = r;
        f->backing = figures ? figures->backing : 0;
}

static int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));
        char path[64];

        assert_non_null(f);
        assert_true(sd_event_new(&f->event) >= 0);
        snprintf(path, sizeof(path), "/tmp/ballast-test-storelink-%d", (int)getpid());
        fake_store_init(&f->store, f->event, path);
        assert_int_equal(bl_storelink_new(f->event, path, &handler, f, &f->link), 0);
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        bl_storelink_free(f->link);
        fake_store_stop(&f->store);
        sd_event_unref(f->event);
        free(f);
        return 0;
}

static bool is(const struct fixture *f, enum bl_storelink_state s)
{
        return bl_storelink_state(f->link) == s;
}

static void test_none(void **state)
{
        struct fixture *f = *state;
        struct bl_storelink *none = NULL;
        struct bl_store_registration r = {0};

        assert_int_equal(bl_storelink_new(f->event, "", &handler, f, &none), 0);
        assert_int_equal(bl_storelink_state(none), BL_STORELINK_NONE);
        assert_int_equal(bl_storelink_register(none, &r, on_answer, f), -ENOTCONN);
        assert_int_equal(bl_storelink_reserve(none, 1), -ENOTCONN);
        assert_null(bl_storelink_figures(none, NULL));
        assert_null(bl_storelink_free(none));
        assert_int_equal(bl_storelink_state(NULL), BL_STORELINK_NONE);
        assert_null(bl_storelink_figures(NULL, NULL));
        assert_int_equal(f->answers, 0);
}

static void test_comes_and_goes(void **state)
{
        struct fixture *f = *state;
        struct bl_store_registration r = {.size = BL_MIB};
        usec_t at = 0;

        SPIN_UNTIL(f, is(f, BL_STORELINK_AWAY));
        assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), -ENOTCONN);
        assert_int_equal(bl_storelink_reserve(f->link, 100 * BL_MIB), 0);
        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE) && f->n_figures == 1);
        assert_int_equal(bl_storelink_figures(f->link, &at)->figures.incarnation, 1000);
        assert_true(at > 0 && at <= bl_now());
        SPIN_UNTIL(f, f->store.n_reserve == 1);
        assert_int_equal(f->store.reserved, 100 * BL_MIB);

        fake_store_stop(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_AWAY));
        /* what is known stays known */
        assert_non_null(bl_storelink_figures(f->link, NULL));
        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        /* said again by itself, since another process answers */
        SPIN_UNTIL(f, f->store.n_reserve == 2);
        assert_int_equal(f->n_told, 3);
        assert_int_equal(f->told[1], BL_STORELINK_AWAY);
}

static void test_period(void **state)
{
        struct fixture *f = *state;
        usec_t begin;

        fake_store_start(&f->store);
        SPIN_UNTIL(f, f->n_figures == 2);
        begin = bl_now();
        bl_storelink_set_period(f->link, 20 * BL_MSEC);
        SPIN_UNTIL(f, f->n_figures >= 12);
        /* ten at 1 s each would take 10 s */
        assert_true(bl_now() - begin < 5 * BL_SEC);
}

/* More VMs than fit into a packet, and events. */
static void test_many(void **state)
{
        struct fixture *f = *state;

        f->store.n_vms = 70;
        f->store.vms[69].held = 4242;
        f->store.n_events = 1;
        f->store.events[0] = (struct bl_store_event){.kind = BL_STORE_DAMAGED, .offset = 8192};
        fake_store_start(&f->store);
        SPIN_UNTIL(f, f->n_figures == 1);
        assert_int_equal(f->n_vms, 70);
        assert_int_equal(f->last_held, 4242);
        assert_int_equal(f->n_events, 1);
        assert_int_equal(f->last.offset, 8192);
        SPIN_UNTIL(f, f->n_figures == 2);
        assert_int_equal(f->n_vms, 70);
        assert_int_equal(f->n_events, 1);
}

static void test_requests(void **state)
{
        struct fixture *f = *state;
        struct bl_store_registration r = {.uuid = {7}, .pid = 3, .start = 4, .size = BL_MIB, .group = "g", .limit = 5};

        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), 0);
        assert_int_equal(f->answers, 0);
        SPIN_UNTIL(f, f->answers == 1);
        assert_int_equal(f->r, 0);
        assert_memory_equal(&f->store.registration, &r, sizeof(r));
        f->store.refuse = -ENOSPC;
        assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), 0);
        assert_int_equal(bl_storelink_forget(f->link, r.uuid, on_answer, f), 0);
        assert_int_equal(bl_storelink_forget(f->link, r.uuid, NULL, NULL), 0);
        SPIN_UNTIL(f, f->answers == 2);
        assert_int_equal(f->r, -ENOSPC);
        assert_int_equal(f->backing, 1024 * BL_MIB);
        SPIN_UNTIL(f, f->store.n_forget == 2);
        assert_int_equal(f->answers, 3);
        assert_int_equal(f->r, 0);
}

/* One under way and those behind it are answered, once, when the store dies. */
static void test_dies(void **state)
{
        struct fixture *f = *state;
        struct bl_store_registration r = {.size = BL_MIB};

        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        f->store.mute = true;
        for (int i = 0; i < 3; i++)
                assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), 0);
        assert_true(sd_event_run(f->event, 100 * BL_MSEC) >= 0);
        assert_int_equal(f->answers, 0);
        fake_store_stop(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_AWAY));
        assert_int_equal(f->answers, 3);
        assert_int_equal(f->r, -ENOTCONN);
        fake_store_unmute(&f->store);
        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        assert_int_equal(f->store.n_register, 0);
        assert_int_equal(f->answers, 3);
}

static void test_deaf(void **state)
{
        struct fixture *f = *state;
        struct bl_store_registration r = {.size = BL_MIB};
        usec_t begin;

        fake_store_start(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        f->store.mute = true;
        begin = bl_now();
        assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), 0);
        SPIN_UNTIL(f, is(f, BL_STORELINK_DEAF));
        assert_in_range(bl_now() - begin, BL_STORELINK_DEAF_AFTER - 100 * BL_MSEC, 3 * BL_STORELINK_DEAF_AFTER);
        assert_int_equal(bl_storelink_register(f->link, &r, on_answer, f), -ENOTCONN);
        assert_int_equal(f->answers, 0);
        fake_store_unmute(&f->store);
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
        SPIN_UNTIL(f, f->answers == 1);
        assert_int_equal(f->r, 0);
}

static void test_another_version(void **state)
{
        struct fixture *f = *state;

        f->store.magic = BL_STORE_CONTROL_MAGIC + 1;
        fake_store_start(&f->store);
        SPIN_UNTIL(f, f->store.n_status >= 2);
        assert_false(is(f, BL_STORELINK_THERE));
        assert_int_equal(f->n_figures, 0);
        f->store.magic--;
        SPIN_UNTIL(f, is(f, BL_STORELINK_THERE));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_none, setup, teardown),
                cmocka_unit_test_setup_teardown(test_comes_and_goes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_period, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many, setup, teardown),
                cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(test_dies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_deaf, setup, teardown),
                cmocka_unit_test_setup_teardown(test_another_version, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
