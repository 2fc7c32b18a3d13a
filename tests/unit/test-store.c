// SPDX-License-Identifier: LGPL-2.1-or-later
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "tests/unit/test-store-util.h"

#define PAGE BL_STORE_PAGE

struct pool {
        int memory;
        struct bl_store *s;
        struct bl_store_event last;
        unsigned events;
};

static void on_event(void *userdata, const struct bl_store_event *ev)
{
        struct pool *p = userdata;

        p->last = *ev;
        p->events++;
}

static void pool_open(struct pool *p, bool fresh)
{
        struct bl_store_options o = {.arena = arena_on(p->memory, fresh), .on_event = on_event, .userdata = p};

        assert_int_equal(bl_store_open(&o, &p->s, NULL), 0);
}

static void pool_new(struct pool *p, size_t chunks)
{
        *p = (struct pool){.memory = memory_new(chunks * BL_ARENA_CHUNK)};
        assert_true(p->memory >= 0);
        pool_open(p, true);
}

static void pool_reopen(struct pool *p)
{
        p->s = bl_store_close(p->s);
        pool_open(p, false);
        assert_int_equal(store_check(p->s), 0);
}

static void pool_end(struct pool *p)
{
        assert_int_equal(store_check(p->s), 0);
        p->s = bl_store_close(p->s);
        close(p->memory);
}

static struct bl_store_figures figures(const struct pool *p)
{
        struct bl_store_figures f;

        bl_store_figures(p->s, &f);
        return f;
}

static struct bl_export *new_vm(const struct pool *p, uint8_t n, uint64_t size, const char *group)
{
        struct bl_export *e;

        assert_int_equal(register_vm(p->s, n, size, group), 0);
        e = open_vm(p->s, n);
        assert_non_null(e);
        return e;
}

static void write_page(struct bl_export *e, uint64_t slot, uint64_t content)
{
        uint8_t page[PAGE];

        fill_page(page, content);
        assert_int_equal(bl_export_write(e, page, PAGE, slot * PAGE), 0);
}

static void expect_page(struct bl_export *e, uint64_t slot, uint64_t content)
{
        uint8_t page[PAGE], is[PAGE];

        fill_page(page, content);
        assert_int_equal(bl_export_read(e, is, PAGE, slot * PAGE), 0);
        assert_memory_equal(is, page, PAGE);
}

static struct bl_store_vm vm(const struct pool *p, uint8_t n)
{
        struct bl_store_vm all[8];
        size_t k = bl_store_vms(p->s, all, 8);

        for (size_t i = 0; i < k; i++)
                if (all[i].uuid[BL_UUID_LEN - 1] == n)
                        return all[i];
        fail();
        return all[0];
}

/* --- operations -------------------------------------------------------------------------- */

static void test_empty(void **state)
{
        struct pool p;
        struct bl_export *e;
        uint8_t buf[3 * PAGE];

        (void)state;
        pool_new(&p, 1);
        assert_true(figures(&p).incarnation != 0);
        e = new_vm(&p, 1, 64 * PAGE, "");
        assert_int_equal(bl_export_size(e), 64 * PAGE);
        memset(buf, 1, sizeof(buf));
        assert_int_equal(bl_export_read(e, buf, sizeof(buf), 5), 0);
        for (size_t i = 0; i < sizeof(buf); i++)
                assert_int_equal(buf[i], 0);
        assert_int_equal(figures(&p).pool_used, 0);
        assert_int_equal(bl_export_read(e, buf, PAGE, 63 * PAGE + 1), -EINVAL);
        assert_int_equal(bl_export_write(e, buf, 1, 64 * PAGE), -EINVAL);
        assert_int_equal(bl_export_zero(e, UINT64_MAX, PAGE), -EINVAL);
        assert_int_equal(bl_export_write(e, buf, 0, 64 * PAGE), 0);
        bl_export_close(e);
        pool_end(&p);
}

/* Any offset and size against plain memory, over the border of two tables. */
static void test_any_alignment(void **state)
{
        static uint8_t model[40 * PAGE], buf[40 * PAGE];
        uint64_t seed = 4242, base = (BL_TABLE - 20) * (uint64_t)PAGE;
        struct pool p;
        struct bl_export *e;

        (void)state;
        memset(model, 0, sizeof(model));
        pool_new(&p, 3);
        e = new_vm(&p, 1, 2 * BL_TABLE * PAGE, "");
        for (unsigned i = 0; i < 3000; i++) {
                size_t at = next_random(&seed) % sizeof(model);
                size_t n =
                        next_random(&seed) % (i % 5 == 0 ? sizeof(model) - at : bl_min(3 * PAGE, sizeof(model) - at));

                switch (next_random(&seed) % 4) {
                case 0:
                        assert_int_equal(bl_export_zero(e, n, base + at), 0);
                        memset(model + at, 0, n);
                        break;
                case 1:
                        for (size_t k = 0; k < n; k++)
                                buf[k] = (uint8_t)(k % 7 + (size_t)i % 3);
                        assert_int_equal(bl_export_write(e, buf, n, base + at), 0);
                        memcpy(model + at, buf, n);
                        break;
                case 2:
                        for (size_t k = 0; k < n; k++)
                                buf[k] = (uint8_t)next_random(&seed);
                        assert_int_equal(bl_export_write(e, buf, n, base + at), 0);
                        memcpy(model + at, buf, n);
                        break;
                default:
                        memset(buf, 0x55, n);
                        assert_int_equal(bl_export_read(e, buf, n, base + at), 0);
                        assert_memory_equal(buf, model + at, n);
                }
                if (i % 500 == 0)
                        assert_int_equal(store_check(p.s), 0);
        }
        bl_export_close(e);
        pool_reopen(&p);
        e = open_vm(p.s, 1);
        assert_int_equal(bl_export_read(e, buf, sizeof(model), base), 0);
        assert_memory_equal(buf, model, sizeof(model));
        assert_int_equal(bl_export_zero(e, 2 * BL_TABLE * PAGE, 0), 0);
        assert_int_equal(figures(&p).held, 0);
        assert_int_equal(figures(&p).payload, 0);
        assert_int_equal(p.events, 0);
        bl_export_close(e);
        pool_end(&p);
}

static void test_zero_pages(void **state)
{
        struct pool p;
        struct bl_export *e;
        uint64_t size;

        (void)state;
        pool_new(&p, 1);
        e = new_vm(&p, 1, 64 * PAGE, "");
        write_page(e, 3, 0);
        write_page(e, 4, 8);
        assert_int_equal(figures(&p).zero, PAGE);
        assert_int_equal(figures(&p).held, PAGE);
        size = 64 * PAGE;
        assert_int_equal(bl_export_extent(e, 0, &size), 0);
        assert_int_equal(size, 4 * PAGE);
        size = 64 * PAGE - 4 * PAGE - 100;
        assert_int_equal(bl_export_extent(e, 4 * PAGE + 100, &size), 1);
        assert_int_equal(size, PAGE - 100);
        size = 59 * PAGE;
        assert_int_equal(bl_export_extent(e, 5 * PAGE, &size), 0);
        assert_int_equal(size, 59 * PAGE);
        write_page(e, 4, 0);
        assert_int_equal(figures(&p).held, 0);
        assert_int_equal(figures(&p).payload, 0);
        assert_int_equal(bl_export_zero(e, 64 * PAGE, 0), 0);
        assert_int_equal(figures(&p).zero, 0);
        bl_export_close(e);
        pool_end(&p);
}

/* --- groups ---------------------------------------------------------------------------------- */

static void test_dedup(void **state)
{
        struct pool p;
        struct bl_export *a, *b, *c, *d;
        uint8_t buf[4 * PAGE];

        (void)state;
        pool_new(&p, 1);
        a = new_vm(&p, 1, 32 * PAGE, "web");
        b = new_vm(&p, 2, 32 * PAGE, "web");
        c = new_vm(&p, 3, 32 * PAGE, "");
        d = new_vm(&p, 4, 32 * PAGE, "");
        write_page(a, 0, 5);
        write_page(a, 1, 5);
        write_page(b, 0, 5);
        assert_int_equal(figures(&p).unique, PAGE);
        assert_int_equal(figures(&p).held, 3 * PAGE);
        assert_int_equal(figures(&p).dedup_hits, 2);
        assert_int_equal(vm(&p, 1).shared, 2 * PAGE);
        /* others, and those that name no group, share nothing */
        write_page(c, 0, 5);
        write_page(d, 0, 5);
        assert_int_equal(figures(&p).unique, 3 * PAGE);
        assert_int_equal(vm(&p, 3).shared, 0);
        /* the same several times in one request */
        for (int i = 0; i < 4; i++)
                fill_page(buf + (size_t)i * PAGE, 9);
        assert_int_equal(bl_export_write(c, buf, sizeof(buf), 8 * PAGE), 0);
        assert_int_equal(figures(&p).unique, 4 * PAGE);
        for (uint64_t i = 8; i < 12; i++)
                expect_page(c, i, 9);
        /* what is replaced is free when its last reference goes */
        write_page(a, 0, 6);
        write_page(a, 1, 6);
        expect_page(b, 0, 5);
        assert_int_equal(figures(&p).unique, 5 * PAGE);
        assert_int_equal(bl_export_zero(b, PAGE, 0), 0);
        assert_int_equal(figures(&p).unique, 4 * PAGE);
        bl_export_close(a);
        bl_export_close(b);
        bl_export_close(c);
        bl_export_close(d);
        pool_reopen(&p);
        assert_int_equal(figures(&p).unique, 4 * PAGE);
        a = open_vm(p.s, 1);
        expect_page(a, 0, 6);
        write_page(a, 5, 6);
        assert_int_equal(figures(&p).unique, 4 * PAGE);
        bl_export_close(a);
        pool_end(&p);
}

/* What was shared before a VM leaves a group stays, what it writes then is its own. */
static void test_leave_group(void **state)
{
        struct pool p;
        struct bl_export *a, *b;

        (void)state;
        pool_new(&p, 1);
        a = new_vm(&p, 1, 32 * PAGE, "web");
        b = new_vm(&p, 2, 32 * PAGE, "web");
        write_page(a, 0, 5);
        write_page(b, 0, 5);
        assert_int_equal(register_vm(p.s, 2, 32 * PAGE, ""), 0);
        write_page(b, 1, 5);
        assert_int_equal(figures(&p).unique, 2 * PAGE);
        expect_page(b, 0, 5);
        expect_page(b, 1, 5);
        bl_export_close(a);
        bl_export_close(b);
        pool_reopen(&p);
        b = open_vm(p.s, 2);
        expect_page(b, 0, 5);
        expect_page(b, 1, 5);
        bl_export_close(b);
        pool_end(&p);
}

/* A hash of 4 bits: nearly every page collides, and each reads as what was written. */
static void test_collisions(void **state)
{
        struct pool p;
        struct bl_export *e;

        (void)state;
        bl_codec_hash_mask = UINT64_C(0xf00000000000000f);
        pool_new(&p, 1);
        e = new_vm(&p, 1, 128 * PAGE, "");
        for (uint64_t i = 0; i < 128; i++)
                write_page(e, i, i % 100 + 1);
        for (uint64_t i = 0; i < 128; i++)
                expect_page(e, i, i % 100 + 1);
        for (uint64_t i = 0; i < 128; i += 2)
                write_page(e, i, i + 200);
        for (uint64_t i = 0; i < 128; i++)
                expect_page(e, i, i % 2 ? i % 100 + 1 : i + 200);
        bl_export_close(e);
        pool_end(&p);
        bl_codec_hash_mask = UINT64_MAX;
}

/* --- who may open ------------------------------------------------------------------------------- */

static void test_registration(void **state)
{
        struct pool p;
        struct bl_export *e, *other = NULL;
        struct bl_store_registration r = registration(1, 32 * PAGE, "web");
        uint64_t stamp;

        (void)state;
        pool_new(&p, 1);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start, 0, &e), -EPERM);
        assert_int_equal(bl_store_register(p.s, &r), 0);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid + 1, r.start, 0, &e), -EPERM);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start + 1, 0, &e), -EPERM);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start, 0, &e), 0);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start, 20 * BL_MSEC, &other), -EBUSY);
        write_page(e, 0, 5);
        /* the same process again: nothing changes but the limit */
        r.limit = BL_MIB;
        assert_int_equal(bl_store_register(p.s, &r), 0);
        assert_int_equal(vm(&p, 1).limit, BL_MIB);
        expect_page(e, 0, 5);
        r.size = 64 * PAGE;
        assert_int_equal(bl_store_register(p.s, &r), -EINVAL);
        r.size = 32 * PAGE;
        /* another one, while it is open */
        r.start++;
        assert_int_equal(bl_store_register(p.s, &r), -EBUSY);
        bl_export_close(e);
        pool_reopen(&p);
        /* restored from a save: only if it knows the last write */
        stamp = vm(&p, 1).stamp;
        assert_true(stamp > 0);
        r.incarnation = figures(&p).incarnation;
        r.stamp = stamp - 1;
        assert_int_equal(bl_store_register(p.s, &r), -ESTALE);
        r.stamp = BL_UNSET;
        assert_int_equal(bl_store_register(p.s, &r), -ESTALE);
        r.incarnation++;
        r.stamp = stamp;
        assert_int_equal(bl_store_register(p.s, &r), -ESTALE);
        r.incarnation--;
        assert_int_equal(bl_store_register(p.s, &r), 0);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start, 0, &e), 0);
        expect_page(e, 0, 5);
        bl_export_close(e);
        /* a cold boot */
        r.start++;
        r.incarnation = 0;
        assert_int_equal(bl_store_register(p.s, &r), 0);
        assert_int_equal(figures(&p).held, 0);
        assert_int_equal(bl_export_open(p.s, r.uuid, r.pid, r.start, 0, &e), 0);
        expect_page(e, 0, 0);
        bl_export_close(e);
        assert_int_equal(bl_store_forget(p.s, r.uuid), 0);
        assert_int_equal(bl_store_forget(p.s, r.uuid), -ENOENT);
        assert_int_equal(figures(&p).promised, 0);
        pool_end(&p);
}

/* The VM runs, the pool is a new one: what was not written since is an error, never zeros. */
static void test_lost(void **state)
{
        struct pool p;
        struct bl_export *e;
        struct bl_store_registration r = registration(1, 32 * PAGE, "");
        uint8_t page[PAGE];
        uint64_t size = 32 * PAGE;

        (void)state;
        pool_new(&p, 1);
        r.incarnation = figures(&p).incarnation + 1;
        assert_int_equal(bl_store_register(p.s, &r), 0);
        e = open_vm(p.s, 1);
        assert_true(vm(&p, 1).lost);
        assert_int_equal(bl_export_read(e, page, PAGE, 0), -EIO);
        assert_int_equal(p.last.kind, BL_STORE_LOST);
        assert_memory_equal(p.last.uuid, r.uuid, BL_UUID_LEN);
        assert_int_equal(bl_export_write(e, page, 10, 0), -EIO);
        assert_int_equal(bl_export_extent(e, 0, &size), 1);
        write_page(e, 1, 5);
        expect_page(e, 1, 5);
        assert_int_equal(bl_export_zero(e, 3 * PAGE, 2 * PAGE), 0);
        expect_page(e, 2, 0);
        assert_int_equal(bl_export_zero(e, PAGE, PAGE), 0);
        expect_page(e, 1, 0);
        bl_export_close(e);
        pool_reopen(&p);
        e = open_vm(p.s, 1);
        expect_page(e, 1, 0);
        assert_int_equal(bl_export_read(e, page, PAGE, 31 * PAGE), -EIO);
        bl_export_close(e);
        pool_end(&p);
}

static void test_forget_open(void **state)
{
        struct pool p;
        struct bl_export *e, *again;
        uint8_t page[PAGE] = {1}, uuid[BL_UUID_LEN];
        uint64_t size = PAGE;

        (void)state;
        uuid_of(1, uuid);
        pool_new(&p, 1);
        e = new_vm(&p, 1, 32 * PAGE, "");
        write_page(e, 0, 5);
        assert_int_equal(bl_store_forget(p.s, uuid), 0);
        assert_int_equal(figures(&p).held, 0);
        assert_int_equal(bl_export_read(e, page, PAGE, 0), -EIO);
        assert_int_equal(bl_export_write(e, page, PAGE, 0), -EIO);
        assert_int_equal(bl_export_write(e, page, 5, 3), -EIO);
        assert_int_equal(bl_export_zero(e, PAGE, 0), -EIO);
        assert_int_equal(bl_export_extent(e, 0, &size), -EIO);
        again = new_vm(&p, 1, 16 * PAGE, "");
        expect_page(again, 0, 0);
        bl_export_close(e);
        write_page(again, 0, 6);
        bl_export_close(again);
        pool_end(&p);
}

/* --- bounds ------------------------------------------------------------------------------------------ */

static void test_full(void **state)
{
        struct pool p;
        struct bl_export *e;
        struct bl_store_registration r = registration(2, PAGE, "");
        uint64_t backing;

        (void)state;
        pool_new(&p, 1);
        backing = figures(&p).backing / PAGE * PAGE;
        assert_true(backing > BL_MIB && backing < 2 * BL_MIB);
        r.size = backing + PAGE;
        assert_int_equal(bl_store_register(p.s, &r), -ENOSPC);
        /* all that was promised is written, twice, with what does not compress */
        e = new_vm(&p, 1, (figures(&p).backing - 16 * PAGE) / PAGE * PAGE, "");
        r.size = backing / PAGE / 2 * PAGE;
        assert_int_equal(bl_store_register(p.s, &r), -ENOSPC);
        for (uint64_t round = 0; round < 2; round++)
                for (uint64_t i = 0; i < bl_export_size(e) / PAGE; i++)
                        write_page(e, i, 4 * (i + 1000 * round) + 3);
        for (uint64_t i = 0; i < bl_export_size(e) / PAGE; i++)
                expect_page(e, i, 4 * (i + 1000) + 3);
        assert_int_equal(figures(&p).held, bl_export_size(e));
        assert_true(figures(&p).headroom < BL_MIB / 2);
        bl_export_close(e);
        pool_end(&p);
}

/* Mixed sizes, each class in turn with holes: what fits uncompressed always fits. */
static void test_full_of_holes(void **state)
{
        struct pool p;
        struct bl_export *e;
        uint64_t n;

        (void)state;
        pool_new(&p, 2);
        e = new_vm(&p, 1, (figures(&p).backing - 16 * PAGE) / PAGE * PAGE, "");
        n = bl_export_size(e) / PAGE;
        for (uint64_t round = 0; round < 6; round++) {
                for (uint64_t i = 0; i < n; i++)
                        if (round == 0 || i % 7 != round)
                                write_page(e, i, round == 5 ? 4 * i + 3 : i * 4 + round % 3 + 10000 * round);
                for (uint64_t i = round; i < n; i += 3)
                        assert_int_equal(bl_export_zero(e, PAGE, i * PAGE), 0);
        }
        for (uint64_t i = 0; i < n; i++)
                write_page(e, i, 4 * (i + 50000) + 3);
        for (uint64_t i = 0; i < n; i++)
                expect_page(e, i, 4 * (i + 50000) + 3);
        bl_export_close(e);
        pool_end(&p);
}

static void test_compaction(void **state)
{
        struct pool p;
        struct bl_export *e;
        struct bl_store_figures f;
        uint64_t n = 4000, used;

        (void)state;
        pool_new(&p, 9);
        e = new_vm(&p, 1, n * PAGE, "");
        for (uint64_t i = 0; i < n; i++)
                write_page(e, i, i % 4 == 3 ? i * 4 + 1 : i);
        for (uint64_t i = 0; i < n; i++)
                if (i % 5)
                        assert_int_equal(bl_export_zero(e, PAGE, i * PAGE), 0);
        used = figures(&p).pool_used;
        assert_true(bl_store_compact(p.s, 10 * BL_SEC) > 0);
        f = figures(&p);
        assert_true(f.pool_used < used);
        /* most classes hold a span that is not full */
        assert_true(f.slack < f.payload / 10 + 90 * 8 * PAGE / 2);
        assert_true(f.pool_ready < 9 * BL_ARENA_CHUNK);
        assert_int_equal(store_check(p.s), 0);
        for (uint64_t i = 0; i < n; i++)
                expect_page(e, i, i % 5 ? 0 : i % 4 == 3 ? i * 4 + 1 : i);
        assert_int_equal(bl_store_reserve(p.s, 9 * BL_ARENA_CHUNK), 0);
        assert_int_equal(figures(&p).pool_ready, 9 * BL_ARENA_CHUNK);
        assert_int_equal(bl_store_reserve(p.s, 0), 0);
        f = figures(&p);
        assert_true(f.pool_ready >= f.pool_used && f.pool_ready < 9 * BL_ARENA_CHUNK);
        bl_export_close(e);
        pool_reopen(&p);
        e = open_vm(p.s, 1);
        for (uint64_t i = 0; i < n; i += 5)
                expect_page(e, i, i % 4 == 3 ? i * 4 + 1 : i);
        bl_export_close(e);
        pool_end(&p);
}

/* --- damage ------------------------------------------------------------------------------------------- */

enum damage {
        IN_PAYLOAD,
        IN_LOCATION,
        IN_HASH,
        IN_SIZE,
        IN_GROUP,
        IN_SLOT_ENTRY,
        IN_SLOT_CHECK,
        IN_SLOT_KIND,
        _DAMAGES
};

static void damage(struct bl_store *s, struct bl_export *e, uint64_t slot, enum damage what)
{
        uint64_t *word = bl_slots_at(e, slot, false);
        struct bl_meta *m;
        struct bl_entry *entry = bl_entry_at(s, bl_slot_entry(*word), &m);

        switch (what) {
        case IN_PAYLOAD:
                s->arena->base[(entry->location & BL_PLACE_MASK) * 16 + 20] ^= 4;
                break;
        case IN_LOCATION:
                entry->location ^= 8;
                break;
        case IN_HASH:
                entry->hash ^= 1;
                break;
        case IN_SIZE:
                entry->size ^= 16;
                break;
        case IN_GROUP:
                entry->group ^= 1;
                break;
        case IN_SLOT_ENTRY:
                *word ^= 1;
                break;
        case IN_SLOT_CHECK:
                *word ^= UINT64_C(1) << 40;
                break;
        case IN_SLOT_KIND:
                *word ^= UINT64_C(1) << 60;
                break;
        case _DAMAGES:
                break;
        }
}

/* One page, whatever is damaged; its VM is named; others are whole, now and after the next start. */
static void test_damage(void **state)
{
        (void)state;
        for (int reopen = 0; reopen < 2; reopen++)
                for (enum damage what = 0; what < _DAMAGES; what++) {
                        struct pool p;
                        struct bl_export *e;
                        uint8_t page[PAGE], uuid[BL_UUID_LEN];

                        pool_new(&p, 1);
                        uuid_of(1, uuid);
                        e = new_vm(&p, 1, 64 * PAGE, "a");
                        for (uint64_t i = 0; i < 32; i++)
                                write_page(e, i, i + 1);
                        damage(p.s, e, 6, what);
                        if (reopen) {
                                bl_export_close(e);
                                p.s = bl_store_close(p.s);
                                pool_open(&p, false);
                                e = open_vm(p.s, 1);
                                assert_non_null(e);
                        }
                        assert_int_equal(bl_export_read(e, page, PAGE, 6 * PAGE), -EIO);
                        assert_true(p.events >= 1);
                        assert_int_equal(p.last.offset, 6 * PAGE);
                        assert_memory_equal(p.last.uuid, uuid, BL_UUID_LEN);
                        assert_true(figures(&p).errors >= 1 && vm(&p, 1).errors >= 1);
                        for (uint64_t i = 0; i < 32; i++)
                                if (i != 6)
                                        expect_page(e, i, i + 1);
                        /* written anew it is whole */
                        write_page(e, 6, 77);
                        expect_page(e, 6, 77);
                        for (uint64_t i = 32; i < 64; i++)
                                write_page(e, i, i + 1);
                        for (uint64_t i = 0; i < 64; i++)
                                expect_page(e, i, i == 6 ? 77 : i + 1);
                        bl_export_close(e);
                        p.s = bl_store_close(p.s);
                        close(p.memory);
                }
}

/* Any bit of the whole pool: it opens or refuses, and no page ever reads as another's. */
static void test_any_bit(void **state)
{
        uint64_t seed = 99;
        unsigned refused = 0, lost = 0;

        (void)state;
        for (unsigned round = 0; round < 300; round++) {
                struct pool p;
                struct bl_export *e[2];
                struct bl_store_options o;
                uint64_t super, used, bit;
                uint8_t page[PAGE], is[PAGE];

                pool_new(&p, 1);
                e[0] = new_vm(&p, 1, 32 * PAGE, "a");
                e[1] = new_vm(&p, 2, 32 * PAGE, "b");
                for (uint64_t i = 0; i < 64; i++)
                        write_page(e[i / 32], i % 32, i + 1);
                used = (p.s->first + 40) * (uint64_t)PAGE * 8;
                super = sizeof(struct bl_super) * 8;
                bl_export_close(e[0]);
                bl_export_close(e[1]);
                bit = round < 100 ? next_random(&seed) % super : next_random(&seed) % used;
                p.s->arena->base[bit / 8] ^= (uint8_t)(1 << bit % 8);
                p.s = bl_store_close(p.s);
                o = (struct bl_store_options){.arena = arena_on(p.memory, false)};
                if (bl_store_open(&o, &p.s, NULL) < 0) {
                        refused++;
                        close(p.memory);
                        continue;
                }
                for (uint64_t i = 0; i < 64; i++) {
                        struct bl_export *x = open_vm(p.s, (uint8_t)(i / 32 + 1));

                        if (!x) {
                                lost++;
                                continue;
                        }
                        fill_page(page, i + 1);
                        if (bl_export_read(x, is, PAGE, i % 32 * PAGE) == 0)
                                assert_memory_equal(is, page, PAGE);
                        else
                                lost++;
                        bl_export_close(x);
                }
                p.s = bl_store_close(p.s);
                close(p.memory);
        }
        assert_true(refused > 50);
        assert_true(lost > 0);
}

/* --- figures ---------------------------------------------------------------------------------------------- */

static void test_figures(void **state)
{
        struct pool p;
        struct bl_export *a, *b;
        struct bl_store_figures f;
        struct bl_store_vm va, vb;

        (void)state;
        pool_new(&p, 2);
        a = new_vm(&p, 1, 256 * PAGE, "g");
        b = new_vm(&p, 2, 256 * PAGE, "g");
        for (uint64_t i = 0; i < 100; i++) {
                write_page(a, i, 4 * i + 1);
                write_page(b, i, i < 50 ? 4 * i + 1 : 4 * i + 1001);
        }
        write_page(a, 100, 0);
        f = figures(&p);
        va = vm(&p, 1);
        vb = vm(&p, 2);
        assert_int_equal(f.held, 200 * PAGE);
        assert_int_equal(f.unique, 150 * PAGE);
        assert_int_equal(f.zero, PAGE);
        assert_int_equal(f.writes, 201);
        assert_int_equal(f.dedup_hits, 50);
        assert_int_equal(f.pool_used, f.payload + f.slack + f.tables);
        assert_int_equal(f.promised, 512 * PAGE);
        assert_true(f.write_p50 > 0 && f.write_p99 >= f.write_p50 && f.read_p50 == 0 && f.oldest_request == 0);
        assert_int_equal(va.held, 100 * PAGE);
        assert_int_equal(va.shared, 50 * PAGE);
        assert_int_equal(va.zero, PAGE);
        assert_true(va.ratio > 0 && va.ratio < BL_WHOLE && vb.ratio < va.ratio);
        /* split, it is all that there is but unused objects, entries and nodes */
        assert_true(va.stored + vb.stored <= f.pool_used);
        assert_true(va.stored + vb.stored >= f.payload + 150 * sizeof(struct bl_entry));
        /* per unique page at most: entry, slot words, and what is in the process */
        assert_true(f.index < 150 * 24 + 200 * 8 + (UINT64_C(4) << 12) + f.pool_used / 160);
        bl_export_close(a);
        bl_export_close(b);
        pool_end(&p);
}

/* Two that write the same new pages at the same moment. */
struct twin {
        struct bl_export *e;
        pthread_barrier_t *together;
        int error;
};

#define TWIN_ROUNDS 60U
#define TWIN_PAGES  16U

static void *twin(void *arg)
{
        static const uint8_t sizes[] = {1, 3, TWIN_PAGES};
        struct twin *t = arg;
        uint8_t buf[TWIN_PAGES * PAGE];

        for (uint64_t i = 0; i < TWIN_ROUNDS; i++) {
                size_t n = sizes[i % 3];

                for (size_t k = 0; k < n; k++)
                        fill_page(buf + k * PAGE, 1 + i * TWIN_PAGES + k);
                (void)pthread_barrier_wait(t->together);
                if (bl_export_write(t->e, buf, n * PAGE, i * TWIN_PAGES * PAGE) < 0)
                        t->error = -EIO;
        }
        return NULL;
}

static void test_twins(void **state)
{
        uint64_t pages = TWIN_ROUNDS / 3 * (1 + 3 + TWIN_PAGES);
        pthread_barrier_t together;
        struct twin twins[2];
        struct pool p;
        pthread_t t;
        uint8_t page[PAGE], is[PAGE];

        (void)state;
        pool_new(&p, 8);
        (void)pthread_barrier_init(&together, NULL, 2);
        for (uint8_t i = 0; i < 2; i++)
                twins[i] = (struct twin){.e = new_vm(&p, i, TWIN_ROUNDS * TWIN_PAGES * PAGE, "all"),
                                         .together = &together};
        assert_int_equal(pthread_create(&t, NULL, twin, &twins[0]), 0);
        (void)twin(&twins[1]);
        pthread_join(t, NULL);
        (void)pthread_barrier_destroy(&together);
        assert_int_equal(twins[0].error | twins[1].error, 0);
        assert_int_equal(figures(&p).held, 2 * pages * PAGE);
        assert_int_equal(figures(&p).unique, pages * PAGE);
        assert_int_equal(figures(&p).dedup_hits, pages);
        for (uint64_t i = 0; i < TWIN_ROUNDS; i++)
                for (uint8_t k = 0; k < 2; k++) {
                        fill_page(page, 1 + i * TWIN_PAGES);
                        assert_int_equal(bl_export_read(twins[k].e, is, PAGE, i * TWIN_PAGES * PAGE), 0);
                        assert_memory_equal(is, page, PAGE);
                }
        bl_export_close(twins[0].e);
        bl_export_close(twins[1].e);
        pool_end(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_empty),         cmocka_unit_test(test_any_alignment),
                cmocka_unit_test(test_zero_pages),    cmocka_unit_test(test_dedup),
                cmocka_unit_test(test_leave_group),   cmocka_unit_test(test_collisions),
                cmocka_unit_test(test_registration),  cmocka_unit_test(test_lost),
                cmocka_unit_test(test_forget_open),   cmocka_unit_test(test_full),
                cmocka_unit_test(test_full_of_holes), cmocka_unit_test(test_compaction),
                cmocka_unit_test(test_damage),        cmocka_unit_test(test_any_bit),
                cmocka_unit_test(test_figures),       cmocka_unit_test(test_twins),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
