/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of ballastctl that need no daemon: diffs, folding, harmless text. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/diff.h"
#include "daemon/ctl/table.h"

static void same(const char *before, const char *after, const char *want)
{
        _cleanup_free_ char *got = NULL;

        assert_int_equal(ctl_diff("x", before, after, &got), 0);
        assert_string_equal(got, want);
}

#define HEAD "--- x (now)\n+++ x (for Ballast)\n"

static void test_diff(void **state)
{
        (void)state;
        same("", "", "");
        same("a\nb\n", "a\nb\n", "");
        same("", "a\n", HEAD "@@ -0,0 +1,1 @@\n+a\n");
        same("a\n", "", HEAD "@@ -1,1 +0,0 @@\n-a\n");
        same("a\nb\nc\n", "a\nB\nc\n", HEAD "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n");
        same("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\nx\n5\n6\n", HEAD "@@ -2,5 +2,6 @@\n 2\n 3\n 4\n+x\n 5\n 6\n");
        /* two changes that are far apart, and two that are near each other */
        same("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "x\n2\n3\n4\n5\n6\n7\n8\ny\n",
             HEAD "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+y\n");
        same("1\n2\n3\n4\n5\n6\n7\n8\n", "x\n2\n3\n4\n5\n6\n7\ny\n",
             HEAD "@@ -1,8 +1,8 @@\n-1\n+x\n 2\n 3\n 4\n 5\n 6\n 7\n-8\n+y\n");
        same("a", "a\nb", HEAD "@@ -1,1 +1,2 @@\n a\n+b\n");
}

static void test_diff_bounds(void **state)
{
        size_t n = 30000 * 2;
        _cleanup_free_ char *many = malloc(n + 1), *got = NULL;

        (void)state;
        for (size_t i = 0; i < n; i += 2)
                memcpy(many + i, "a\n", 2);
        many[n] = 0;
        assert_int_equal(ctl_diff("x", many, "", &got), -EFBIG);
        assert_null(got);
}

static void test_fold(void **state)
{
        static const struct {
                const char *text;
                size_t width;
                const char *want;
        } all[] = {
                {"", 10, ""},
                {"one two three", 0, "one two three"},
                {"one two three", 13, "one two three"},
                {"one two three", 12, "one two\nthree"},
                {"one two three", 7, "one two\nthree"},
                {"one two three", 6, "one\ntwo\nthree"},
                {"unfoldable", 4, "unfoldable"},
                {"unfoldable then", 4, "unfoldable\nthen"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
                _cleanup_free_ char *got = ctl_table_fold(all[i].text, all[i].width);

                assert_string_equal(got, all[i].want);
        }
}

static void test_harmless(void **state)
{
        char s[] = "a\033[31mb\x7f\r\n\tc\xc2\x9b d\xc3\xa9", keep[] = "a\nb\033";
        json_t *d;

        (void)state;
        ctl_make_text_safe(s, false);
        assert_string_equal(s, "a?[31mb????c?? d\xc3\xa9");
        ctl_make_text_safe(keep, true);
        assert_string_equal(keep, "a\nb?");
        d = json_loads("{\"a\":[\"x\\u001b\",{\"b\":\"y\\u009b\"},1,null,true]}", 0, NULL);
        ctl_make_safe(d);
        assert_string_equal(json_string_value(json_array_get(json_object_get(d, "a"), 0)), "x?");
        assert_string_equal(ctl_string(json_array_get(json_object_get(d, "a"), 1), "b"), "y??");
        json_decref(d);
}

static void test_absent_fields(void **state)
{
        char buf[32];
        json_t *d = json_loads("{\"n\":-5,\"s\":1048576,\"x\":null}", 0, NULL);

        (void)state;
        assert_int_equal(ctl_number(d, "n"), 0);
        assert_int_equal(ctl_number(d, "none"), 0);
        assert_int_equal(ctl_number(NULL, "none"), 0);
        assert_string_equal(ctl_string(d, "none"), "");
        assert_false(ctl_true(d, "none"));
        assert_string_equal(ctl_size(d, "s", buf, sizeof(buf)), "1 MiB");
        assert_string_equal(ctl_size(d, "x", buf, sizeof(buf)), "-");
        assert_string_equal(ctl_size(NULL, "x", buf, sizeof(buf)), "-");
        json_decref(d);
}

/* An option's name is its key: twice in a command would be a mistake. */
static void test_commands(void **state)
{
        (void)state;
        for (const struct ctl_command *k = ctl_commands; k->name; k++) {
                assert_ptr_equal(ctl_command_find(k->name), k);
                assert_non_null(k->run);
                assert_non_null(k->summary);
                assert_true(k->min_args <= k->max_args);
                assert_null(k->options[CTL_OPTIONS_MAX - 1].name);
                for (const struct ctl_option *o = k->options; o->name; o++) {
                        for (const struct ctl_option *p = o + 1; p->name; p++)
                                assert_string_not_equal(o->name, p->name);
                        for (const struct ctl_option *p = ctl_global_options; p->name; p++)
                                assert_string_not_equal(o->name, p->name);
                }
        }
        assert_null(ctl_command_find("nonsense"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_diff),     cmocka_unit_test(test_diff_bounds),   cmocka_unit_test(test_fold),
                cmocka_unit_test(test_harmless), cmocka_unit_test(test_absent_fields), cmocka_unit_test(test_commands),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
