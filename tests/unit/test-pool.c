/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/virt/pool.h"
#include "tests/unit/test-loop.h"

static const uint8_t key_a[BL_UUID_LEN] = {1}, key_b[BL_UUID_LEN] = {2};

/* Every job of a test; the counters are shared, the jobs freed by `done`. */
struct shared {
        pthread_mutex_t lock;
        pthread_cond_t cond;
        bool open; /* lets blocked jobs go */
        atomic_int running, most, ran;
        int done, canceled, hostdown;
        int order[64];
        int hung_reports, back_reports;
};

struct work {
        struct shared *s;
        int number;
        bool block;
        unsigned sleep_us;
};

static void run(void *arg)
{
        struct work *w = arg;
        int now = atomic_fetch_add(&w->s->running, 1) + 1, most = atomic_load(&w->s->most);

        while (now > most && !atomic_compare_exchange_weak(&w->s->most, &most, now))
                ;
        if (w->sleep_us)
                usleep(w->sleep_us);
        if (w->block) {
                pthread_mutex_lock(&w->s->lock);
                while (!w->s->open)
                        pthread_cond_wait(&w->s->cond, &w->s->lock);
                pthread_mutex_unlock(&w->s->lock);
        }
        atomic_fetch_sub(&w->s->running, 1);
        atomic_fetch_add(&w->s->ran, 1);
}

static void done(void *arg, int r)
{
        struct work *w = arg;

        if (r == 0 && w->s->done < 64)
                w->s->order[w->s->done] = w->number;
        w->s->done += r == 0;
        w->s->canceled += r == -ECANCELED;
        w->s->hostdown += r == -EHOSTDOWN;
        free(w);
}

static int submit(struct bl_pool *p, const uint8_t *key, struct shared *s, int number, bool block, unsigned sleep_us)
{
        struct work *w = calloc(1, sizeof(*w));
        int r;

        *w = (struct work){.s = s, .number = number, .block = block, .sleep_us = sleep_us};
        r = bl_pool_submit(p, key, run, done, w);
        if (r < 0)
                free(w);
        return r;
}

static void open_gate(struct shared *s)
{
        pthread_mutex_lock(&s->lock);
        s->open = true;
        pthread_cond_broadcast(&s->cond);
        pthread_mutex_unlock(&s->lock);
}

struct fixture {
        sd_event *event;
        struct shared s;
};

static int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));

        assert_int_equal(sd_event_new(&f->event), 0);
        pthread_mutex_init(&f->s.lock, NULL);
        pthread_cond_init(&f->s.cond, NULL);
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;

        sd_event_unref(f->event);
        pthread_mutex_destroy(&f->s.lock);
        pthread_cond_destroy(&f->s.cond);
        free(f);
        return 0;
}

#define SPIN_UNTIL(f, cond) SPIN_UNTIL_WITHIN(f, 5 * BL_SEC, cond)

static void test_runs_and_idles(void **state)
{
        struct fixture *f = *state;
        const struct bl_pool_options o = {.idle = 30 * BL_MSEC};
        struct bl_pool_stats stats;
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, &o, &p), 0);
        for (int i = 0; i < 40; i++)
                assert_int_equal(submit(p, NULL, &f->s, i, false, 500), 0);
        SPIN_UNTIL(f, f->s.done == 40);
        assert_in_range(atomic_load(&f->s.most), 1, 16);
        SPIN(f, 150 * BL_MSEC);
        bl_pool_stats(p, &stats);
        assert_int_equal(stats.threads, 0);
        assert_int_equal(stats.done, 40);
        assert_int_equal(bl_pool_stop(p, BL_SEC), 0);
        p = bl_pool_free(p);
}

static void test_key_one_at_a_time(void **state)
{
        struct fixture *f = *state;
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, NULL, &p), 0);
        for (int i = 0; i < 20; i++)
                assert_int_equal(submit(p, key_a, &f->s, i, false, 300), 0);
        assert_true(bl_pool_busy(p, key_a) > 0);
        SPIN_UNTIL(f, f->s.done == 20);
        assert_int_equal(atomic_load(&f->s.most), 1);
        for (int i = 0; i < 20; i++)
                assert_int_equal(f->s.order[i], i);
        assert_int_equal(bl_pool_busy(p, key_a), 0);
        assert_int_equal(bl_pool_stop(p, BL_SEC), 0);
        p = bl_pool_free(p);
}

static void on_overdue(void *userdata, const uint8_t key[BL_UUID_LEN], bool hung)
{
        struct shared *s = userdata;

        assert_memory_equal(key, key_a, BL_UUID_LEN);
        if (hung)
                s->hung_reports++;
        else
                s->back_reports++;
}

static void test_hung_key(void **state)
{
        struct fixture *f = *state;
        const struct bl_pool_options o = {.max_threads = 1, .overdue = 60 * BL_MSEC};
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, &o, &p), 0);
        bl_pool_set_overdue_handler(p, on_overdue, &f->s);
        assert_int_equal(submit(p, key_a, &f->s, 1, true, 0), 0);
        assert_int_equal(submit(p, key_a, &f->s, 2, false, 0), 0);
        assert_int_equal(submit(p, key_b, &f->s, 3, false, 0), 0);
        assert_false(bl_pool_hung(p, key_a));
        /* the one thread is taken; when it is overdue another is allowed */
        SPIN_UNTIL(f, f->s.done == 1);
        assert_int_equal(f->s.order[0], 3);
        assert_true(bl_pool_hung(p, key_a));
        assert_int_equal(f->s.hung_reports, 1);
        assert_int_equal(f->s.hostdown, 1);
        assert_int_equal(submit(p, key_a, &f->s, 4, false, 0), -EHOSTDOWN);
        for (int i = 0; i < 5; i++)
                assert_int_equal(submit(p, key_b, &f->s, 10 + i, false, 0), 0);
        SPIN_UNTIL(f, f->s.done == 6);
        assert_int_equal(f->s.back_reports, 0);

        open_gate(&f->s);
        SPIN_UNTIL(f, f->s.done == 7);
        assert_int_equal(f->s.back_reports, 1);
        assert_false(bl_pool_hung(p, key_a));
        assert_int_equal(submit(p, key_a, &f->s, 5, false, 0), 0);
        SPIN_UNTIL(f, f->s.done == 8);
        assert_int_equal(f->s.hung_reports, 1);
        assert_int_equal(bl_pool_stop(p, BL_SEC), 0);
        p = bl_pool_free(p);
}

static void ignore_overdue(void *userdata, const uint8_t key[BL_UUID_LEN], bool hung)
{
        struct shared *s = userdata;

        (void)key;
        s->hung_reports += hung;
}

/* More hung VMs than threads: the rest is served still. */
static void test_many_hung(void **state)
{
        struct fixture *f = *state;
        const struct bl_pool_options o = {.max_threads = 4, .overdue = 30 * BL_MSEC};
        struct bl_pool_stats stats;
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, &o, &p), 0);
        bl_pool_set_overdue_handler(p, ignore_overdue, &f->s);
        for (int i = 0; i < 20; i++) {
                uint8_t key[BL_UUID_LEN] = {100, (uint8_t)i};

                assert_int_equal(submit(p, key, &f->s, i, true, 0), 0);
        }
        SPIN_UNTIL(f, f->s.hung_reports == 20);
        assert_int_equal(submit(p, key_b, &f->s, 99, false, 0), 0);
        SPIN_UNTIL(f, f->s.done == 1);
        bl_pool_stats(p, &stats);
        assert_int_equal(stats.overdue, 20);
        open_gate(&f->s);
        SPIN_UNTIL(f, f->s.done == 21);
        assert_int_equal(bl_pool_stop(p, BL_SEC), 0);
        p = bl_pool_free(p);
}

static void test_bounded(void **state)
{
        struct fixture *f = *state;
        const struct bl_pool_options o = {.max_threads = 1, .max_queue = 3};
        struct bl_pool *p = NULL;
        int r = 0, accepted = 0;

        assert_int_equal(bl_pool_new(f->event, &o, &p), 0);
        for (int i = 0; i < 20 && r == 0; i++) {
                r = submit(p, NULL, &f->s, i, true, 0);
                accepted += r == 0;
        }
        assert_int_equal(r, -ENOBUFS);
        assert_in_range(accepted, 3, 4);
        open_gate(&f->s);
        SPIN_UNTIL(f, f->s.done == accepted);
        assert_int_equal(bl_pool_stop(p, BL_SEC), 0);
        assert_int_equal(submit(p, NULL, &f->s, 0, false, 0), -ESHUTDOWN);
        p = bl_pool_free(p);
}

/* At the end: what waits for a VM is dropped, what has no key is done. */
static void test_stop(void **state)
{
        struct fixture *f = *state;
        const struct bl_pool_options o = {.max_threads = 1};
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, &o, &p), 0);
        assert_int_equal(submit(p, key_a, &f->s, 1, false, 30000), 0);
        while (atomic_load(&f->s.running) == 0)
                usleep(100);
        assert_int_equal(submit(p, key_a, &f->s, 2, false, 0), 0);
        assert_int_equal(submit(p, NULL, &f->s, 3, false, 0), 0);
        assert_int_equal(bl_pool_stop(p, 2 * BL_SEC), 0);
        assert_int_equal(f->s.done, 2);
        assert_int_equal(f->s.canceled, 1);
        p = bl_pool_free(p);
}

/* A thread that never comes back keeps nobody from ending. */
static void test_stop_hung(void **state)
{
        struct fixture *f = *state;
        struct bl_pool *p = NULL;

        assert_int_equal(bl_pool_new(f->event, NULL, &p), 0);
        assert_int_equal(submit(p, key_a, &f->s, 1, true, 0), 0);
        while (atomic_load(&f->s.running) == 0)
                usleep(100);
        assert_int_equal(bl_pool_stop(p, 20 * BL_MSEC), 1);
        /* it is let go only so that the test leaks nothing: completed by free */
        open_gate(&f->s);
        while (atomic_load(&f->s.ran) == 0)
                usleep(100);
        usleep(20000);
        p = bl_pool_free(p);
        assert_int_equal(f->s.done, 1);
}

static void *post_thread(void *arg)
{
        struct fixture *f = *(struct fixture **)arg;
        struct bl_pool *p = ((struct bl_pool **)arg)[1];

        for (int i = 0; i < 200; i++) {
                struct work *w = calloc(1, sizeof(*w));

                *w = (struct work){.s = &f->s};
                if (bl_pool_post(p, done, w) < 0)
                        free(w);
        }
        return NULL;
}

static void test_post(void **state)
{
        struct fixture *f = *state;
        struct bl_pool *p = NULL;
        pthread_t t[3];
        void *arg[2];

        assert_int_equal(bl_pool_new(f->event, NULL, &p), 0);
        arg[0] = f;
        arg[1] = p;
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_create(&t[i], NULL, post_thread, arg), 0);
        SPIN_UNTIL(f, f->s.done == 600);
        for (int i = 0; i < 3; i++)
                pthread_join(t[i], NULL);
        p = bl_pool_free(p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_runs_and_idles, setup, teardown),
                cmocka_unit_test_setup_teardown(test_key_one_at_a_time, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hung_key, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_hung, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stop_hung, setup, teardown),
                cmocka_unit_test_setup_teardown(test_post, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
