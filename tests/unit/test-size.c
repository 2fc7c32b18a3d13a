/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/util/size.h"
#include "tests/unit/test-host-util.h"

static void test_sizes_as_people_write_them(void **state)
{
        static const struct {
                const char *text;
                uint64_t bytes;
        } cases[] = {
                {"0", 0},
                {"536870912", 512 * BL_MIB},
                {"512M", 512 * BL_MIB},
                {"512m", 512 * BL_MIB},
                {"512MiB", 512 * BL_MIB},
                {" 512 mib ", 512 * BL_MIB},
                {"1.5G", 3 * BL_GIB / 2},
                {"4K", 4096},
                {"4096B", 4096},
                {"0.5K", 512},
                {"1.0009765625K", 1024}, /* a fraction of a byte is dropped */
                {"15E", 15 * (UINT64_C(1) << 60)},
                {"18446744073709551614", UINT64_MAX - 1},
                {"00012K", 12 * 1024},
        };

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                uint64_t v = 7;

                assert_int_equal(bl_size_parse(cases[i].text, &v), 0);
                assert_int_equal(v, cases[i].bytes);
        }
}

static void test_size_refusals_leave_the_result_alone(void **state)
{
        static const struct {
                const char *text;
                int error;
        } cases[] = {
                {"", -EINVAL},
                {" ", -EINVAL},
                {"M", -EINVAL},
                {"-1", -EINVAL},
                {"+1", -EINVAL},
                {"1MB", -EINVAL},
                {"1Mi", -EINVAL},
                {"1.5", -EINVAL},
                {"1.5B", -EINVAL},
                {"1.M", -EINVAL},
                {".5M", -EINVAL},
                {"1,5G", -EINVAL},
                {"1 M x", -EINVAL},
                {"1M1", -EINVAL},
                {"0x10", -EINVAL},
                {"1e3", -EINVAL}, /* E is a unit, and what follows it is not */
                {"12X", -EINVAL},
                {"ram", -EINVAL},
                {"16E", -ERANGE},
                {"18446744073709551615", -ERANGE}, /* BL_UNSET */
                {"18446744073709551616", -ERANGE},
                {"99999999999999999999999999", -ERANGE},
                {"18014398509481984K", -ERANGE},
        };

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                uint64_t v = 7;

                assert_int_equal(bl_size_parse(cases[i].text, &v), cases[i].error);
                assert_int_equal(v, 7);
        }
}

static void test_sizes_for_people(void **state)
{
        static const struct {
                uint64_t bytes;
                const char *text;
        } cases[] = {
                {0, "0 B"},
                {1, "1 B"},
                {1023, "1023 B"},
                {1024, "1 KiB"},
                {1536, "1.5 KiB"},
                {812 * BL_MIB, "812 MiB"},
                {812 * BL_MIB + 1, "812 MiB"},
                {3 * BL_GIB / 2, "1.5 GiB"},
                {BL_GIB - 1, "1 GiB"}, /* not 1024 MiB */
                {99 * BL_MIB + BL_MIB / 2, "99.5 MiB"},
                {100 * BL_MIB + BL_MIB / 2, "101 MiB"},
                {24 * BL_GIB, "24 GiB"},
                {UINT64_MAX - 1, "16 EiB"},
                {BL_UNSET, "-"},
        };
        char buf[BL_SIZE_BUF], small[4];

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
                assert_string_equal(bl_size_format(cases[i].bytes, buf, sizeof buf), cases[i].text);
        assert_string_equal(bl_size_format(812 * BL_MIB, small, sizeof small), "812");
}

static void test_exact_sizes_read_back(void **state)
{
        static const uint64_t sizes[] = {0,
                                         1,
                                         1023,
                                         1024,
                                         1025,
                                         BL_MIB,
                                         BL_MIB + 1,
                                         512 * BL_MIB,
                                         BL_GIB,
                                         3 * BL_GIB / 2,
                                         UINT64_MAX - 1,
                                         UINT64_C(15) << 60};
        char buf[BL_SIZE_BUF];

        (void)state;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                uint64_t v = 7;

                assert_int_equal(bl_size_parse(bl_size_format_exact(sizes[i], buf, sizeof buf), &v), 0);
                assert_int_equal(v, sizes[i]);
        }
        assert_string_equal(bl_size_format_exact(1536 * BL_KIB, buf, sizeof buf), "1536K");
        assert_string_equal(bl_size_format_exact(512 * BL_MIB, buf, sizeof buf), "512M");
}

static void test_ratios(void **state)
{
        permyriad_t p = 7;
        char buf[BL_SIZE_BUF];

        (void)state;
        assert_int_equal(bl_permyriad_parse("75%", &p), 0);
        assert_int_equal(p, 7500);
        assert_int_equal(bl_permyriad_parse(" 0.5 % ", &p), 0);
        assert_int_equal(p, 50);
        assert_int_equal(bl_permyriad_parse("12.34%", &p), 0);
        assert_int_equal(p, 1234);
        assert_int_equal(bl_permyriad_parse("150%", &p), 0);
        assert_int_equal(p, 15000);

        assert_int_equal(bl_permyriad_parse("75", &p), -EINVAL);
        assert_int_equal(bl_permyriad_parse("0.001%", &p), -EINVAL);
        assert_int_equal(bl_permyriad_parse("%", &p), -EINVAL);
        assert_int_equal(bl_permyriad_parse("-5%", &p), -EINVAL);
        assert_int_equal(bl_permyriad_parse("75%%", &p), -EINVAL);
        assert_int_equal(bl_permyriad_parse("99999999999%", &p), -ERANGE);
        assert_int_equal(p, 15000);

        assert_string_equal(bl_permyriad_format(7500, buf, sizeof buf), "75%");
        assert_string_equal(bl_permyriad_format(50, buf, sizeof buf), "0.5%");
        assert_string_equal(bl_permyriad_format(1234, buf, sizeof buf), "12.34%");
        assert_string_equal(bl_permyriad_format(5, buf, sizeof buf), "0.05%");
}

static void test_spans(void **state)
{
        static const struct {
                const char *text;
                usec_t t;
        } cases[] = {
                {"0", 0},
                {"2", 2 * BL_SEC},
                {"2s", 2 * BL_SEC},
                {"2 sec", 2 * BL_SEC},
                {"500ms", 500 * BL_MSEC},
                {"100us", 100},
                {"1.5s", 1500 * BL_MSEC},
                {"1min 30s", 90 * BL_SEC},
                {"1min30s", 90 * BL_SEC},
                {"1h", 3600 * BL_SEC},
                {"1d", 86400 * BL_SEC},
        };
        static const usec_t back[] = {0, 1, 999, 1000, 1500 * BL_MSEC, 90 * BL_SEC, 86399999999, UINT64_MAX - 1};
        char buf[96];
        usec_t v = 7;

        (void)state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                assert_int_equal(bl_span_parse(cases[i].text, &v), 0);
                assert_int_equal(v, cases[i].t);
        }
        for (size_t i = 0; i < sizeof back / sizeof *back; i++) {
                assert_int_equal(bl_span_parse(bl_span_format(back[i], buf, sizeof buf), &v), 0);
                assert_int_equal(v, back[i]);
        }
        assert_string_equal(bl_span_format(90 * BL_SEC, buf, sizeof buf), "1min 30s");
        assert_string_equal(bl_span_format(1500 * BL_MSEC, buf, sizeof buf), "1s 500ms");
        assert_string_equal(bl_span_format(BL_UNSET, buf, sizeof buf), "infinity");

        v = 7;
        assert_int_equal(bl_span_parse("", &v), -EINVAL);
        assert_int_equal(bl_span_parse("s", &v), -EINVAL);
        assert_int_equal(bl_span_parse("2 parsecs", &v), -EINVAL);
        assert_int_equal(bl_span_parse("2s x", &v), -EINVAL);
        assert_int_equal(bl_span_parse("2M", &v), -EINVAL);
        assert_int_equal(bl_span_parse("-2s", &v), -EINVAL);
        assert_int_equal(bl_span_parse("2s;", &v), -EINVAL);
        assert_int_equal(bl_span_parse("999999999999999999h", &v), -ERANGE);
        assert_int_equal(bl_span_parse("18446744073709s 999999s", &v), -ERANGE);
        assert_int_equal(v, 7);
}

static void test_yes_and_no_and_numbers(void **state)
{
        uint64_t n = 7;
        bool b = false;

        (void)state;
        assert_int_equal(bl_bool_parse("Yes", &b), 0);
        assert_true(b);
        assert_int_equal(bl_bool_parse("maybe", &b), -EINVAL);
        assert_int_equal(bl_bool_parse("", &b), -EINVAL);
        assert_true(b);
        assert_int_equal(bl_bool_parse("off", &b), 0);
        assert_false(b);

        assert_int_equal(bl_uint_parse("1.5", &n), -EINVAL);
        assert_int_equal(bl_uint_parse("5K", &n), -EINVAL);
        assert_int_equal(bl_uint_parse("18446744073709551616", &n), -ERANGE);
        assert_int_equal(n, 7);
        assert_int_equal(bl_uint_parse(" 10 ", &n), 0);
        assert_int_equal(n, 10);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sizes_as_people_write_them),
                cmocka_unit_test(test_size_refusals_leave_the_result_alone),
                cmocka_unit_test(test_sizes_for_people),
                cmocka_unit_test(test_exact_sizes_read_back),
                cmocka_unit_test(test_ratios),
                cmocka_unit_test(test_spans),
                cmocka_unit_test(test_yes_and_no_and_numbers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
