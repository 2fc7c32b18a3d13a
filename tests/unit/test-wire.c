/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest protocol: round trips, damage of every kind, older and newer peers. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

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

/* --- stored streams ------------------------------------------------------------ */

/* Two hex digits a byte; white space and "# ..." are passed over. */
static size_t load_hex(const char *name, uint8_t *buf, size_t size)
{
        char path[256];
        _cleanup_fclose_ FILE *f = NULL;
        size_t n = 0;
        int c, high = -1;

        (void)snprintf(path, sizeof path, "tests/data/wire/%s.hex", name);
        f = fopen(path, "re");
        if (!f)
                fail_msg("%s: %m (run from the top of the tree)", path);
        while ((c = fgetc(f)) != EOF) {
                if (c == '#') {
                        while (c != '\n' && c != EOF)
                                c = fgetc(f);
                        continue;
                }
                if (isspace(c))
                        continue;
                assert_true(isxdigit(c));
                c = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
                if (high < 0) {
                        high = c;
                        continue;
                }
                assert_true(n < size);
                buf[n++] = (uint8_t)(high << 4 | c);
                high = -1;
        }
        assert_int_equal(high, -1);
        return n;
}

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
                cmocka_unit_test(test_stored_1_0),
                cmocka_unit_test(test_stored_1_7),
                cmocka_unit_test(test_stored_2_0),
                cmocka_unit_test(test_stored_noise),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
