// SPDX-License-Identifier: LGPL-2.1-or-later
/* What goes to the disk, comes back, and what happens when the disk does not play along. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "daemon/util/clock.h"
#include "tests/unit/test-store-disk.h"

#define PAGE BL_STORE_PAGE
#define DISK (16 * BL_MIB)

struct pool {
        int memory;
        uint8_t *disk;
        struct bl_store *s;
        pthread_mutex_t lock;
        unsigned events[_BL_STORE_EVENT_MAX];
        struct bl_store_event last;
};

static void on_event(void *userdata, const struct bl_store_event *ev)
{
        struct pool *p = userdata;

        pthread_mutex_lock(&p->lock);
        p->events[ev->kind]++;
        p->last = *ev;
        pthread_mutex_unlock(&p->lock);
}

static void pool_open(struct pool *p, bool fresh)
{
        struct bl_store_options o = {.arena = arena_on(p->memory, fresh),
                                     .disk = p->disk ? fake_disk(p->disk, DISK) : NULL,
                                     .on_event = on_event,
                                     .userdata = p};

        assert_int_equal(bl_store_open(&o, &p->s, NULL), 0);
}

static void pool_new(struct pool *p, size_t chunks)
{
        *p = (struct pool){.memory = memory_new(chunks * BL_ARENA_CHUNK)};
        pthread_mutex_init(&p->lock, NULL);
        p->disk = mmap(NULL, DISK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(p->memory >= 0 && p->disk != MAP_FAILED);
        pool_open(p, true);
}

static void pool_end(struct pool *p)
{
        bl_tier_stop_thread(p->s);
        assert_int_equal(store_check(p->s), 0);
        p->s = bl_store_close(p->s);
        close(p->memory);
        munmap(p->disk, DISK);
}

static struct bl_export *new_vm(const struct pool *p, uint8_t n, uint64_t size)
{
        struct bl_export *e;

        assert_int_equal(register_vm(p->s, n, size, ""), 0);
        e = open_vm(p->s, n);
        assert_non_null(e);
        return e;
}

static int write_page(struct bl_export *e, uint64_t slot, uint64_t content)
{
        uint8_t page[PAGE];

        fill_page(page, content);
        return bl_export_write(e, page, PAGE, slot * PAGE);
}

static int read_page(struct bl_export *e, uint64_t slot, uint64_t content)
{
        uint8_t page[PAGE], is[PAGE];
        int r = bl_export_read(e, is, PAGE, slot * PAGE);

        if (r < 0)
                return r;
        fill_page(page, content);
        return memcmp(is, page, PAGE) == 0 ? 0 : -EILSEQ;
}

static bool on_disk(struct bl_export *e, uint64_t slot)
{
        struct bl_meta *m;

        return bl_entry_at(e->store, bl_slot_entry(bl_slots_get(e, slot)), &m)->location & BL_LOCATION_DISK;
}

/* Three times what RAM holds, written by two threads while the thread takes it down. */
struct flood {
        struct bl_export *e;
        uint64_t base;
        int error;
};

static void *flood(void *arg)
{
        struct flood *f = arg;

        for (uint64_t i = 0; i < bl_export_size(f->e) / PAGE && f->error == 0; i++)
                f->error = write_page(f->e, i, 4 * (f->base + i) + 3);
        return NULL;
}

static void test_more_than_ram(void **state)
{
        struct bl_store_figures f;
        struct flood a, b;
        struct pool p;
        pthread_t t;

        (void)state;
        pool_new(&p, 2);
        bl_store_figures(p.s, &f);
        assert_true(f.backing > 12 * BL_MIB);
        a = (struct flood){.e = new_vm(&p, 1, 6 * BL_MIB), .base = 1};
        b = (struct flood){.e = new_vm(&p, 2, 6 * BL_MIB), .base = 100000};
        assert_int_equal(pthread_create(&t, NULL, flood, &a), 0);
        flood(&b);
        pthread_join(t, NULL);
        assert_int_equal(a.error, 0);
        assert_int_equal(b.error, 0);
        bl_store_figures(p.s, &f);
        assert_true(f.disk_used > 8 * BL_MIB && f.demoted >= f.disk_used);
        assert_int_equal(f.held, 12 * BL_MIB);
        for (uint64_t i = 0; i < 6 * BL_MIB / PAGE; i++) {
                assert_int_equal(read_page(a.e, i, 4 * (a.base + i) + 3), 0);
                assert_int_equal(read_page(b.e, i, 4 * (b.base + i) + 3), 0);
        }
        bl_export_close(b.e);
        bl_export_close(a.e);
        /* the next process claims it all */
        p.s = bl_store_close(p.s);
        pool_open(&p, false);
        a.e = open_vm(p.s, 1);
        for (uint64_t i = 0; i < 6 * BL_MIB / PAGE; i++)
                assert_int_equal(read_page(a.e, i, 4 * (a.base + i) + 3), 0);
        /* what is trimmed is free there too */
        assert_int_equal(bl_export_zero(a.e, 6 * BL_MIB, 0), 0);
        bl_store_figures(p.s, &f);
        assert_true(f.disk_used <= 6 * BL_MIB);
        bl_export_close(a.e);
        pool_end(&p);
}

static void test_what_goes_first(void **state)
{
        struct bl_store_registration r = registration(2, 256 * PAGE, "");
        struct bl_export *e, *over;
        struct pool p;

        (void)state;
        pool_new(&p, 4);
        bl_tier_stop_thread(p.s);
        e = new_vm(&p, 1, 512 * PAGE);
        over = new_vm(&p, 2, 256 * PAGE);
        for (uint64_t i = 0; i < 300; i++) {
                assert_int_equal(write_page(e, i, i % 2 ? 4 * i + 3 : 37 * 4 * i + 4), 0);
                assert_int_equal(i < 200 ? write_page(over, i, 37 * 4 * (i + 500) + 4) : 0, 0);
        }
        r.limit = 1;
        assert_int_equal(bl_store_register(p.s, &r), 0);
        assert_true(bl_tier_demote(p.s) > 0);
        /* all of who is over his limit; then what does not compress; what does stays longest */
        assert_true(on_disk(over, 0) && on_disk(over, 199));
        assert_true(on_disk(e, 1) && on_disk(e, 199));
        assert_false(on_disk(e, 0) || on_disk(e, 100));
        for (uint64_t i = 0; i < 300; i++)
                assert_int_equal(read_page(e, i, i % 2 ? 4 * i + 3 : 37 * 4 * i + 4), 0);
        /* a duplicate of what is on the disk is found there */
        assert_int_equal(write_page(e, 400, 4 * 1 + 3), 0);
        assert_true(on_disk(e, 400));
        bl_export_close(e);
        bl_export_close(over);
        pool_end(&p);
}

/* One floods with what does not compress; another's pages, that do, stay, also where what went down before the flood
 * was of their kind. */
static void test_what_stays(void **state)
{
        struct bl_export *small, *before;
        struct flood a;
        struct pool p;
        pthread_t t;
        uint32_t clock;

        (void)state;
        pool_new(&p, 4);
        before = new_vm(&p, 3, 4 * BL_MIB);
        for (uint64_t i = 0; i < 900; i++)
                assert_int_equal(write_page(before, i, 37 * 4 * i + 36), 0);
        /* as if RAM had been short */
        assert_true(bl_tier_demote(p.s) > 0);
        assert_int_equal(bl_export_zero(before, 4 * BL_MIB, 0), 0);
        small = new_vm(&p, 2, BL_MIB);
        for (uint64_t i = 0; i < 100; i++)
                assert_int_equal(write_page(small, i, 37 * 4 * (i + 1000) + 4), 0);
        /* the walk would come to them first */
        pthread_mutex_lock(&p.s->lock);
        p.s->hand = 0;
        pthread_mutex_unlock(&p.s->lock);
        a = (struct flood){.e = new_vm(&p, 1, 11 * BL_MIB), .base = 1};
        assert_int_equal(pthread_create(&t, NULL, flood, &a), 0);
        for (uint64_t i = 0; i < 2000; i++)
                assert_int_equal(read_page(small, i % 100, 37 * 4 * (i % 100 + 1000) + 4), 0);
        pthread_join(t, NULL);
        assert_int_equal(a.error, 0);
        for (uint64_t i = 0; i < 100; i++)
                assert_false(on_disk(small, i));
        assert_true(p.s->demoted > 2 * BL_MIB);
        /* time does not go back, when who came with an older one gets the lock later: the newest would be the oldest */
        pthread_mutex_lock(&p.s->lock);
        clock = p.s->clock += 100;
        pthread_mutex_unlock(&p.s->lock);
        assert_int_equal(read_page(small, 0, 37 * 4 * 1000 + 4), 0);
        assert_int_equal(p.s->clock, clock);
        bl_export_close(a.e);
        bl_export_close(small);
        bl_export_close(before);
        pool_end(&p);
}

static void test_cleaning(void **state)
{
        struct bl_export *e;
        struct pool p;

        (void)state;
        pool_new(&p, 4);
        bl_tier_stop_thread(p.s);
        e = new_vm(&p, 1, 512 * PAGE);
        for (uint64_t i = 0; i < 400; i++)
                assert_int_equal(write_page(e, i, i + 1), 0);
        while (bl_tier_demote(p.s) > 0)
                ;
        for (uint64_t i = 0; i < 400; i += 2)
                assert_int_equal(bl_export_zero(e, PAGE, i * PAGE), 0);
        p.s->disk->pick = true;
        assert_true(bl_tier_clean(p.s) > 0);
        assert_int_equal(store_check(p.s), 0);
        for (uint64_t i = 1; i < 400; i += 2) {
                assert_true(on_disk(e, i));
                assert_int_equal(read_page(e, i, i + 1), 0);
        }
        bl_export_close(e);
        pool_end(&p);
}

static void test_bad_disk(void **state)
{
        struct bl_export *e;
        struct pool p;
        struct bl_store_figures f;
        uint8_t uuid[BL_UUID_LEN];

        (void)state;
        uuid_of(1, uuid);
        pool_new(&p, 4);
        bl_tier_stop_thread(p.s);
        e = new_vm(&p, 1, 512 * PAGE);
        for (uint64_t i = 0; i < 100; i++)
                assert_int_equal(write_page(e, i, i + 1), 0);
        /* it takes nothing: all stays in RAM */
        p.s->disk->append_fails = -EIO;
        assert_int_equal(bl_tier_demote(p.s), -EIO);
        assert_int_equal(bl_tier_demote(p.s), -EIO);
        assert_int_equal(p.events[BL_STORE_DISK_FAILED], 1);
        bl_store_figures(p.s, &f);
        assert_true(f.disk_failed && f.disk_used == 0);
        for (uint64_t i = 0; i < 100; i++)
                assert_int_equal(read_page(e, i, i + 1), 0);
        p.s->disk->append_fails = 0;
        p.s->cut = 0;
        assert_true(bl_tier_demote(p.s) > 0);
        assert_int_equal(p.events[BL_STORE_DISK_BACK], 1);
        assert_true(on_disk(e, 5) && on_disk(e, 6));
        /* it hangs, or cannot read */
        p.s->disk->read_fails = -ETIMEDOUT;
        assert_int_equal(read_page(e, 5, 6), -EIO);
        assert_int_equal(read_page(e, 6, 7), -EIO);
        /* it may come back: nothing is lost, and it is said once */
        assert_int_equal(p.events[BL_STORE_DISK_FAILED], 2);
        assert_int_equal(p.events[BL_STORE_LOST], 0);
        bl_store_figures(p.s, &f);
        assert_int_equal(f.errors, 0);
        assert_int_equal(write_page(e, 200, 6), 0); /* what it would be the same as cannot be read */
        assert_false(on_disk(e, 200));
        p.s->disk->pick = true;
        assert_true(bl_tier_clean(p.s) < 0);
        assert_int_equal(p.events[BL_STORE_DISK_FAILED], 2);
        p.s->disk->read_fails = 0;
        assert_int_equal(read_page(e, 5, 6), 0);
        assert_int_equal(read_page(e, 200, 6), 0);
        p.s->disk->read_fails = -EIO;
        assert_int_equal(read_page(e, 6, 7), -EIO);
        assert_int_equal(p.events[BL_STORE_LOST], 1);
        p.s->disk->read_fails = 0;
        /* a bit flips on it: one page, its VM is named */
        for (uint32_t i = 0; i < FAKE_BLOBS; i++) {
                struct bl_disk_blob *b = &p.s->disk->blobs[i];

                if (b->size > 0 && b->entry == bl_slot_entry(bl_slots_get(e, 7)))
                        p.disk[b->place * BL_DISK_GRAIN + b->size / 2] ^= 1;
        }
        assert_int_equal(read_page(e, 7, 8), -EIO);
        assert_int_equal(p.last.kind, BL_STORE_DAMAGED);
        assert_int_equal(p.last.offset, 7 * PAGE);
        assert_memory_equal(p.last.uuid, uuid, BL_UUID_LEN);
        assert_int_equal(read_page(e, 8, 9), 0);
        bl_export_close(e);
        pool_end(&p);
}

/* RAM is full and the disk takes nothing: writers wait, then it is an error; what was there stays right. */
static void test_no_room(void **state)
{
        struct bl_store_figures f;
        struct bl_export *e;
        struct pool p;
        uint64_t n = 0;
        int r = 0;

        (void)state;
        bl_tier_patience = 300 * BL_MSEC;
        pool_new(&p, 1);
        p.s->disk->append_fails = -EIO;
        e = new_vm(&p, 1, 8 * BL_MIB);
        while (r == 0 && n < 8 * BL_MIB / PAGE) {
                r = write_page(e, n, 4 * (n + 1) + 3);
                n++;
        }
        assert_int_equal(r, -EIO);
        assert_true(p.events[BL_STORE_FULL] == 1 && p.events[BL_STORE_DISK_FAILED] == 1);
        bl_store_figures(p.s, &f);
        assert_int_equal(f.waiting, 0);
        for (uint64_t i = 0; i + 1 < n; i++)
                assert_int_equal(read_page(e, i, 4 * (i + 1) + 3), 0);
        assert_int_equal(read_page(e, n - 1, 0), 0);
        /* it comes back */
        p.s->disk->append_fails = 0;
        bl_tier_patience = 30 * BL_SEC;
        assert_int_equal(write_page(e, n - 1, 5), 0);
        assert_true(p.events[BL_STORE_ROOM] == 1 && p.events[BL_STORE_DISK_BACK] == 1);
        bl_export_close(e);
        pool_end(&p);
}

/* One floods a slow disk; another, that has less than its share, is not kept waiting by it. */
static void test_flood(void **state)
{
        usec_t worst_flood = 0, worst_small = 0;
        struct bl_store_figures f;
        struct bl_export *small;
        struct flood a;
        struct pool p;
        pthread_t t;

        (void)state;
        pool_new(&p, 2);
        p.s->disk->append_takes = 30 * BL_MSEC;
        small = new_vm(&p, 2, BL_MIB);
        a = (struct flood){.e = new_vm(&p, 1, 11 * BL_MIB), .base = 1};
        assert_int_equal(pthread_create(&t, NULL, flood, &a), 0);
        do {
                usleep(500);
                bl_store_figures(p.s, &f);
        } while (f.waiting == 0 && f.writes < 11 * BL_MIB / PAGE);
        assert_true(f.waiting > 0);
        for (uint64_t i = 0; i < 80; i++) {
                usec_t start = bl_now();

                assert_int_equal(write_page(small, i, 4 * (i + 500000) + 3), 0);
                worst_small = bl_max(worst_small, bl_now() - start);
                bl_store_figures(p.s, &f);
                worst_flood = bl_max(worst_flood, f.oldest_request);
                usleep(2000);
        }
        pthread_join(t, NULL);
        assert_int_equal(a.error, 0);
        print_message("longest wait: the flood %llu us, the other %llu us\n", (unsigned long long)worst_flood,
                      (unsigned long long)worst_small);
        assert_true(worst_small * 2 < bl_max(worst_flood, 20 * BL_MSEC));
        bl_export_close(small);
        bl_export_close(a.e);
        pool_end(&p);
}

/* The next process has no disk: what was there is lost, and an error; the rest is served. */
static void test_disk_gone(void **state)
{
        struct bl_store *s;
        struct bl_export *e;
        struct pool p;
        unsigned lost = 0;

        (void)state;
        pool_new(&p, 4);
        bl_tier_stop_thread(p.s);
        e = new_vm(&p, 1, 512 * PAGE);
        for (uint64_t i = 0; i < 100; i++)
                assert_int_equal(write_page(e, i, i + 1), 0);
        assert_true(bl_tier_demote(p.s) > 0);
        for (uint64_t i = 100; i < 200; i++)
                assert_int_equal(write_page(e, i, i + 1), 0);
        bl_export_close(e);
        p.s = bl_store_close(p.s);
        s = store_on(p.memory, false, NULL);
        assert_non_null(s);
        e = open_vm(s, 1);
        for (uint64_t i = 0; i < 200; i++) {
                int r = read_page(e, i, i + 1);

                assert_true(r == 0 || r == -EIO);
                lost += r < 0;
                assert_true(r == 0 || i < 100);
        }
        assert_true(lost == 100);
        bl_export_close(e);
        assert_int_equal(store_check(s), 0);
        (void)bl_store_close(s);
        close(p.memory);
        munmap(p.disk, DISK);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_more_than_ram), cmocka_unit_test(test_what_goes_first),
                cmocka_unit_test(test_flood),         cmocka_unit_test(test_cleaning),
                cmocka_unit_test(test_bad_disk),      cmocka_unit_test(test_no_room),
                cmocka_unit_test(test_disk_gone),     cmocka_unit_test(test_what_stays),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
