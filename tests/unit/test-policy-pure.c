/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The policy does no I/O and knows no clock, log or locale: its undefined symbols say so. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Memory, strings, sorting and formatting of integers; nothing else without a very good reason. */
static const char *const allowed[] = {
        "malloc",
        "calloc",
        "realloc",
        "free",
        "memcpy",
        "memmove",
        "memset",
        "memcmp",
        "bcmp",
        "strlen",
        "strnlen",
        "strcmp",
        "strncmp",
        "qsort",
        "snprintf",
        "vsnprintf",
        "__snprintf_chk",
        "__vsnprintf_chk",
        "__memcpy_chk",
        "__memmove_chk",
        "__memset_chk",
        "__stack_chk_fail",
        "_GLOBAL_OFFSET_TABLE_",
};

/* What the build variants add. */
static const char *const instruments[] = {"__asan_", "__ubsan_", "__tsan_", "__sanitizer_", "__gcov_", "__llvm_"};

static int is_allowed(const char *symbol)
{
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
                if (strcmp(symbol, allowed[i]) == 0)
                        return 1;
        }
        for (size_t i = 0; i < sizeof(instruments) / sizeof(instruments[0]); i++) {
                if (strncmp(symbol, instruments[i], strlen(instruments[i])) == 0)
                        return 1;
        }
        return 0;
}

static void library(char path[static PATH_MAX])
{
        ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 32);

        assert_true(n > 0);
        path[n] = '\0';
        /* BUILD/tests/unit/this */
        for (int i = 0; i < 3; i++) {
                assert_non_null(strrchr(path, '/'));
                *strrchr(path, '/') = '\0';
        }
        strcat(path, "/libpolicy.a");
}

static void test_symbols(void **state)
{
        char path[PATH_MAX], command[2 * PATH_MAX], line[512], symbol[256], kind;
        char *defined = NULL;
        size_t used = 0, n_undefined = 0, n_bad = 0;
        FILE *f;

        (void)state;
        library(path);

        /* first what the library itself defines, then what it wants */
        snprintf(command, sizeof(command), "nm --defined-only '%s'", path);
        f = popen(command, "r");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f)) {
                if (sscanf(line, "%*x %c %255s", &kind, symbol) != 2)
                        continue;
                defined = realloc(defined, used + strlen(symbol) + 2);
                assert_non_null(defined);
                used += (size_t)sprintf(defined + used, "%s\n", symbol);
        }
        assert_int_equal(pclose(f), 0);
        assert_non_null(defined);
        assert_non_null(strstr(defined, "bl_policy_decide\n"));

        snprintf(command, sizeof(command), "nm --undefined-only '%s'", path);
        f = popen(command, "r");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f)) {
                char pattern[260];

                if (sscanf(line, " %c %255s", &kind, symbol) != 2 || kind != 'U')
                        continue;
                n_undefined++;
                snprintf(pattern, sizeof(pattern), "%s\n", symbol);
                if (!is_allowed(symbol) && !strstr(defined, pattern)) {
                        print_error("the policy must not use %s\n", symbol);
                        n_bad++;
                }
        }
        assert_int_equal(pclose(f), 0);
        free(defined);
        assert_true(n_undefined > 5);
        assert_int_equal(n_bad, 0);
}

/* The check itself: it would see what it is there to see. */
static void test_list(void **state)
{
        (void)state;
        assert_true(is_allowed("memcpy"));
        assert_true(is_allowed("__asan_report_load8"));
        assert_false(is_allowed("clock_gettime"));
        assert_false(is_allowed("printf"));
        assert_false(is_allowed("fopen"));
        assert_false(is_allowed("setlocale"));
        assert_false(is_allowed("mem"));
}

/* No floating point either, whose results differ between compilers and flags. */
static void test_no_floating_point(void **state)
{
        char path[PATH_MAX], command[2 * PATH_MAX], line[512];
        FILE *f;

        (void)state;
        library(path);
        snprintf(command, sizeof(command),
                 "objdump -d --no-show-raw-insn '%s' | grep -cE '(add|sub|mul|div|cvt|sqrt)[a-z0-9]*s[sd] ' || true",
                 path);
        f = popen(command, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof(line), f));
        pclose(f);
        assert_int_equal(atoi(line), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_symbols),
                cmocka_unit_test(test_list),
                cmocka_unit_test(test_no_floating_point),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
