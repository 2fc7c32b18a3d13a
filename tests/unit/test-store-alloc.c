// SPDX-License-Identifier: LGPL-2.1-or-later
/* Memory that is refused, the 1st to the nth time: an error or none, but nothing lost and nothing leaked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "tests/unit/test-store-disk.h"

#define PAGE BL_STORE_PAGE

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void __libc_free(void *p);

static long fail_at, live; /* 0: none fails; counts while `counting` */
static bool counting;

static bool refused(void)
{
        if (!counting)
                return false;
        return fail_at > 0 && --fail_at == 0;
}

void *malloc(size_t size)
{
        void *p = refused() ? NULL : __libc_malloc(size);

        live += counting && p;
        if (!p)
                errno = ENOMEM;
        return p;
}

void *calloc(size_t n, size_t size)
{
        void *p = refused() ? NULL : __libc_calloc(n, size);

        live += counting && p;
        if (!p)
                errno = ENOMEM;
        return p;
}

void free(void *p)
{
        live -= counting && p;
        __libc_free(p);
}

/* The host has no more memory for the pool, from the nth chunk on. */
static long chunks_left = -1;

int madvise(void *at, size_t size, int advice)
{
        if (advice == MADV_POPULATE_WRITE && chunks_left >= 0 && chunks_left-- == 0) {
                chunks_left = 0;
                errno = ENOMEM;
                return -1;
        }
        return (int)syscall(SYS_madvise, at, size, advice);
}

/* bl_store_open frees what it is given; what is made for it is counted too. */
static int open_store(int memory, bool fresh, struct bl_store **ret)
{
        struct bl_store_options o = {.arena = arena_on(memory, fresh)};

        return bl_store_open(&o, ret, NULL);
}

static int run(int memory, bool fresh, bool *ret_written)
{
        struct bl_store *s = NULL;
        struct bl_export *e = NULL;
        uint8_t page[PAGE], uuid[BL_UUID_LEN];
        int r = open_store(memory, fresh, &s);

        *ret_written = false;
        if (r < 0)
                return r;
        r = register_vm(s, 1, 256 * PAGE, "");
        if (r >= 0) {
                uuid_of(1, uuid);
                r = bl_export_open(s, uuid, getpid(), START, 0, &e);
        }
        if (r >= 0) {
                fill_page(page, 5);
                r = bl_export_write(e, page, PAGE, 7 * PAGE);
                *ret_written = r >= 0;
                (void)bl_export_close(e);
        }
        counting = false;
        assert_int_equal(store_check(s), 0);
        counting = true;
        (void)bl_store_close(s);
        return r;
}

static void test_refused(void **state)
{
        unsigned failures = 0;
        int r;

        (void)state;
        for (long n = 1;; n++) {
                int memory = memory_new(BL_ARENA_CHUNK);
                bool written, again;
                struct bl_store *s;
                struct bl_export *e;
                uint8_t page[PAGE], is[PAGE];

                fill_page(page, 5);
                live = 0;
                counting = true;
                /* the first three are the arena's own */
                fail_at = n + 2;
                r = run(memory, true, &written);
                assert_int_equal(live, 0);
                fail_at = 0;
                /* whatever it was, the next process goes on, and what was acknowledged is there */
                assert_int_equal(run(memory, false, &again), 0);
                assert_int_equal(live, 0);
                counting = false;
                s = store_on(memory, false, NULL);
                assert_non_null(s);
                e = open_vm(s, 1);
                assert_non_null(e);
                assert_int_equal(bl_export_read(e, is, PAGE, 7 * PAGE), 0);
                assert_memory_equal(is, page, PAGE);
                (void)bl_export_close(e);
                (void)bl_store_close(s);
                close(memory);
                if (r >= 0 && n > 20)
                        break;
                failures += r < 0;
        }
        assert_true(failures >= 8);
}

/* Many entries' worth of writes, each allocation refused in turn: it waits, or goes on with longer chains. */
static void test_refused_while_writing(void **state)
{
        int memory = memory_new(4 * BL_ARENA_CHUNK);
        struct bl_store *s = store_on(memory, true, NULL);
        struct bl_export *e;
        uint8_t page[PAGE], is[PAGE];

        (void)state;
        assert_int_equal(register_vm(s, 1, 1024 * PAGE, ""), 0);
        e = open_vm(s, 1);
        for (uint64_t i = 0; i < 1024; i++) {
                fill_page(page, 4 * i + 1);
                counting = true;
                fail_at = 1;
                assert_int_equal(bl_export_write(e, page, PAGE, i * PAGE), 0);
                counting = false;
        }
        for (uint64_t i = 0; i < 1024; i++) {
                fill_page(page, 4 * i + 1);
                assert_int_equal(bl_export_read(e, is, PAGE, i * PAGE), 0);
                assert_memory_equal(is, page, PAGE);
        }
        assert_int_equal(store_check(s), 0);
        (void)bl_export_close(e);
        (void)bl_store_close(s);
        close(memory);
}

static uint64_t write_until_refused(struct bl_export *e, uint64_t from)
{
        uint8_t page[PAGE];
        int r = 0;

        while (r >= 0 && from < bl_export_size(e) / PAGE) {
                fill_page(page, 4 * from + 3);
                r = bl_export_write(e, page, PAGE, from * PAGE);
                if (r >= 0)
                        from++;
        }
        assert_true(r == 0 || r == -EIO);
        return from;
}

/* The host refuses memory to the pool: an error after a while, what was acknowledged stays, and it goes on later. */
static void test_chunk_refused(void **state)
{
        uint64_t before = 0;

        (void)state;
        bl_tier_patience = 50 * BL_MSEC;
        for (long n = 0; n <= 4; n++) {
                int memory = memory_new(4 * BL_ARENA_CHUNK);
                struct bl_store_options o = {.arena = arena_on(memory, true)};
                struct bl_store *s = NULL;
                struct bl_export *e;
                uint64_t written;
                uint8_t page[PAGE], is[PAGE];
                int r;

                /* nothing of it is there */
                assert_int_equal(fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * BL_ARENA_CHUNK),
                                 0);
                chunks_left = n;
                r = bl_store_open(&o, &s, NULL);
                if (n == 0) {
                        assert_int_equal(r, -ENOMEM);
                        close(memory);
                        continue;
                }
                assert_int_equal(r, 0);
                assert_int_equal(bl_store_reserve(s, 4 * BL_ARENA_CHUNK), n < 4 ? -ENOMEM : 0);
                assert_int_equal(s->ready_pages, (uint32_t)n * BL_CHUNK_PAGES);
                assert_int_equal(register_vm(s, 1, 1500 * PAGE, ""), 0);
                e = open_vm(s, 1);
                written = write_until_refused(e, 0);
                assert_true(n < 4 ? written < 1500 && written > before + 100 : written == 1500);
                before = written;
                assert_int_equal(store_check(s), 0);
                for (uint64_t i = 0; i < written; i++) {
                        fill_page(page, 4 * i + 3);
                        assert_int_equal(bl_export_read(e, is, PAGE, i * PAGE), 0);
                        assert_memory_equal(is, page, PAGE);
                }
                chunks_left = -1;
                assert_int_equal(write_until_refused(e, written), 1500);
                assert_int_equal(store_check(s), 0);
                (void)bl_export_close(e);
                (void)bl_store_close(s);
                close(memory);
        }
        bl_tier_patience = 30 * BL_SEC;
}
#endif

int main(void)
{
        const struct CMUnitTest tests[] = {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_refused_while_writing),
                cmocka_unit_test(test_chunk_refused),
#endif
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
