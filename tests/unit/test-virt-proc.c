/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/util/clock.h"
#include "daemon/virt/proc.h"

#define UUID_TEXT "c7a5fdbd-cdaf-9455-926a-d65c16db1809"

static char root[64];

static void put(const char *name, const char *text, size_t len)
{
        char path[256];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", root, name);
        f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, len, f), len);
        fclose(f);
}

static void put_text(const char *name, const char *text)
{
        put(name, text, strlen(text));
}

static int setup(void **state)
{
        char path[128];

        (void)state;
        snprintf(root, sizeof(root), "/tmp/ballast-test-proc-XXXXXX");
        assert_non_null(mkdtemp(root));
        snprintf(path, sizeof(path), "%s/4242", root);
        return mkdir(path, 0700);
}

static int teardown(void **state)
{
        static const char *const names[] = {"4242/stat", "4242/cmdline", "4242", "vm.pid", ""};
        char path[128];

        (void)state;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                snprintf(path, sizeof(path), "%s/%s", root, names[i]);
                remove(path);
        }
        return 0;
}

static void test_uuid(void **state)
{
        static const char *const bad[] = {"",
                                          "c7a5fdbd",
                                          UUID_TEXT "0",
                                          "c7a5fdbd-cdaf-9455-926a-d65c16db180",
                                          "x7a5fdbd-cdaf-9455-926a-d65c16db1809",
                                          "c7a5fdbd--cdaf-9455-926a-d65c16db1809"};
        uint8_t uuid[BL_UUID_LEN] = {0};
        char text[37];

        (void)state;
        assert_int_equal(bl_uuid_from_string(UUID_TEXT, uuid), 0);
        bl_uuid_to_string(uuid, text);
        assert_string_equal(text, UUID_TEXT);
        assert_int_equal(bl_uuid_from_string("C7A5FDBDCDAF9455926AD65C16DB1809", uuid), 0);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(bl_uuid_from_string(bad[i], uuid), -EINVAL);
        assert_int_equal(bl_uuid_from_string(NULL, uuid), -EINVAL);
        bl_uuid_to_string(uuid, text);
        assert_string_equal(text, UUID_TEXT);
}

static void test_find(void **state)
{
        static const char stat[] =
                "4242 (qemu) system) x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21\n";
        struct bl_instance i = {0};
        uint8_t uuid[BL_UUID_LEN];
        char cmdline[20000], c = 0;

        (void)state;
        assert_int_equal(bl_uuid_from_string(UUID_TEXT, uuid), 0);
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ENOENT);
        assert_int_equal(bl_instance_find(root, root, "../vm", uuid, &i), -EINVAL);
        put_text("vm.pid", "4242\n");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ESRCH);
        put_text("4242/stat", stat);
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ESRCH);

        /* wherever the UUID is, also across the pieces that are read */
        for (size_t at = 0; at<sizeof(cmdline) - 40; at += at> 8100 && at < 8300 ? 1 : 97) {
                memset(cmdline, 'x', sizeof(cmdline));
                if (at > 0)
                        cmdline[at - 1] = '\0';
                memcpy(cmdline + at, UUID_TEXT, 37);
                put("4242/cmdline", cmdline, sizeof(cmdline));
                assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), 0);
        }
        assert_int_equal(i.pid, 4242);
        assert_int_equal(i.start, 98765);
        assert_int_equal(bl_instance_state(root, &i, &c), 0);
        assert_int_equal(c, 'S');

        /* somebody else's process by now: all of an argument counts, not a part of one */
        i.pid = 7;
        put("4242/cmdline", "qemu\0-uuid\0x" UUID_TEXT, sizeof("qemu\0-uuid\0x" UUID_TEXT));
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ESRCH);
        put("4242/cmdline", "qemu\0-uuid\0" UUID_TEXT "x", sizeof("qemu\0-uuid\0" UUID_TEXT "x"));
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ESRCH);
        put_text("4242/cmdline", "qemu-system-x86_64");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -ESRCH);
        assert_int_equal(i.pid, 7);
        i = (struct bl_instance){.pid = 4242, .start = 98766};
        assert_int_equal(bl_instance_state(root, &i, &c), -ESRCH);

        put_text("vm.pid", "4242 or so");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
        put_text("vm.pid", "");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
        put_text("vm.pid", "-1");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
        put_text("vm.pid", "4242                                                            ");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
        assert_int_equal(bl_instance_find(root, root, "", uuid, &i), -EINVAL);
        put_text("vm.pid", "0");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
        put_text("vm.pid", "99999999999999999999");
        assert_int_equal(bl_instance_find(root, root, "vm", uuid, &i), -EINVAL);
}

/* A real process: seen running, stopped, gone. */
static void test_stopped(void **state)
{
        struct bl_instance i = {0};
        char path[128], text[64], c = 0;
        uint8_t uuid[BL_UUID_LEN];
        usec_t started;
        int status;
        pid_t pid;

        (void)state;
        assert_int_equal(bl_uuid_from_string(UUID_TEXT, uuid), 0);
        pid = fork();
        if (pid == 0) {
                execl("/bin/sh", "sh", "-c", "while :; do sleep 1; done", UUID_TEXT, (char *)NULL);
                _exit(1);
        }
        snprintf(text, sizeof(text), "%d", pid);
        put_text("vm.pid", text);
        for (int n = 0; n < 200 && bl_instance_find(root, NULL, "vm", uuid, &i) < 0; n++)
                usleep(10000);
        assert_int_equal(i.pid, pid);
        started = bl_instance_started_at(&i);
        assert_in_range(started, bl_now() - 10 * BL_SEC, bl_now() + BL_SEC);
        kill(pid, SIGSTOP);
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        assert_int_equal(bl_instance_state(NULL, &i, &c), 0);
        assert_int_equal(c, 'T');
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(bl_instance_state(NULL, &i, &c), -ESRCH);
        snprintf(path, sizeof(path), "%s/vm.pid", root);
        remove(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_uuid),
                cmocka_unit_test_setup_teardown(test_find, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
