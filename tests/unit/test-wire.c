/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest protocol: round trips, damage of every kind, older and newer peers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "tests/unit/test-streams.h"

static const struct bl_wire_hello a_hello = {
        .major = 1,
        .minor = 0,
        .features = BL_WIRE_FEATURE_PSI,
        .boot_id = {0x6f, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x4a, 0x6b, 0x8c, 0x7d, 0x9e, 0x0f, 0x1a, 0x2b, 0x3c, 0x4d},
        .version = "0.1.0",
        .kernel = "6.1.0-49-cloud-amd64",
};

static struct bl_wire_stats some_stats(void)
{
        struct bl_wire_stats s;

        bl_wire_stats_init(&s);
        for (uint64_t tag = 1; tag < _BL_STAT_MAX; tag++)
                s.v[tag] = tag << 32 | tag;
        return s;
}

static size_t put_hello(uint8_t *buf)
{
        int n = bl_wire_encode_hello(&a_hello, buf, BL_WIRE_FRAME_MAX);

        assert_true(n > 0);
        return (size_t)n;
}

static size_t put_stats(uint8_t *buf)
{
        struct bl_wire_stats s = some_stats();
        int n = bl_wire_encode_stats(&s, buf, BL_WIRE_FRAME_MAX);

        assert_true(n > 0);
        return (size_t)n;
}

static void assert_is_hello(const struct bl_wire_frame *f)
{
        struct bl_wire_hello h;

        assert_int_equal(bl_wire_decode_hello(f, &h), 0);
        assert_memory_equal(&h, &a_hello, sizeof h);
}

static void assert_is_stats(const struct bl_wire_frame *f)
{
        struct bl_wire_stats s, want = some_stats();

        assert_int_equal(bl_wire_decode_stats(f, &s), 0);
        assert_memory_equal(&s, &want, sizeof s);
}

/* How many frames a buffer holds; the last one in *ret. */
static int count_frames(const uint8_t *data, size_t size, struct bl_wire_frame *ret, size_t *skipped)
{
        struct bl_wire_iter it;
        int n = 0;

        bl_wire_iter_init(&it, data, size);
        while (bl_wire_next(&it, ret) > 0)
                n++;
        assert_true(it.pos <= size);
        assert_true(size - it.pos < BL_WIRE_FRAME_MAX);
        if (skipped)
                *skipped = it.skipped;
        return n;
}

static void test_crc(void **state)
{
        (void)state;
        assert_int_equal(bl_wire_crc("123456789", 9), 0xe3069283);
        assert_int_equal(bl_wire_crc("", 0), 0);
}

/* The format is a promise to agents in guests that nobody updates: these bytes
 * may never change. */
static void test_layout(void **state)
{
        static const uint8_t want[] = {
                0xba, 0x4c, 0x53, 0x54, 0x01, 0x80, 0x18, 0x00, 0xab, 0xa7, 0x36, 0xa1, 0xdc, 0xb6,
                0x79, 0x54, 0x01, 0x00, 0x08, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                0x03, 0x00, 0x08, 0x00, 0x40, 0x42, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00,
        };
        struct bl_wire_welcome w = {.major = 1, .minor = BL_UNSET, .period = BL_SEC, .ask = BL_UNSET};
        uint8_t buf[64];

        (void)state;
        assert_int_equal(bl_wire_encode_welcome(&w, buf, sizeof buf), sizeof want);
        assert_memory_equal(buf, want, sizeof want);
}

static void test_round_trip(void **state)
{
        static const struct bl_wire_welcome welcomes[] = {
                {.major = 1, .minor = 0, .period = 500 * BL_MSEC, .ask = 0},
                {.major = 7, .minor = 3, .period = BL_UNSET, .ask = 1},
        };
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_frame f;

        (void)state;
        assert_int_equal(count_frames(buf, put_hello(buf), &f, NULL), 1);
        assert_is_hello(&f);
        assert_int_equal(count_frames(buf, put_stats(buf), &f, NULL), 1);
        assert_is_stats(&f);
        for (size_t i = 0; i < 2; i++) {
                struct bl_wire_welcome w;
                int n = bl_wire_encode_welcome(&welcomes[i], buf, sizeof buf);

                assert_int_equal(count_frames(buf, (size_t)n, &f, NULL), 1);
                assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
                assert_memory_equal(&w, &welcomes[i], sizeof w);
        }
}

static void test_unset_stays_unset(void **state)
{
        struct bl_wire_stats s, got;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_frame f;

        (void)state;
        bl_wire_stats_init(&s);
        assert_int_equal(bl_wire_encode_stats(&s, buf, sizeof buf), BL_WIRE_HEADER);
        assert_int_equal(count_frames(buf, BL_WIRE_HEADER, &f, NULL), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &got), 0);
        assert_memory_equal(&got, &s, sizeof s);
}

/* A buffer too small by any number of bytes is refused and not overrun. */
static void test_small_buffer(void **state)
{
        struct bl_wire_stats s = some_stats();
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t full = put_stats(buf);

        (void)state;
        for (size_t size = 0; size < full; size++) {
                memset(buf, 0x55, sizeof buf);
                assert_int_equal(bl_wire_encode_stats(&s, buf, size), -ENOBUFS);
                for (size_t i = size; i < sizeof buf; i++)
                        assert_int_equal(buf[i], 0x55);
        }
        assert_int_equal(bl_wire_encode_stats(&s, buf, full), full);
}

static void test_body_limit(void **state)
{
        static uint8_t big[BL_WIRE_FRAME_MAX * 20];
        struct bl_wire_writer w;
        struct bl_wire_frame f;
        uint8_t buf[BL_WIRE_FRAME_MAX * 2];

        (void)state;
        bl_wire_begin(&w, buf, sizeof buf, 0x77);
        bl_wire_put(&w, 9, big, BL_WIRE_BODY_MAX - 4);
        assert_int_equal(bl_wire_end(&w), BL_WIRE_FRAME_MAX);
        assert_int_equal(count_frames(buf, BL_WIRE_FRAME_MAX, &f, NULL), 1);
        assert_int_equal(f.size, BL_WIRE_BODY_MAX);

        bl_wire_begin(&w, buf, sizeof buf, 0x77);
        bl_wire_put(&w, 9, big, BL_WIRE_BODY_MAX - 3);
        assert_int_equal(bl_wire_end(&w), -ENOBUFS);
        /* a size that would be cut to 16 bits */
        bl_wire_begin(&w, buf, sizeof buf, 0x77);
        bl_wire_put(&w, 9, big, 65536);
        assert_int_equal(bl_wire_end(&w), -ENOBUFS);
}

static void test_truncated(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t size = put_stats(buf);
        struct bl_wire_frame f;

        (void)state;
        for (size_t n = 0; n < size; n++) {
                struct bl_wire_iter it;

                bl_wire_iter_init(&it, buf, n);
                assert_int_equal(bl_wire_next(&it, &f), 0);
                assert_int_equal(it.pos, 0); /* kept for when the rest comes */
        }
}

static void test_garbage_around(void **state)
{
        static const char *const garbage[] = {
                "login: root\r\n",       "\xba", "\xbaLS", "\xba\xba\xba", "\xbaLST", "\xbaLST....................",
                "\xbaLST\x02\0\xff\xff",
        };
        uint8_t buf[BL_WIRE_FRAME_MAX];

        (void)state;
        for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
                size_t n = strlen(garbage[i]);
                struct bl_wire_frame f;
                size_t skipped;

                memcpy(buf, garbage[i], n);
                size_t hello = put_hello(buf + n);

                assert_int_equal(count_frames(buf, n + hello, &f, &skipped), 1);
                assert_is_hello(&f);
                assert_int_equal(skipped, n);
                memcpy(buf + n + hello, garbage[i], n);
                assert_int_equal(count_frames(buf, n + hello + n, &f, NULL), 1);
        }
}

/* Joining at any byte, the next whole frame is found. */
static void test_join_midway(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t hello = put_hello(buf);
        size_t size = hello + put_stats(buf + hello);

        (void)state;
        for (size_t from = 1; from <= hello; from++) {
                struct bl_wire_frame f;

                assert_int_equal(count_frames(buf + from, size - from, &f, NULL), 1);
                assert_is_stats(&f);
        }
}

/* The end of a frame is lost at any byte: the others are not, once enough has come. */
static void test_lost_tail(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        uint8_t whole[BL_WIRE_FRAME_MAX];
        size_t size = put_stats(whole);

        (void)state;
        for (size_t cut = 1; cut < size; cut++) {
                struct bl_wire_frame f;
                size_t n = cut;

                memcpy(buf, whole, cut);
                n += put_hello(buf + n);
                for (int i = 0; i < 4; i++)
                        n += put_stats(buf + n);
                assert_int_equal(count_frames(buf, n, &f, NULL), 5);
                assert_is_stats(&f);
        }
}

/* Any one damaged byte spoils its own frame and no other. */
static void test_damage(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = put_stats(buf);
        size_t size = n;

        (void)state;
        for (int i = 0; i < 3; i++)
                size += put_hello(buf + size);
        for (size_t at = 0; at < n; at++)
                for (int bit = 0; bit < 8; bit++) {
                        struct bl_wire_frame f;

                        buf[at] ^= (uint8_t)(1 << bit);
                        assert_int_equal(count_frames(buf, size, &f, NULL), 3);
                        assert_is_hello(&f);
                        buf[at] ^= (uint8_t)(1 << bit);
                }
}

/* Two frames, cut at every pair of places, as a reader with a buffer sees them. */
static void test_split(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX], in[BL_WIRE_FRAME_MAX];
        size_t hello = put_hello(buf);
        size_t size = hello + put_stats(buf + hello);

        (void)state;
        for (size_t a = 0; a <= size; a++)
                for (size_t b = a; b <= size; b += 7) {
                        size_t ends[] = {a, b, size};
                        size_t len = 0, from = 0;
                        int found = 0;

                        for (size_t i = 0; i < 3; i++) {
                                struct bl_wire_iter it;
                                struct bl_wire_frame f;

                                memcpy(in + len, buf + from, ends[i] - from);
                                len += ends[i] - from;
                                from = ends[i];
                                bl_wire_iter_init(&it, in, len);
                                while (bl_wire_next(&it, &f) > 0) {
                                        if (found++ == 0)
                                                assert_is_hello(&f);
                                        else
                                                assert_is_stats(&f);
                                }
                                len -= it.pos;
                                memmove(in, in + it.pos, len);
                        }
                        assert_int_equal(found, 2);
                        assert_int_equal(len, 0);
                }
}

static void test_frame_in_garbage_of_magics(void **state)
{
        static uint8_t buf[BL_WIRE_FRAME_MAX * 3];
        size_t n = 0;
        struct bl_wire_frame f;

        (void)state;
        while (n < BL_WIRE_FRAME_MAX) {
                memcpy(buf + n, "\xbaLST", 4);
                n += 4;
        }
        n += put_hello(buf + n);
        assert_int_equal(count_frames(buf, n, &f, NULL), 1);
        assert_is_hello(&f);
}

static void test_unknown_type(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_writer w;
        struct bl_wire_hello h;
        struct bl_wire_welcome v;
        struct bl_wire_stats s;
        struct bl_wire_frame f;
        int n;

        (void)state;
        bl_wire_begin(&w, buf, sizeof buf, 0x1234);
        bl_wire_put_u64(&w, 1, 1);
        n = bl_wire_end(&w);
        assert_int_equal(count_frames(buf, (size_t)n, &f, NULL), 1);
        assert_int_equal(f.type, 0x1234);
        assert_int_equal(bl_wire_decode_hello(&f, &h), -EBADMSG);
        assert_int_equal(bl_wire_decode_welcome(&f, &v), -EBADMSG);
        assert_int_equal(bl_wire_decode_stats(&f, &s), -EBADMSG);
}

/* A newer minor version: unknown tags, and known values with more behind them. */
static void test_newer_minor(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_writer w;
        struct bl_wire_stats s;
        struct bl_wire_hello h;
        struct bl_wire_frame f;

        (void)state;
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_STATS);
        bl_wire_put(&w, BL_STAT_MEM_TOTAL, "\1\2\0\0\0\0\0\0later", 13);
        bl_wire_put(&w, 0, "x", 1);
        bl_wire_put(&w, _BL_STAT_MAX, "yy", 2);
        bl_wire_put(&w, 0xffff, "", 0);
        bl_wire_put_u64(&w, BL_STAT_MEM_FREE, 5);
        assert_int_equal(count_frames(buf, (size_t)bl_wire_end(&w), &f, NULL), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], 0x201);
        assert_int_equal(s.v[BL_STAT_MEM_FREE], 5);
        assert_int_equal(s.v[BL_STAT_MEM_AVAILABLE], BL_UNSET);

        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_HELLO);
        bl_wire_put_u64(&w, 1, 1);
        bl_wire_put_u64(&w, 2, 9);
        bl_wire_put(&w, 4, "0123456789abcdefgh", 18);
        bl_wire_put(&w, 77, "new", 3);
        assert_int_equal(count_frames(buf, (size_t)bl_wire_end(&w), &f, NULL), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &h), 0);
        assert_int_equal(h.minor, 9);
        assert_memory_equal(h.boot_id, "0123456789abcdef", 16);
}

static void assert_spoilt(const char *body, size_t size)
{
        struct bl_wire_frame f = {.type = BL_WIRE_STATS, .size = size, .body = (const uint8_t *)body};
        struct bl_wire_stats s;
        struct bl_wire_hello h;

        memset(&s, 0x55, sizeof s);
        assert_int_equal(bl_wire_decode_stats(&f, &s), -EBADMSG);
        assert_int_equal(s.v[3], UINT64_C(0x5555555555555555)); /* untouched */
        f.type = BL_WIRE_HELLO;
        assert_int_equal(bl_wire_decode_hello(&f, &h), -EBADMSG);
}

static void test_spoilt_fields(void **state)
{
        struct bl_wire_frame empty = {.type = BL_WIRE_HELLO};
        struct bl_wire_welcome w;
        struct bl_wire_hello h;

        (void)state;
        assert_spoilt("\1\0\7\0xxxxxxx", 11); /* too short for a number */
        assert_spoilt("\1\0\0\0", 4);
        assert_spoilt("\1\0\x8", 3); /* cut in its header */
        assert_spoilt("\1\0\x9\0xxxxxxxx", 12); /* leaves the body */
        assert_spoilt("\1\0\xff\xffxxxxxxx", 11);
        assert_spoilt("\1\0\x8\0xxxxxxxx\0", 13); /* one byte over */
        assert_int_equal(bl_wire_decode_hello(&empty, &h), -EBADMSG); /* no major */
        empty.type = BL_WIRE_WELCOME;
        assert_int_equal(bl_wire_decode_welcome(&empty, &w), -EBADMSG);
}

static void test_hostile_text(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_writer w;
        struct bl_wire_frame f;
        struct bl_wire_hello h;
        char longest[200];

        (void)state;
        memset(longest, 'k', sizeof longest);
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_HELLO);
        bl_wire_put_u64(&w, 1, 1);
        bl_wire_put(&w, 5, "\x1b[2J\n\0%s\x7f\xc3\xa4", 11);
        bl_wire_put(&w, 6, longest, sizeof longest);
        assert_int_equal(count_frames(buf, (size_t)bl_wire_end(&w), &f, NULL), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &h), 0);
        assert_string_equal(h.version, "?[2J??%s???");
        assert_int_equal(strlen(h.kernel), sizeof h.kernel - 1);
}

/* --- requests, actions, entitlement ---------------------------------------------- */

typedef int (*encode_fn)(const void *m, void *buf, size_t size);
typedef int (*decode_fn)(const struct bl_wire_frame *f, void *ret);

/* A message of each type with nothing left out, as bytes, behind one signature. */
#define KIND(name)                                                         \
        static int encode_##name(const void *m, void *buf, size_t size)    \
        {                                                                  \
                return bl_wire_encode_##name(m, buf, size);                \
        }                                                                  \
        static int decode_##name(const struct bl_wire_frame *f, void *ret) \
        {                                                                  \
                return bl_wire_decode_##name(f, ret);                      \
        }
KIND(pressure)
KIND(request)
KIND(result)
KIND(entitlement)
KIND(action)

static const struct bl_wire_pressure a_pressure = {.stall = 70 * BL_MSEC, .window = BL_SEC, .full = 1};
static const struct bl_wire_request a_request = {.bytes = BL_GIB, .urgency = BL_URGENCY_STOP, .deadline = 5};
static const struct bl_wire_result a_result = {
        .id = 7,
        .status = BL_RESULT_NO_ROOM,
        .bytes = 3,
        .took = 4,
        .need = 5,
        .have = 6,
};
static const struct bl_wire_entitlement a_grant = {
        .v = {BL_UNSET, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
};
static const struct bl_wire_action an_action = {.id = UINT64_MAX - 1, .kind = BL_ACTION_TRIM, .bytes = 9};

static const struct {
        const void *message;
        size_t size;
        encode_fn encode;
        decode_fn decode;
        int frame; /* bytes */
} kinds[] = {
        {&a_pressure, sizeof a_pressure, encode_pressure, decode_pressure, 16 + 3 * 12},
        {&a_request, sizeof a_request, encode_request, decode_request, 16 + 3 * 12},
        {&a_result, sizeof a_result, encode_result, decode_result, 16 + 6 * 12},
        {&a_grant, sizeof a_grant, encode_entitlement, decode_entitlement, 16 + 14 * 12},
        {&an_action, sizeof an_action, encode_action, decode_action, 16 + 3 * 12},
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])

static void test_round_trip_1_1(void **state)
{
        (void)state;
        for (size_t i = 0; i < N_KINDS; i++) {
                uint8_t buf[BL_WIRE_FRAME_MAX], got[256] = {0};
                struct bl_wire_frame f;

                for (int size = 0; size < kinds[i].frame; size++)
                        assert_int_equal(kinds[i].encode(kinds[i].message, buf, (size_t)size), -ENOBUFS);
                assert_int_equal(kinds[i].encode(kinds[i].message, buf, sizeof buf), kinds[i].frame);
                assert_int_equal(count_frames(buf, (size_t)kinds[i].frame, &f, NULL), 1);
                assert_int_equal(kinds[i].decode(&f, got), 0);
                assert_memory_equal(got, kinds[i].message, kinds[i].size);
                /* none is taken for another */
                for (size_t j = 0; j < N_KINDS; j++)
                        if (j != i)
                                assert_int_equal(kinds[j].decode(&f, got), -EBADMSG);
        }
}

/* What must be there, and what its absence means. */
static void test_absent_1_1(void **state)
{
        struct bl_wire_frame f = {.type = BL_WIRE_PRESSURE};
        uint8_t buf[64];
        struct bl_wire_writer w;
        struct bl_wire_pressure p;
        struct bl_wire_request q = {.bytes = 99};
        struct bl_wire_result r;
        struct bl_wire_entitlement e;
        struct bl_wire_action a;
        struct bl_wire_hints h;

        (void)state;
        assert_int_equal(bl_wire_decode_pressure(&f, &p), -EBADMSG);
        f.type = BL_WIRE_REQUEST;
        assert_int_equal(bl_wire_decode_request(&f, &q), -EBADMSG);
        assert_int_equal(q.bytes, 99); /* untouched */
        f.type = BL_WIRE_ENTITLEMENT;
        assert_int_equal(bl_wire_decode_entitlement(&f, &e), 0);
        for (int i = 0; i < _BL_GRANT_MAX; i++)
                assert_int_equal(e.v[i], BL_UNSET);

        bl_wire_begin(&w, buf, sizeof buf, 0);
        bl_wire_put_u64(&w, 1, 5);
        f = (struct bl_wire_frame){.type = BL_WIRE_PRESSURE, .size = 12, .body = buf + BL_WIRE_HEADER};
        assert_int_equal(bl_wire_decode_pressure(&f, &p), 0);
        assert_true(p.stall == 5 && p.window == BL_UNSET && p.full == 0);
        f.type = BL_WIRE_REQUEST;
        assert_int_equal(bl_wire_decode_request(&f, &q), 0);
        assert_true(q.bytes == 5 && q.urgency == BL_URGENCY_NOW && q.deadline == BL_UNSET);
        /* an id or a scan alone says nothing */
        f.type = BL_WIRE_RESULT;
        assert_int_equal(bl_wire_decode_result(&f, &r), -EBADMSG);
        f.type = BL_WIRE_ACTION;
        assert_int_equal(bl_wire_decode_action(&f, &a), -EBADMSG);
        f.type = BL_WIRE_HINTS;
        assert_int_equal(bl_wire_decode_hints(&f, &h), -EBADMSG);

        bl_wire_put_u64(&w, 2, 1);
        f.size = 24;
        assert_int_equal(bl_wire_decode_hints(&f, &h), 0);
        assert_true(h.scan == 5 && h.kind == 1 && h.flags == 0 && h.file == BL_UNSET && h.runs_size == 0);
        f.type = BL_WIRE_RESULT;
        assert_int_equal(bl_wire_decode_result(&f, &r), 0);
        assert_true(r.id == 5 && r.status == 1 && r.bytes == BL_UNSET && r.took == BL_UNSET);
        assert_true(r.need == BL_UNSET && r.have == BL_UNSET);
        f.type = BL_WIRE_ACTION;
        assert_int_equal(bl_wire_decode_action(&f, &a), 0);
        assert_true(a.id == 5 && a.kind == 1 && a.bytes == BL_UNSET);
}

/* A number that says "not known" is as good as none. */
static void test_not_known_1_1(void **state)
{
        uint8_t buf[64];
        struct bl_wire_request q;
        struct bl_wire_frame f;
        struct bl_wire_writer w;

        (void)state;
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_REQUEST);
        bl_wire_put(&w, 1, "\0\1\0\0\0\0\0\0", 8);
        bl_wire_put(&w, 2, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
        assert_int_equal(count_frames(buf, (size_t)bl_wire_end(&w), &f, NULL), 1);
        assert_int_equal(bl_wire_decode_request(&f, &q), 0);
        assert_int_equal(q.urgency, BL_URGENCY_NOW);
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_REQUEST);
        bl_wire_put(&w, 1, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
        assert_int_equal(count_frames(buf, (size_t)bl_wire_end(&w), &f, NULL), 1);
        assert_int_equal(bl_wire_decode_request(&f, &q), -EBADMSG);
}

static void test_urgency(void **state)
{
        static const uint64_t said[] = {0, 1, 2, 3, 7, UINT64_MAX - 1}, meant[] = {0, 1, 2, 2, 2, 2};

        (void)state;
        for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
                struct bl_wire_request q = {.bytes = 1, .urgency = said[i], .deadline = BL_UNSET};
                uint8_t buf[64];
                struct bl_wire_frame f;

                assert_int_equal(count_frames(buf, (size_t)bl_wire_encode_request(&q, buf, sizeof buf), &f, NULL), 1);
                assert_int_equal(bl_wire_decode_request(&f, &q), 0);
                assert_int_equal(q.urgency, meant[i]);
        }
}

/* --- hints ------------------------------------------------------------------------ */

static const struct bl_wire_run some_runs[] = {
        {.pfn = 0, .pages = 1, .index = 5},
        {.pfn = 1, .pages = 127, .index = 0},
        {.pfn = 256, .pages = 128, .index = 1},
        {.pfn = 300000, .pages = 1 << 20, .index = UINT64_C(1) << 40},
        {.pfn = (UINT64_C(1) << 52) - 1, .pages = 1, .index = (UINT64_C(1) << 52) - 1},
};
#define N_RUNS (sizeof some_runs / sizeof some_runs[0])

static void test_hints_round_trip(void **state)
{
        (void)state;
        for (uint64_t kind = BL_HINT_FREE; kind < _BL_HINT_MAX; kind++) {
                uint8_t runs[256], buf[BL_WIRE_FRAME_MAX];
                struct bl_wire_hints got, h = {
                                                  .scan = 3,
                                                  .kind = kind,
                                                  .flags = BL_HINTS_LAST,
                                                  .file = 77,
                                                  .runs = runs,
                                          };
                struct bl_wire_run run;
                struct bl_wire_frame f;
                uint64_t pfn = 0;
                size_t pos = 0;
                int n;

                for (size_t i = 0; i < N_RUNS; i++) {
                        n = bl_wire_run_put(kind, &some_runs[i], &pfn, runs + h.runs_size, sizeof runs - h.runs_size);
                        assert_true(n > 0);
                        h.runs_size += (size_t)n;
                }
                n = bl_wire_encode_hints(&h, buf, sizeof buf);
                assert_int_equal(n, 16 + 4 * 12 + 4 + h.runs_size);
                assert_int_equal(count_frames(buf, (size_t)n, &f, NULL), 1);
                assert_int_equal(bl_wire_decode_hints(&f, &got), 0);
                assert_true(got.scan == 3 && got.kind == kind && got.flags == BL_HINTS_LAST && got.file == 77);
                assert_true(got.runs >= f.body && got.runs + got.runs_size <= f.body + f.size);
                pfn = 0;
                for (size_t i = 0; i < N_RUNS; i++) {
                        assert_int_equal(bl_wire_run_next(&got, &pos, &pfn, &run), 1);
                        assert_int_equal(run.pfn, some_runs[i].pfn);
                        assert_int_equal(run.pages, some_runs[i].pages);
                        assert_int_equal(run.index, kind == BL_HINT_FILE ? some_runs[i].index : 0);
                }
                assert_int_equal(bl_wire_run_next(&got, &pos, &pfn, &run), 0);
                assert_int_equal(pos, h.runs_size);
        }
}

static void test_run_put_refuses(void **state)
{
        static const struct bl_wire_run wrong[] = {
                {.pfn = 100, .pages = 0},
                {.pfn = 99, .pages = 1}, /* before the end of the one before */
                {.pfn = UINT64_C(1) << 52, .pages = 1},
                {.pfn = 100, .pages = UINT64_C(1) << 52},
                {.pfn = 100, .pages = UINT64_MAX},
                {.pfn = UINT64_MAX, .pages = UINT64_MAX},
                {.pfn = 100, .pages = 1, .index = UINT64_C(1) << 52},
                {.pfn = 100, .pages = 1, .index = UINT64_MAX},
        };
        const struct bl_wire_run large = {.pfn = 300000, .pages = 300000, .index = 300000};
        uint8_t buf[32];
        uint64_t pfn = 100;

        (void)state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                assert_int_equal(bl_wire_run_put(BL_HINT_FILE, &wrong[i], &pfn, buf, sizeof buf), -EINVAL);
                assert_int_equal(pfn, 100);
        }
        for (size_t size = 0; size < 9; size++) {
                memset(buf, 0x55, sizeof buf);
                assert_int_equal(bl_wire_run_put(BL_HINT_FILE, &large, &pfn, buf, size), -ENOBUFS);
                assert_int_equal(pfn, 100);
                for (size_t i = 0; i < sizeof buf; i++)
                        assert_int_equal(buf[i], 0x55);
        }
        assert_int_equal(bl_wire_run_put(BL_HINT_FILE, &large, &pfn, buf, 9), 9);
        assert_int_equal(pfn, 600000);
}

static void assert_bad_run(uint64_t kind, const char *bytes, size_t size, uint64_t from)
{
        struct bl_wire_hints h = {.kind = kind, .runs = (const uint8_t *)bytes, .runs_size = size};
        struct bl_wire_run run = {.pfn = 77};
        uint64_t pfn = from;
        size_t pos = 0;

        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), -EBADMSG);
        assert_true(pos == 0 && pfn == from && run.pfn == 77); /* untouched */
}

static void test_hostile_runs(void **state)
{
        (void)state;
        assert_bad_run(BL_HINT_FREE, "\5", 1, 0); /* cut short */
        assert_bad_run(BL_HINT_FREE, "\5\x80", 2, 0);
        assert_bad_run(BL_HINT_FILE, "\5\1", 2, 0);
        assert_bad_run(BL_HINT_FREE, "\5\0", 2, 0); /* no pages */
        /* eleven bytes, and ten of more than 64 bits */
        assert_bad_run(BL_HINT_FREE, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\1", 12, 0);
        assert_bad_run(BL_HINT_FREE, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\1", 11, 0);
        /* 2^64-1, which would wrap */
        assert_bad_run(BL_HINT_FREE, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\1", 11, 1);
        assert_bad_run(BL_HINT_FREE, "\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 1);
        assert_bad_run(BL_HINT_FILE, "\0\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, 0);
        /* just past 2^52 pages */
        assert_bad_run(BL_HINT_FREE, "\0\1", 2, UINT64_C(1) << 52);
}

/* A kind that a newer minor version has brought is no fault. */
static void test_hints_of_unknown_kind(void **state)
{
        static const uint64_t unknown[] = {0, _BL_HINT_MAX, UINT64_MAX - 1};

        (void)state;
        for (size_t i = 0; i < 3; i++) {
                struct bl_wire_hints h = {.scan = 1, .kind = unknown[i], .file = BL_UNSET}, got = {.scan = 55};
                uint8_t buf[BL_WIRE_FRAME_MAX];
                struct bl_wire_frame f;

                assert_int_equal(count_frames(buf, (size_t)bl_wire_encode_hints(&h, buf, sizeof buf), &f, NULL), 1);
                assert_int_equal(bl_wire_decode_hints(&f, &got), -EOPNOTSUPP);
                assert_int_equal(got.scan, 55);
        }
}

/* As many runs as a message takes, and one byte more. */
static void test_hints_full(void **state)
{
        static uint8_t runs[BL_WIRE_FRAME_MAX];
        struct bl_wire_hints h = {.scan = 1, .kind = BL_HINT_FREE, .runs = runs, .runs_size = BL_WIRE_BODY_MAX - 52};
        uint8_t buf[BL_WIRE_FRAME_MAX];

        (void)state;
        assert_int_equal(bl_wire_encode_hints(&h, buf, sizeof buf), BL_WIRE_FRAME_MAX);
        h.runs_size++;
        assert_int_equal(bl_wire_encode_hints(&h, buf, sizeof buf), -ENOBUFS);
}

/* --- stored streams ------------------------------------------------------------ */

/* The first released agent: hello and statistics of Linux 4.19, without PSI. */
static void test_stored_1_0(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("agent-1.0", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_hello h;
        struct bl_wire_stats s;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &h), 0);
        assert_int_equal(h.major, 1);
        assert_int_equal(h.minor, 0);
        assert_int_equal(h.features, 0);
        assert_string_equal(h.version, "0.1.0");
        assert_string_equal(h.kernel, "4.19.0-27-amd64");
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
        assert_int_equal(s.v[BL_STAT_SEQUENCE], 1);
        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], 2048 * BL_MIB);
        assert_int_equal(s.v[BL_STAT_PSI_SOME], BL_UNSET);
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
        assert_int_equal(it.skipped, 0);
}

/* An imagined minor version 7: longer values, new tags, new types between. */
static void test_stored_1_7(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("agent-1.7", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_hello h;
        struct bl_wire_stats s;
        int hellos = 0, stats = 0, unknown = 0;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        while (bl_wire_next(&it, &f) > 0)
                switch (f.type) {
                case BL_WIRE_HELLO:
                        assert_int_equal(bl_wire_decode_hello(&f, &h), 0);
                        assert_int_equal(h.minor, 7);
                        assert_string_equal(h.kernel, "9.1.0");
                        hellos++;
                        break;
                case BL_WIRE_STATS:
                        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
                        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], 4 * BL_GIB);
                        assert_int_equal(s.v[BL_STAT_PSI_FULL], 77);
                        stats++;
                        break;
                default:
                        unknown++;
                        break;
                }
        assert_int_equal(hellos, 1);
        assert_int_equal(stats, 2);
        assert_int_equal(unknown, 2);
        assert_int_equal(it.pos, n);
}

/* Another major version, of which only the greeting can be read. */
static void test_stored_2_0(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("agent-2.0", buf, sizeof buf);
        struct bl_wire_frame f;
        struct bl_wire_hello h;

        (void)state;
        assert_int_equal(count_frames(buf, n, &f, NULL), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &h), 0);
        assert_int_equal(h.major, 2);
}

/* A port that was read while a console, a reset and a lost end went over it. */
static void test_stored_noise(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("noise", buf, sizeof buf);
        struct bl_wire_frame f;
        size_t skipped;

        (void)state;
        assert_int_equal(count_frames(buf, n, &f, &skipped), 3);
        assert_int_equal(f.type, BL_WIRE_STATS);
        assert_true(skipped > 100);
}

/* The first with more than statistics; asks for memory, hints, answers. */
static void test_stored_1_1(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("agent-1.1", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_hello hello;
        struct bl_wire_stats s;
        struct bl_wire_request q;
        struct bl_wire_pressure p;
        struct bl_wire_hints h;
        struct bl_wire_run run;
        struct bl_wire_result r;
        uint64_t pfn = 0;
        size_t pos = 0;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &hello), 0);
        assert_int_equal(hello.minor, 1);
        assert_int_equal(hello.features, BL_WIRE_FEATURE_PSI | BL_WIRE_FEATURE_REQUEST | BL_WIRE_FEATURE_HINTS |
                                                 BL_WIRE_FEATURE_TRIM | BL_WIRE_FEATURE_COMPACT);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
        assert_int_equal(s.v[BL_STAT_PSI_FULL], 20000);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_request(&f, &q), 0);
        assert_true(q.bytes == 256 * BL_MIB && q.urgency == BL_URGENCY_NOW && q.deadline == 400 * BL_MSEC);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_pressure(&f, &p), 0);
        assert_true(p.stall == 70 * BL_MSEC && p.window == BL_SEC && p.full == 0);

        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hints(&f, &h), 0);
        assert_true(h.scan == 3 && h.kind == BL_HINT_FREE && h.flags == 0);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 1);
        assert_true(run.pfn == 4096 && run.pages == 512);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 1);
        assert_true(run.pfn == 4608 && run.pages == 1);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 1);
        assert_true(run.pfn == 304609 && run.pages == 200);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 0);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hints(&f, &h), 0);
        assert_true(h.kind == BL_HINT_INACTIVE_FILE && h.flags == BL_HINTS_CUT);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hints(&f, &h), 0);
        assert_true(h.kind == BL_HINT_FILE && h.flags == BL_HINTS_LAST && h.file != BL_UNSET);
        pos = 0;
        pfn = 0;
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 1);
        assert_true(run.pfn == 70000 && run.pages == 30 && run.index == 0);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 1);
        assert_true(run.pfn == 70040 && run.pages == 2 && run.index == 400);
        assert_int_equal(bl_wire_run_next(&h, &pos, &pfn, &run), 0);

        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_result(&f, &r), 0);
        assert_true(r.id == 1 && r.status == BL_RESULT_PARTLY && r.bytes == 48 * BL_MIB && r.took == 12345);
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

/* The host's side, as an agent in the field reads it. */
static void test_stored_host_1_0(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("host-1.0", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_welcome w;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
        assert_true(w.major == 1 && w.minor == 0 && w.period == BL_SEC && w.ask == 1);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
        assert_true(w.period == 250 * BL_MSEC && w.ask == 0);
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

static void test_stored_host_1_1(void **state)
{
        static const uint64_t bytes[] = {BL_UNSET, 64 * BL_MIB, BL_UNSET, 64 * BL_KIB};
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("host-1.1", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_welcome w;
        struct bl_wire_entitlement e;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        for (uint64_t ask = 1; ask != UINT64_MAX; ask--) {
                assert_int_equal(bl_wire_next(&it, &f), 1);
                assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
                assert_true(w.minor == 1 && w.ask == ask);
        }
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_entitlement(&f, &e), 0);
        assert_int_equal(e.v[BL_GRANT_MAX], 2048 * BL_MIB);
        assert_int_equal(e.v[BL_GRANT_SHARES], 1000);
        assert_int_equal(e.v[BL_GRANT_SWAPPED], 30 * BL_MIB);
        assert_int_equal(e.v[BL_GRANT_STATE], 2);
        assert_int_equal(e.v[BL_GRANT_MANAGED], 1);
        assert_int_equal(e.v[BL_GRANT_STORE_HELD], BL_UNSET);
        for (uint64_t kind = BL_ACTION_PING; kind <= BL_ACTION_HINTS; kind++) {
                struct bl_wire_action a;

                assert_int_equal(bl_wire_next(&it, &f), 1);
                assert_int_equal(bl_wire_decode_action(&f, &a), 0);
                assert_true(a.id == kind && a.kind == kind && a.bytes == bytes[kind - 1]);
        }
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

/* Swap on the store: figures, a failure, and what there is no room for. */
static void test_stored_1_2(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("agent-1.2", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_hello hello;
        struct bl_wire_stats s;
        struct bl_wire_result r;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_hello(&f, &hello), 0);
        assert_true(hello.minor == 2 && hello.features == 0x3f);
        assert_true(hello.features & BL_WIRE_FEATURE_SWAP);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
        assert_int_equal(s.v[BL_STAT_STORE_STATE], BL_STORE_SWAP_ON);
        assert_int_equal(s.v[BL_STAT_STORE_SIZE], 1280 * BL_MIB);
        assert_int_equal(s.v[BL_STAT_STORE_USED], 280 * BL_MIB);
        assert_int_equal(s.v[BL_STAT_STORE_ERROR], BL_UNSET);
        assert_int_equal(s.v[BL_STAT_SWAP_AHEAD], 64 * BL_MIB);
        assert_int_equal(s.v[BL_STAT_ZSWAP], 1);
        assert_int_equal(s.v[BL_STAT_ZSWAPPED], 12 * BL_MIB);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
        assert_true(s.v[BL_STAT_STORE_STATE] == BL_STORE_SWAP_FAILED && s.v[BL_STAT_STORE_ERROR] == 17);
        assert_int_equal(s.v[BL_STAT_STORE_SIZE], BL_UNSET);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_result(&f, &r), 0);
        assert_true(r.id == 1 && r.status == BL_RESULT_DONE && r.need == BL_UNSET && r.have == BL_UNSET);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_result(&f, &r), 0);
        assert_true(r.id == 2 && r.status == BL_RESULT_NO_ROOM);
        assert_true(r.need == 276 * BL_MIB && r.have == 44 * BL_MIB);
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

static void test_stored_host_1_2(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("host-1.2", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_welcome w;
        struct bl_wire_entitlement e;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
        assert_int_equal(w.minor, 2);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_entitlement(&f, &e), 0);
        assert_int_equal(e.v[BL_GRANT_COMPRESSED], 90 * BL_MIB);
        assert_int_equal(e.v[BL_GRANT_STORE_HELD], 280 * BL_MIB);
        assert_int_equal(e.v[BL_GRANT_STORE_ROOM], 900 * BL_MIB);
        for (uint64_t i = 0; i < 3; i++) {
                struct bl_wire_action a;

                assert_int_equal(bl_wire_next(&it, &f), 1);
                assert_int_equal(bl_wire_decode_action(&f, &a), 0);
                assert_true(a.id == i + 1 && a.kind == BL_ACTION_SWAP_ON + i);
                assert_int_equal(a.bytes, i == 2 ? 64 * BL_MIB : BL_UNSET);
        }
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

static void test_stored_host_1_9(void **state)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n = load_hex("host-1.9", buf, sizeof buf);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_welcome w;
        struct bl_wire_entitlement e;
        struct bl_wire_action a;

        (void)state;
        bl_wire_iter_init(&it, buf, n);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_welcome(&f, &w), 0);
        assert_true(w.major == 1 && w.minor == 9 && w.period == 2 * BL_SEC && w.ask == 1);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(f.type, 0x8004);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_entitlement(&f, &e), 0);
        assert_int_equal(e.v[BL_GRANT_MAX], 2048 * BL_MIB);
        assert_int_equal(e.v[BL_GRANT_TARGET], BL_GIB);
        assert_int_equal(e.v[BL_GRANT_STATE], 9);
        assert_int_equal(e.v[BL_GRANT_LIMIT], BL_UNSET);
        /* an action that we do not know is read all the same: it wants an answer */
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_action(&f, &a), 0);
        assert_true(a.id == 1 && a.kind == 77 && a.bytes == 1);
        assert_int_equal(bl_wire_next(&it, &f), 1);
        assert_int_equal(bl_wire_decode_action(&f, &a), 0);
        assert_true(a.id == 2 && a.kind == BL_ACTION_PING && a.bytes == BL_UNSET);
        assert_int_equal(bl_wire_next(&it, &f), 0);
        assert_int_equal(it.pos, n);
}

/* ballast-protocol(7) says what wire.h says, as far as a program can see it. */
static void test_man_page(void **state)
{
        static char page[1 << 16];
        _cleanup_fclose_ FILE *f = fopen("daemon/channel/ballast-protocol.7.scd", "re");
        char want[64];

        (void)state;
        assert_non_null(f);
        page[fread(page, 1, sizeof page - 1, f)] = '\0';
        (void)snprintf(want, sizeof want, "version %d.%d.", BL_WIRE_MAJOR, BL_WIRE_MINOR);
        assert_non_null(strstr(page, want));
        (void)snprintf(want, sizeof want, "at most %u\n", BL_WIRE_BODY_MAX);
        assert_non_null(strstr(page, want));
        (void)snprintf(want, sizeof want, "port *%u*", BL_WIRE_VSOCK_PORT);
        assert_non_null(strstr(page, want));
        (void)snprintf(want, sizeof want, "below %u*", BL_WIRE_VSOCK_PORT_ROOT);
        assert_non_null(strstr(page, want));
        assert_non_null(strstr(page, "*" BL_WIRE_PORT_NAME "*"));
        /* the last of the two long lists of tags */
        (void)snprintf(want, sizeof want, "\n%d   bytes of pages in zswap", _BL_STAT_MAX - 1);
        assert_non_null(strstr(page, want));
        (void)snprintf(want, sizeof want, "\n%d   room in the store", _BL_GRANT_MAX - 1);
        assert_non_null(strstr(page, want));
        (void)snprintf(want, sizeof want, "\n%d    give slots of swap", _BL_ACTION_MAX - 1);
        assert_non_null(strstr(page, want));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_crc),
                cmocka_unit_test(test_layout),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_unset_stays_unset),
                cmocka_unit_test(test_small_buffer),
                cmocka_unit_test(test_body_limit),
                cmocka_unit_test(test_truncated),
                cmocka_unit_test(test_garbage_around),
                cmocka_unit_test(test_join_midway),
                cmocka_unit_test(test_lost_tail),
                cmocka_unit_test(test_damage),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_frame_in_garbage_of_magics),
                cmocka_unit_test(test_unknown_type),
                cmocka_unit_test(test_newer_minor),
                cmocka_unit_test(test_spoilt_fields),
                cmocka_unit_test(test_hostile_text),
                cmocka_unit_test(test_round_trip_1_1),
                cmocka_unit_test(test_absent_1_1),
                cmocka_unit_test(test_not_known_1_1),
                cmocka_unit_test(test_urgency),
                cmocka_unit_test(test_hints_round_trip),
                cmocka_unit_test(test_run_put_refuses),
                cmocka_unit_test(test_hostile_runs),
                cmocka_unit_test(test_hints_of_unknown_kind),
                cmocka_unit_test(test_hints_full),
                cmocka_unit_test(test_man_page),
                cmocka_unit_test(test_stored_1_0),
                cmocka_unit_test(test_stored_1_7),
                cmocka_unit_test(test_stored_2_0),
                cmocka_unit_test(test_stored_noise),
                cmocka_unit_test(test_stored_1_1),
                cmocka_unit_test(test_stored_host_1_0),
                cmocka_unit_test(test_stored_host_1_1),
                cmocka_unit_test(test_stored_1_2),
                cmocka_unit_test(test_stored_host_1_2),
                cmocka_unit_test(test_stored_host_1_9),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
