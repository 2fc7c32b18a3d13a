/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/vsock/vring.h"

#define GPA     UINT64_C(0x100000)
#define UVA     UINT64_C(0x7f0000000000)
#define RAM     0x20000U
#define DESC    0x0U
#define AVAIL   0x8000U
#define USED    0xc000U
#define DATA    0x10000U
#define NUM     8U
#define MAX_LOG 64

#define NEXT     1U
#define WRITE    2U
#define INDIRECT 4U

/* The driver's side, and a VMM's memory that counts what is done to it. */
static struct {
        uint8_t ram[RAM];
        uint16_t avail_idx;
        unsigned num;
        uint64_t writes[MAX_LOG]; /* where each write went, and how much */
        size_t sizes[MAX_LOG];
        unsigned n_writes, n_reads;
        int fail; /* every access does */
        unsigned fail_read; /* the one of this number does; 0: none */
        uint8_t torn[4]; /* what the next reads of the available index give, from the last on */
        unsigned n_torn;
} g;

static struct bl_gm gm;
static struct bl_vring ring;

static int check_access(uint64_t uva, size_t size)
{
        if (g.fail)
                return g.fail;
        assert_true(size > 0);
        return uva < UVA || uva - UVA > RAM || size > RAM - (uva - UVA) ? -EFAULT : 0;
}

static int fake_read(void *userdata, uint64_t uva, void *buf, size_t size)
{
        int r = check_access(uva, size);

        (void)userdata;
        if (++g.n_reads == g.fail_read)
                return -EFAULT;
        if (r < 0)
                return r;
        memcpy(buf, g.ram + (uva - UVA), size);
        if (uva == UVA + AVAIL + 2 && g.n_torn > 0)
                ((uint8_t *)buf)[0] = g.torn[--g.n_torn];
        return 0;
}

static int fake_write(void *userdata, uint64_t uva, const void *buf, size_t size)
{
        int r = check_access(uva, size);

        (void)userdata;
        if (r < 0)
                return r;
        if (g.n_writes < MAX_LOG) {
                g.writes[g.n_writes] = uva - UVA;
                g.sizes[g.n_writes] = size;
        }
        g.n_writes++;
        memcpy(g.ram + (uva - UVA), buf, size);
        return 0;
}

static void put16(uint32_t at, uint16_t v)
{
        memcpy(g.ram + at, &v, sizeof v);
}

static uint16_t get16(uint32_t at)
{
        uint16_t v;

        memcpy(&v, g.ram + at, sizeof v);
        return v;
}

static uint32_t get32(uint32_t at)
{
        uint32_t v;

        memcpy(&v, g.ram + at, sizeof v);
        return v;
}

static void describe(unsigned i, uint64_t gpa, uint32_t size, unsigned flags, unsigned next)
{
        memcpy(g.ram + DESC + i * 16, &gpa, 8);
        memcpy(g.ram + DESC + i * 16 + 8, &size, 4);
        put16(DESC + i * 16 + 12, (uint16_t)flags);
        put16(DESC + i * 16 + 14, (uint16_t)next);
}

static void offer(unsigned head)
{
        put16(AVAIL + 4 + g.avail_idx % g.num * 2, (uint16_t)head);
        put16(AVAIL + 2, ++g.avail_idx);
}

static void start_ring(unsigned num, uint16_t base)
{
        static const struct bl_gm_region region = {.gpa = GPA, .size = RAM, .uva = UVA};

        memset(&g, 0, sizeof g);
        memset(&gm, 0, sizeof gm);
        gm.access = (struct bl_gm_access){.read = fake_read, .write = fake_write};
        assert_int_equal(bl_gm_set(&gm, &region, 1), 0);
        g.num = num;
        g.avail_idx = base;
        put16(AVAIL + 2, base);
        put16(USED + 2, base);
        ring = (struct bl_vring){.num = num, .started = true, .enabled = true};
        assert_int_equal(bl_vring_set_addr(&ring, UVA + DESC, UVA + AVAIL, UVA + USED), 0);
        bl_vring_set_base(&ring, base);
}

static int setup(void **state)
{
        (void)state;
        start_ring(NUM, 0);
        return 0;
}

static void assert_breaks(void)
{
        struct bl_vchain c;
        uint8_t before[RAM];

        assert_int_equal(bl_vring_next(&ring, &gm, &c), -EBADMSG);
        assert_true(ring.broken);
        assert_false(bl_vring_ready(&ring));
        /* it is left alone from now on */
        memcpy(before, g.ram, RAM);
        g.n_reads = 0;
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        assert_int_equal(bl_vring_available(&ring, &gm), 0);
        assert_int_equal(bl_vring_give_back(&ring, &gm, 0, 0), -EINVAL);
        assert_false(bl_vring_wants_call(&ring, &gm));
        assert_int_equal(g.n_reads, 0);
        assert_memory_equal(before, g.ram, RAM);
}

static void test_normal(void **state)
{
        struct bl_vchain c;
        char buf[64] = "";

        (void)state;
        memset(&c, 0xff, sizeof c);
        assert_int_equal(bl_vring_available(&ring, &gm), 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);

        memcpy(g.ram + DATA, "hello", 5);
        memcpy(g.ram + DATA + 0x100, " world", 6);
        describe(3, GPA + DATA, 5, NEXT, 5);
        describe(5, GPA + DATA + 0x100, 6, NEXT, 1);
        describe(1, GPA + DATA + 0x200, 4, WRITE | NEXT, 2);
        describe(2, GPA + DATA + 0x300, 8, WRITE, 0);
        offer(3);
        assert_int_equal(bl_vring_available(&ring, &gm), 1);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.head, 3);
        assert_int_equal(c.n_out, 2);
        assert_int_equal(c.n_in, 2);
        assert_int_equal(c.out_size, 11);
        assert_int_equal(c.in_size, 12);

        assert_int_equal(bl_vchain_read(&c, &gm, 0, buf, 11), 0);
        assert_string_equal(buf, "hello world");
        memset(buf, 0, sizeof buf);
        assert_int_equal(bl_vchain_read(&c, &gm, 3, buf, 4), 0);
        assert_string_equal(buf, "lo w");
        memset(buf, 0, sizeof buf);
        assert_int_equal(bl_vchain_read(&c, &gm, 5, buf, 6), 0);
        assert_string_equal(buf, " world");
        assert_int_equal(bl_vchain_read(&c, &gm, 11, buf, 0), 0);
        assert_int_equal(bl_vchain_read(&c, &gm, 11, buf, 1), -ENOBUFS);
        assert_int_equal(bl_vchain_read(&c, &gm, 0, buf, 12), -ENOBUFS);
        assert_int_equal(bl_vchain_read(&c, &gm, UINT64_MAX, buf, 2), -ENOBUFS);

        assert_int_equal(bl_vchain_write(&c, &gm, 2, "abcdef", 6), 0);
        assert_memory_equal(g.ram + DATA + 0x202, "ab", 2);
        assert_memory_equal(g.ram + DATA + 0x300, "cdef", 4);
        assert_int_equal(bl_vchain_write(&c, &gm, 7, "abcdef", 6), -ENOBUFS);

        /* one at a time, and each once */
        assert_int_equal(bl_vring_next(&ring, &gm, &c), -EBUSY);
        g.n_writes = 0;
        assert_int_equal(bl_vring_give_back(&ring, &gm, 3, 8), 0);
        assert_int_equal(bl_vring_give_back(&ring, &gm, 3, 8), -EINVAL);
        assert_int_equal(get16(USED + 2), 1);
        assert_int_equal(get32(USED + 4), 3);
        assert_int_equal(get32(USED + 8), 8);
        /* the element was there before the index */
        assert_int_equal(g.n_writes, 2);
        assert_int_equal(g.writes[0], USED + 4);
        assert_int_equal(g.writes[1], USED + 2);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
}

static void test_put_back(void **state)
{
        struct bl_vchain c;

        (void)state;
        describe(0, GPA + DATA, 5, 0, 0);
        offer(0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        bl_vring_put_back(&ring);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(bl_vring_give_back(&ring, &gm, c.head, 0), 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
}

/* Through all 65536 positions and over the end, and no index is ever written in two halves. */
static void test_wrap(void **state)
{
        struct bl_vchain c;
        uint32_t given = 0;

        (void)state;
        start_ring(NUM, 65000);
        for (unsigned i = 0; i < NUM; i++)
                describe(i, GPA + DATA + i, 1, 0, 0);
        for (unsigned round = 0; round < 9000; round++) {
                for (unsigned i = 0; i <= round % NUM; i++)
                        offer((round + i) % NUM);
                for (unsigned i = 0; i <= round % NUM; i++) {
                        const uint32_t at = USED + 4 + (uint16_t)(65000 + given) % NUM * 8;

                        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
                        assert_int_equal(c.head, (round + i) % NUM);
                        g.n_writes = 0;
                        assert_int_equal(bl_vring_give_back(&ring, &gm, c.head, given), 0);
                        assert_int_equal(get32(at), c.head);
                        assert_int_equal(get32(at + 4), given);
                        given++;
                        assert_int_equal(get16(USED + 2), (uint16_t)(65000 + given));
                        assert_int_equal(g.n_writes, 2);
                        assert_int_equal(g.sizes[1], get16(USED + 2) % 256 ? 2 : 8);
                }
                assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        }
        assert_true(given > 40000);
        assert_int_equal(get16(USED), 0);
}

/* A copy of an index while it is counted up may be half old. */
static void test_torn_index(void **state)
{
        struct bl_vchain c;

        (void)state;
        start_ring(128, 0xff);
        describe(0, GPA + DATA, 1, 0, 0);
        offer(0);
        assert_int_equal(get16(AVAIL + 2), 0x100);
        g.n_torn = 1;
        g.torn[0] = 0xff; /* 0x1ff, which would be 256 chains */
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(bl_vring_give_back(&ring, &gm, c.head, 0), 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        assert_false(ring.broken);
}

static void test_bad_chains(void **state)
{
        (void)state;
        /* a head that there is not */
        offer(NUM);
        assert_breaks();
        setup(NULL);
        offer(0xffff);
        assert_breaks();
        /* a next that there is not */
        setup(NULL);
        describe(0, GPA + DATA, 1, NEXT, NUM);
        offer(0);
        assert_breaks();
        /* loops, of one and of all */
        setup(NULL);
        describe(0, GPA + DATA, 1, NEXT, 0);
        offer(0);
        assert_breaks();
        setup(NULL);
        for (unsigned i = 0; i < NUM; i++)
                describe(i, GPA + DATA, 1, NEXT, (i + 1) % NUM);
        offer(4);
        assert_breaks();
        /* readable behind writable */
        setup(NULL);
        describe(0, GPA + DATA, 1, NEXT | WRITE, 1);
        describe(1, GPA + DATA, 1, 0, 0);
        offer(0);
        assert_breaks();
        /* not offered */
        setup(NULL);
        describe(0, GPA + DATA, 16, INDIRECT, 0);
        offer(0);
        assert_breaks();
}

static void test_bad_buffers(void **state)
{
        static const struct {
                uint64_t gpa;
                uint32_t size;
        } bad[] = {
                {0, 1},
                {GPA - 1, 2},
                {GPA + RAM - 1, 2},
                {GPA + RAM, 1},
                {GPA, UINT32_MAX},
                {UINT64_MAX, 1},
                {UINT64_MAX - 1, UINT32_MAX},
                {UVA, 1},
        };

        (void)state;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
                setup(NULL);
                describe(0, bad[i].gpa, bad[i].size, 0, 0);
                offer(0);
                assert_breaks();
        }
        /* also as the last of many */
        setup(NULL);
        describe(0, GPA + DATA, 4, NEXT, 1);
        describe(1, GPA + RAM - 4, 5, WRITE, 0);
        offer(0);
        assert_breaks();
}

static void test_zero_length(void **state)
{
        struct bl_vchain c;
        char buf[8] = "";

        (void)state;
        memcpy(g.ram + DATA, "abcd", 4);
        describe(0, GPA + DATA, 2, NEXT, 1);
        describe(1, GPA + DATA, 0, NEXT, 2);
        describe(2, GPA + DATA + 2, 2, NEXT, 3);
        describe(3, 0, 0, WRITE, 0);
        offer(0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.out_size, 4);
        assert_int_equal(c.in_size, 0);
        assert_int_equal(bl_vchain_read(&c, &gm, 0, buf, 4), 0);
        assert_string_equal(buf, "abcd");
        assert_int_equal(bl_vchain_write(&c, &gm, 0, buf, 0), 0);
        assert_int_equal(bl_vchain_write(&c, &gm, 0, buf, 1), -ENOBUFS);
}

static void test_long_chain(void **state)
{
        struct bl_vchain c;

        (void)state;
        start_ring(128, 0);
        for (unsigned i = 0; i < BL_VRING_CHAIN; i++)
                describe(i, GPA + DATA + i, 1, i + 1 < BL_VRING_CHAIN ? NEXT : 0, i + 1);
        offer(0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.n_out, BL_VRING_CHAIN);
        assert_int_equal(bl_vring_give_back(&ring, &gm, 0, 0), 0);

        describe(BL_VRING_CHAIN - 1, GPA + DATA, 1, NEXT, BL_VRING_CHAIN);
        describe(BL_VRING_CHAIN, GPA + DATA, 1, 0, 0);
        offer(0);
        assert_breaks();
}

static void test_index_jump(void **state)
{
        struct bl_vchain c;

        (void)state;
        /* a full ring is none */
        for (unsigned i = 0; i < NUM; i++) {
                describe(i, GPA + DATA, 1, 0, 0);
                offer(i);
        }
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        setup(NULL);
        put16(AVAIL + 2, NUM + 1);
        assert_breaks();
        /* nor may it go back */
        setup(NULL);
        put16(AVAIL + 2, 0xffff);
        assert_int_equal(bl_vring_available(&ring, &gm), -EBADMSG);
        assert_true(ring.broken);
}

/* What does not lie in guest memory is the VMM's own. */
static void test_areas(void **state)
{
        static const struct {
                uint64_t desc, avail, used;
        } out[] = {
                {UVA + RAM - 16, UVA + AVAIL, UVA + USED},
                {UVA + RAM - 16 * NUM + 16, UVA + AVAIL, UVA + USED},
                {UVA - 16, UVA + AVAIL, UVA + USED},
                {UVA + DESC, UVA + RAM - 2 * NUM - 4, UVA + USED},
                {UVA + DESC, UVA - 2, UVA + USED},
                {UVA + DESC, UVA + AVAIL, UVA + RAM - 8 * NUM - 4},
                {UVA + DESC, UVA + AVAIL, UVA - 4},
                {GPA, GPA + AVAIL, GPA + USED},
                {UINT64_MAX - 15, UINT64_MAX - 1, UINT64_MAX - 3},
        };
        struct bl_vchain c;
        uint8_t before[RAM];

        (void)state;
        describe(0, GPA + DATA, 1, 0, 0);
        offer(0);
        memcpy(before, g.ram, RAM);
        for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
                assert_int_equal(bl_vring_set_addr(&ring, out[i].desc, out[i].avail, out[i].used), 0);
                bl_vring_set_base(&ring, 0);
                g.n_reads = g.n_writes = 0;
                assert_int_equal(bl_vring_next(&ring, &gm, &c), -EFAULT);
                assert_int_equal(bl_vring_available(&ring, &gm), -EFAULT);
                ring.last_avail++;
                assert_int_equal(bl_vring_give_back(&ring, &gm, 0, 0), -EFAULT);
                assert_int_equal(bl_vring_take_over(&ring, &gm), -EFAULT);
                assert_false(bl_vring_wants_call(&ring, &gm));
                assert_false(ring.broken);
                assert_int_equal(g.n_reads + g.n_writes, 0);
        }
        assert_memory_equal(before, g.ram, RAM);
        /* the last that lies inside */
        assert_int_equal(bl_vring_set_addr(&ring, UVA + DESC, UVA + AVAIL, UVA + RAM - 8 * NUM - 8), 0);
        bl_vring_set_base(&ring, 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);

        assert_int_equal(bl_vring_set_addr(&ring, UVA + 8, UVA + AVAIL, UVA + USED), -EINVAL);
        assert_int_equal(bl_vring_set_addr(&ring, UVA + DESC, UVA + AVAIL + 1, UVA + USED), -EINVAL);
        assert_int_equal(bl_vring_set_addr(&ring, UVA + DESC, UVA + AVAIL, UVA + USED + 2), -EINVAL);
}

static void test_not_ready(void **state)
{
        struct bl_vchain c;

        (void)state;
        describe(0, GPA + DATA, 1, 0, 0);
        offer(0);
        ring.enabled = false;
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        ring.enabled = true;
        ring.started = false;
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        ring.started = true;
        ring.num = 0;
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 0);
        ring.num = NUM;
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
}

static void test_flags(void **state)
{
        (void)state;
        assert_true(bl_vring_wants_call(&ring, &gm));
        put16(AVAIL, 1);
        assert_false(bl_vring_wants_call(&ring, &gm));
}

/* Memory that goes away under way breaks the ring, wherever it happens. */
static void test_unreadable(void **state)
{
        struct bl_vchain c;
        unsigned n = 1;
        int r;

        (void)state;
        for (;; n++) {
                setup(NULL);
                describe(0, GPA + DATA, 1, NEXT, 1);
                describe(1, GPA + DATA, 1, 0, 0);
                offer(0);
                g.fail_read = n;
                r = bl_vring_next(&ring, &gm, &c);
                if (r == 1)
                        break;
                assert_int_equal(r, -EFAULT);
                assert_true(ring.broken);
                assert_int_equal(ring.last_avail, 0);
        }
        assert_int_equal(n, 5); /* index, entry and two descriptors were read once each */
        g.fail_read = 0;
        g.fail = -ESRCH;
        assert_int_equal(bl_vring_give_back(&ring, &gm, 0, 0), -ESRCH);
        assert_true(ring.broken);
        assert_int_equal(bl_vchain_read(&c, &gm, 0, &n, 1), -ESRCH);
}

/* A worker died: before the chain was given back, or after, with the index noted or not. */
static void test_take_over(void **state)
{
        struct bl_vring left;
        struct bl_vchain c;

        (void)state;
        for (unsigned i = 0; i < 4; i++)
                describe(i, GPA + DATA + i, 1, 0, 0);
        for (unsigned i = 0; i < 3; i++)
                offer(i);
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        /* had not given it back */
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.head, 0);
        left = ring;
        assert_int_equal(bl_vring_give_back(&ring, &gm, 0, 0), 0);
        /* had, but not noted it */
        ring = left;
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(ring.used_idx, 1);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.head, 1);
        assert_int_equal(bl_vring_give_back(&ring, &gm, 1, 0), 0);
        /* had noted it */
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(ring.used_idx, 2);
        /* the driver wrote where it may not: our own count holds */
        put16(USED + 2, 3);
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(ring.used_idx, 2);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        put16(USED + 2, 77);
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(ring.used_idx, 2);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(c.head, 2);
        /* a stopped ring is not even looked at */
        ring.started = false;
        g.fail = -EFAULT;
        assert_int_equal(bl_vring_take_over(&ring, &gm), 0);
        assert_int_equal(ring.last_avail, ring.used_idx);
}

static void test_table(void **state)
{
        static const struct bl_gm_region good[] = {
                {.gpa = 0x3000, .size = 0x1000, .uva = 0x13000},
                {.gpa = 0x1000, .size = 0x1000, .uva = 0x11000},
                {.gpa = 0x2000, .size = 0x1000, .uva = 0x12000},
                {.gpa = 0x4000, .size = 0x1000, .uva = 0x99000},
                {.gpa = UINT64_MAX - 0x1000, .size = 0x1000, .uva = UINT64_MAX - 0x1000},
        };
        static const struct bl_gm_region bad[][2] = {
                {{0x1000, 0, 0x1000}, {0x9000, 1, 0x9000}},
                {{0x1000, 0x1000, 0x1000}, {0x1fff, 1, 0x9000}},
                {{0x1fff, 1, 0x9000}, {0x1000, 0x1000, 0x1000}},
                {{0x1000, 0x1000, 0x1000}, {0x1000, 0x1000, 0x1000}},
                {{0x1000, 0x1000, 0x1000}, {0, UINT64_MAX, 0}},
                {{UINT64_MAX, 2, 0}, {0, 1, 0}},
                {{0, 2, UINT64_MAX}, {8, 1, 0}},
                {{0, UINT64_MAX, 2}, {UINT64_MAX, 1, 0}},
        };
        struct bl_gm_region many[BL_GM_REGIONS + 1];
        struct bl_gm m = {0}, old;
        uint64_t uva, size;

        (void)state;
        assert_int_equal(bl_gm_set(&m, good, 5), 0);
        assert_int_equal(bl_gm_translate(&m, 0x1800, 0x10000, &uva, &size), 0);
        assert_int_equal(uva, 0x11800);
        assert_int_equal(size, 0x2800); /* three that go on, one that does not */
        assert_int_equal(bl_gm_translate(&m, 0x4fff, 0x10000, &uva, &size), 0);
        assert_int_equal(uva, 0x99fff);
        assert_int_equal(size, 1);
        assert_int_equal(bl_gm_translate(&m, UINT64_MAX - 1, 9, &uva, &size), 0);
        assert_int_equal(size, 1);
        assert_int_equal(bl_gm_translate(&m, 0xfff, 1, &uva, &size), -EFAULT);
        assert_int_equal(bl_gm_translate(&m, 0x5000, 1, &uva, &size), -EFAULT);
        assert_int_equal(bl_gm_translate(&m, UINT64_MAX, 1, &uva, &size), -EFAULT);
        assert_int_equal(bl_gm_translate(&m, 0x1000, 0, &uva, &size), -EFAULT);
        assert_true(bl_gm_contains(&m, 0x11000, 0x1000));
        assert_false(bl_gm_contains(&m, 0x11000, 0x1001));
        assert_false(bl_gm_contains(&m, 0x11800, UINT64_MAX));
        assert_false(bl_gm_contains(&m, UINT64_MAX - 1, 2));

        old = m;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                assert_int_equal(bl_gm_set(&m, bad[i], 2), -EINVAL);
        for (uint32_t i = 0; i <= BL_GM_REGIONS; i++)
                many[i] = (struct bl_gm_region){.gpa = i, .size = 1, .uva = i};
        assert_int_equal(bl_gm_set(&m, many, BL_GM_REGIONS + 1), -EINVAL);
        assert_memory_equal(&m, &old, sizeof m);
        assert_int_equal(bl_gm_set(&m, many, BL_GM_REGIONS), 0);
        assert_int_equal(bl_gm_set(&m, NULL, 0), 0);
        assert_int_equal(m.n, 0);
}

/* A buffer across two regions that lie apart in the VMM. */
static void test_across(void **state)
{
        static const struct bl_gm_region regions[] = {
                {.gpa = GPA, .size = 0x18000, .uva = UVA},
                {.gpa = GPA + 0x18000, .size = 0x1000, .uva = UVA + 0x1f000},
        };
        struct bl_vchain c;
        char buf[8] = "";

        (void)state;
        assert_int_equal(bl_gm_set(&gm, regions, 2), 0);
        memcpy(g.ram + 0x17ffe, "ab", 2);
        memcpy(g.ram + 0x1f000, "cd", 2);
        describe(0, GPA + 0x17ffe, 4, NEXT, 1);
        describe(1, GPA + 0x17ffe, 4, WRITE, 0);
        offer(0);
        assert_int_equal(bl_vring_next(&ring, &gm, &c), 1);
        assert_int_equal(bl_vchain_read(&c, &gm, 0, buf, 4), 0);
        assert_string_equal(buf, "abcd");
        assert_int_equal(bl_vchain_write(&c, &gm, 1, "xyz", 3), 0);
        assert_memory_equal(g.ram + 0x17ffe, "ax", 2);
        assert_memory_equal(g.ram + 0x1f000, "yz", 2);
}

static void test_process(void **state)
{
        struct bl_gm_process p;
        struct bl_gm_access a;
        char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), buf[8192];
        int status, pipefd[2];
        char byte;

        (void)state;
        assert_ptr_not_equal(page, MAP_FAILED);
        strcpy(page, "before");
        assert_int_equal(pipe(pipefd), 0);
        p.pid = fork();
        if (p.pid == 0) {
                /* a memory of its own: the child sees what is written there, and this process does not */
                munmap(page + 4096, 4096);
                close(pipefd[1]);
                (void)!read(pipefd[0], &byte, 1);
                _exit(strcmp(page, "after") == 0 ? 7 : 8);
        }
        assert_true(p.pid > 0);
        close(pipefd[0]);
        p.pidfd = (int)syscall(SYS_pidfd_open, p.pid, 0);
        assert_true(p.pidfd >= 0);
        a = bl_gm_process_access(&p);
        assert_int_equal(a.read(a.userdata, (uintptr_t)page, buf, 7), 0);
        assert_string_equal(buf, "before");
        assert_int_equal(a.write(a.userdata, (uintptr_t)page, "after", 6), 0);
        assert_string_equal(page, "before");
        assert_int_equal(a.read(a.userdata, 0, buf, 1), -EFAULT);
        while (a.read(a.userdata, (uintptr_t)page + 4096, buf, 1) == 0)
                usleep(1000);
        assert_int_equal(a.read(a.userdata, (uintptr_t)page + 4000, buf, 200), -EFAULT);
        assert_int_equal(a.write(a.userdata, (uintptr_t)page + 4000, buf, 200), -EFAULT);
        close(pipefd[1]);
        assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
        assert_int_equal(WEXITSTATUS(status), 7);
        assert_int_equal(a.read(a.userdata, (uintptr_t)page, buf, 7), -ESRCH);
        /* the pid is another's now: that one is not touched */
        p.pid = getpid();
        assert_int_equal(a.write(a.userdata, (uintptr_t)page, "wrong", 6), -ESRCH);
        assert_string_equal(page, "before");
        close(p.pidfd);
        munmap(page, 8192);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_normal, setup),
                cmocka_unit_test_setup(test_put_back, setup),
                cmocka_unit_test_setup(test_wrap, setup),
                cmocka_unit_test_setup(test_torn_index, setup),
                cmocka_unit_test_setup(test_bad_chains, setup),
                cmocka_unit_test_setup(test_bad_buffers, setup),
                cmocka_unit_test_setup(test_zero_length, setup),
                cmocka_unit_test_setup(test_long_chain, setup),
                cmocka_unit_test_setup(test_index_jump, setup),
                cmocka_unit_test_setup(test_areas, setup),
                cmocka_unit_test_setup(test_not_ready, setup),
                cmocka_unit_test_setup(test_flags, setup),
                cmocka_unit_test_setup(test_unreadable, setup),
                cmocka_unit_test_setup(test_take_over, setup),
                cmocka_unit_test(test_table),
                cmocka_unit_test_setup(test_across, setup),
                cmocka_unit_test(test_process),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
