/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/sense/controllers.h"
#include "tests/unit/test-host-util.h"

static void process(int pid, const char *comm, const char *cmdline, size_t len)
{
        char path[64];

        (void)snprintf(path, sizeof path, "/proc/%d/comm", pid);
        test_write(path, comm);
        (void)snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        test_write_bytes(path, cmdline, len);
}
#define PROCESS(pid, comm, cmdline) process(pid, comm "\n", cmdline, sizeof(cmdline))

static void test_none(void **state)
{
        struct bl_controller found[BL_CONTROLLERS_MAX];

        (void)state;
        assert_int_equal(bl_controllers_find(test_root, 1, found, BL_CONTROLLERS_MAX), -ENOENT);
        assert_int_equal(bl_controllers_find(HOST_FIXTURE, 1, found, BL_CONTROLLERS_MAX), 0);
}

static void test_by_name_and_by_script(void **state)
{
        struct bl_controller found[BL_CONTROLLERS_MAX];

        (void)state;
        PROCESS(1, "systemd", "/sbin/init");
        PROCESS(10, "python3", "/usr/bin/python3\0-u\0/usr/sbin/momd\0-c\0/etc/momd.conf");
        PROCESS(11, "bash", "/bin/bash\0/usr/sbin/ksmtuned");
        PROCESS(12, "systemd-oomd", "/lib/systemd/systemd-oomd");
        PROCESS(13, "pvestatd", "pvestatd");
        PROCESS(14, "ballastd", "/usr/sbin/ballastd");
        PROCESS(15, "ballastd", "/usr/sbin/ballastd");
        PROCESS(16, "ballastd", "/usr/sbin/ballastd");
        /* not what they look like */
        PROCESS(20, "vim", "vim\0/etc/ksmtuned.conf");
        PROCESS(21, "bash", "bash\0/home/me/check.sh\0momd");
        PROCESS(22, "bashful", "momd");
        PROCESS(23, "python3.11", "python3\0-c\0import time");
        PROCESS(24, "qemu-system-x86", "qemu-system-x86_64\0-name\0guest=momd");
        test_write("/proc/self/comm", "momd\n");
        test_write("/proc/99/comm", "");
        test_write("/proc/sys/kernel/comm", "earlyoom\n");
        test_write("/sys/kernel/mm/ksm/advisor_mode", "none [scan-time]\n");

        assert_int_equal(bl_controllers_find(test_root, 14, found, BL_CONTROLLERS_MAX), 6);
        assert_string_equal(found[0].name, "MOM");
        assert_int_equal(found[0].pid, 10);
        assert_string_equal(found[1].name, "pvestatd");
        assert_string_equal(found[2].name, "ksmtuned");
        assert_int_equal(found[2].pid, 11);
        assert_string_equal(found[3].name, "systemd-oomd");
        assert_string_equal(found[4].name, "ballastd"); /* once, and not ourselves */
        assert_true(found[4].pid == 15 || found[4].pid == 16);
        assert_string_equal(found[5].name, "KSM advisor");
        assert_int_equal(found[5].pid, 0);
        for (int i = 0; i < 6; i++)
                assert_true(strlen(found[i].what) > 20);

        assert_int_equal(bl_controllers_find(test_root, 14, found, 2), 2);
        test_write("/sys/kernel/mm/ksm/advisor_mode", "[none] scan-time\n");
        assert_int_equal(bl_controllers_find(test_root, 14, found, BL_CONTROLLERS_MAX), 5);
}

static void test_hostile(void **state)
{
        struct bl_controller found[BL_CONTROLLERS_MAX];
        char big[100000];

        (void)state;
        memset(big, 'm', sizeof big);
        test_write_bytes("/proc/5/comm", big, sizeof big);
        test_write("/proc/6/comm", "python\n");
        test_write_bytes("/proc/6/cmdline", big, sizeof big);
        memset(big, 0, sizeof big);
        test_write("/proc/7/comm", "perl\n");
        test_write_bytes("/proc/7/cmdline", big, sizeof big);
        memset(big, '-', sizeof big);
        test_write("/proc/8/comm", "sh\n");
        test_write_bytes("/proc/8/cmdline", big, sizeof big);
        test_write("/proc/9/cmdline", "momd");
        assert_int_equal(bl_fs_mkdir_p(test_path("/proc/99999999999999999999"), 0755), 0);
        assert_int_equal(bl_controllers_find(test_root, 1, found, BL_CONTROLLERS_MAX), 0);
}

#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, test_root_make, test_root_remove)

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_ROOT(test_none),
                IN_ROOT(test_by_name_and_by_script),
                IN_ROOT(test_hostile),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
