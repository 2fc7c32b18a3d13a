// SPDX-License-Identifier: LGPL-2.1-or-later
/* The store with the disk tier as it is: more than RAM holds, overwritten until the log has to be cleaned, and the
 * next process on both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "tests/unit/test-store-util.h"

#define PAGE  BL_STORE_PAGE
#define DISK  (24 * BL_MIB)
#define SIZE  (6 * BL_MIB) /* of each of two exports */
#define SLOTS (SIZE / PAGE)

static unsigned damaged;

static void on_event(void *userdata, const struct bl_store_event *ev)
{
        (void)userdata;
        damaged += ev->kind == BL_STORE_DAMAGED || ev->kind == BL_STORE_LOST;
}

static struct bl_store *attach(int memory, bool fresh, const char *path)
{
        struct bl_disk_options d = {.path = path, .size = DISK};
        struct bl_store_options o = {.arena = arena_on(memory, fresh), .on_event = on_event};
        struct bl_store *s = NULL;
        char *message = NULL;

        assert_int_equal(bl_disk_open(&d, &o.disk, &message), 0);
        assert_int_equal(bl_store_open(&o, &s, &message), 0);
        return s;
}

struct writer {
        struct bl_export *e;
        uint64_t seed, now[SLOTS];
        int error;
};

static void *write_all(void *arg)
{
        struct writer *w = arg;
        uint8_t page[PAGE];

        for (uint64_t i = 0; i < 3 * SLOTS && w->error == 0; i++) {
                uint64_t slot = i < SLOTS ? i : next_random(&w->seed) % SLOTS;

                w->now[slot] = next_random(&w->seed) % 1000000 * 4 + 3;
                fill_page(page, w->now[slot]);
                w->error = bl_export_write(w->e, page, PAGE, slot * PAGE);
        }
        return NULL;
}

static void expect_all(const struct writer *w)
{
        for (uint64_t i = 0; i < SLOTS; i++) {
                uint8_t page[PAGE], is[PAGE];

                fill_page(page, w->now[i]);
                assert_int_equal(bl_export_read(w->e, is, PAGE, i * PAGE), 0);
                assert_memory_equal(is, page, PAGE);
        }
}

static void test_both_tiers(void **state)
{
        static struct writer w[2] = {{.seed = 1}, {.seed = 2}};
        char path[] = "/tmp/ballast-test-store-XXXXXX";
        int memory = memory_new(2 * BL_ARENA_CHUNK), fd = mkstemp(path);
        struct bl_store_figures f;
        struct bl_store *s;
        pthread_t t;

        (void)state;
        assert_true(memory >= 0 && fd >= 0);
        close(fd);
        s = attach(memory, true, path);
        for (uint8_t i = 0; i < 2; i++) {
                assert_int_equal(register_vm(s, i, SIZE, ""), 0);
                w[i].e = open_vm(s, i);
                assert_non_null(w[i].e);
        }
        assert_int_equal(pthread_create(&t, NULL, write_all, &w[0]), 0);
        write_all(&w[1]);
        pthread_join(t, NULL);
        assert_int_equal(w[0].error, 0);
        assert_int_equal(w[1].error, 0);
        bl_store_figures(s, &f);
        assert_true(f.disk_used > 7 * BL_MIB && !f.disk_failed);
        expect_all(&w[0]);
        expect_all(&w[1]);
        for (int i = 0; i < 2; i++)
                w[i].e = bl_export_close(w[i].e);
        s = bl_store_close(s);
        s = attach(memory, false, path);
        for (uint8_t i = 0; i < 2; i++) {
                w[i].e = open_vm(s, i);
                assert_non_null(w[i].e);
                expect_all(&w[i]);
        }
        assert_int_equal(bl_export_zero(w[0].e, SIZE, 0), 0);
        expect_all(&w[1]);
        for (int i = 0; i < 2; i++)
                w[i].e = bl_export_close(w[i].e);
        bl_tier_stop_thread(s);
        assert_int_equal(store_check(s), 0);
        bl_store_figures(s, &f);
        assert_int_equal(f.held, SIZE);
        assert_int_equal(damaged, 0);
        (void)bl_store_close(s);
        close(memory);
        unlink(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_both_tiers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
