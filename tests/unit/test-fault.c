/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/fault.h"

static void test_names(void **state)
{
        size_t n = 0;
        const char *const *names = bl_fault_names(&n);

        (void)state;
        assert_int_equal(n, _BL_FAULT_MAX);
        for (size_t i = 0; i < n; i++) {
                assert_non_null(names[i]);
                for (size_t j = 0; j < i; j++)
                        assert_string_not_equal(names[i], names[j]);
        }
}

static void test_rules(void **state)
{
        static const char *const bad[] = {
                "fail",
                "fail@",
                "fail@nothing",
                "fail@ledger-renamed:",
                "kill@:1",
                "fail@ledger-renamed:0",
                "fail@ledger-renamed:-1",
                "fail@ledger-renamed:1x",
                "delay@ledger-renamed",
                "burn@ledger-renamed",
                "fail@ledger-renamed:99999999999999999999999",
        };

        (void)state;
        if (!bl_fault_enabled()) {
                assert_int_equal(bl_fault_set("fail@ledger-renamed"), -EOPNOTSUPP);
                assert_int_equal(bl_fault(BL_FAULT_LEDGER_RENAMED), 0);
                return;
        }
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(bl_fault_set(bad[i]), -EINVAL);
        assert_int_equal(bl_fault_set("fail@ledger-renamed:2,delay@balloon-before-rpc:1"), 0);
        assert_int_equal(bl_fault(BL_FAULT_LEDGER_RENAMED), 0);
        assert_int_equal(bl_fault(BL_FAULT_LEDGER_RENAMED), -EIO);
        assert_int_equal(bl_fault(BL_FAULT_LEDGER_RENAMED), 0);
        assert_int_equal(bl_fault(BL_FAULT_BALLOON_BEFORE_RPC), 0);
        assert_int_equal(bl_fault_set(NULL), 0);
}

#ifdef BALLAST_FAULTS /* make FAULTS=1 */
static void test_kill(void **state)
{
        size_t n;
        const char *const *names = bl_fault_names(&n);

        (void)state;
        for (size_t i = 0; i < n; i++) {
                int status;
                pid_t pid = fork();

                if (pid == 0) {
                        char rule[128];

                        snprintf(rule, sizeof(rule), "kill@%s:2", names[i]);
                        if (bl_fault_set(rule) < 0 || bl_fault((enum bl_fault_point)i) != 0)
                                _exit(1);
                        (void)bl_fault((enum bl_fault_point)i);
                        _exit(0);
                }
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFSIGNALED(status) && WTERMSIG(status) == 9);
        }
        assert_int_equal(bl_fault_set(NULL), 0);
}
#endif

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_rules),
#ifdef BALLAST_FAULTS
                cmocka_unit_test(test_kill),
#endif
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
