/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>

#include "daemon/log.h"
#include "tests/unit/test-host-util.h"

static int saved_stderr = -1;
static int reading = -1;

static int redirect(void **state)
{
        int fds[2];

        (void)state;
        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -1;
        saved_stderr = dup(STDERR_FILENO);
        reading = fds[0];
        if (dup2(fds[1], STDERR_FILENO) < 0)
                return -1;
        close(fds[1]);
        unsetenv("JOURNAL_STREAM");
        return 0;
}

static int restore(void **state)
{
        (void)state;
        dup2(saved_stderr, STDERR_FILENO);
        close(saved_stderr);
        close(reading);
        return 0;
}

static void expect(const char *format)
{
        char buf[8192], expected[8192];
        const ssize_t n = read(reading, buf, sizeof buf - 1);

        if (!format) {
                assert_int_equal(n, -1);
                return;
        }
        assert_true(n > 0);
        buf[n] = '\0';
        (void)snprintf(expected, sizeof expected, "%s", format);
        assert_string_equal(buf, expected);
}

static void test_lines(void **state)
{
        (void)state;
        bl_log_init(LOG_INFO);
        bl_log_info("hello %d", 5);
        expect("test-log: hello 5\n");
        bl_log_warning("careful");
        expect("test-log: warning: careful\n");
        bl_log_error("bad");
        expect("test-log: error: bad\n");
        bl_log(LOG_NOTICE, BL_EV_STUCK, "web1", "park.stuck", "VM %s", "web1");
        expect("test-log: VM web1\n");
        errno = ENOENT;
        bl_log_info("why: %m, ignoring");
        expect("test-log: why: No such file or directory, ignoring\n");
        assert_int_equal(errno, ENOENT);
}

static void test_levels(void **state)
{
        (void)state;
        bl_log_init(LOG_WARNING);
        bl_log_info("not this");
        bl_log_debug("nor this");
        expect(NULL);
        bl_log_warning("this");
        expect("test-log: warning: this\n");
        bl_log_init(LOG_DEBUG);
        bl_log_debug("this too");
        expect("test-log: debug: this too\n");
}

static void test_names_cannot_forge_lines(void **state)
{
        char big[5000], expected[5000];

        (void)state;
        bl_log_init(LOG_INFO);
        bl_log_info("VM %s", "a\nballastd: error: b\033[31m\x7f\tc");
        expect("test-log: VM a ballastd: error: b?[31m? c\n");

        memset(big, 'x', sizeof big);
        big[sizeof big - 1] = '\0';
        bl_log_info("%s", big);
        (void)snprintf(expected, sizeof expected, "test-log: %.2047s\n", big);
        expect(expected);
}

/* Where the journal reads our standard error but its socket is not there, it understands a prefix. */
static void test_prefix_for_the_journal(void **state)
{
        char stream[64];
        struct stat st;

        (void)state;
        if (access("/run/systemd/journal/socket", W_OK) == 0)
                skip();
        assert_int_equal(fstat(STDERR_FILENO, &st), 0);
        (void)snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
                       (unsigned long long)st.st_ino);
        assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
        bl_log_init(LOG_INFO);
        bl_log_warning("careful");
        expect("<4>test-log: careful\n");

        /* somebody else's stream, or nonsense */
        assert_int_equal(setenv("JOURNAL_STREAM", "1:2", 1), 0);
        bl_log_init(LOG_INFO);
        bl_log_info("x");
        expect("test-log: x\n");
        assert_int_equal(setenv("JOURNAL_STREAM", "a:b", 1), 0);
        bl_log_init(LOG_INFO);
        bl_log_info("x");
        expect("test-log: x\n");
}

static void test_message_ids_are_well_formed_and_differ(void **state)
{
        (void)state;
        assert_null(bl_event_message_id(BL_EV_PLAIN));
        assert_null(bl_event_message_id(_BL_EV_MAX));
        for (int i = BL_EV_PLAIN + 1; i < _BL_EV_MAX; i++) {
                const char *id = bl_event_message_id((enum bl_event)i);

                assert_non_null(id);
                assert_int_equal(strlen(id), 32);
                assert_int_equal(strspn(id, "0123456789abcdef"), 32);
                for (int k = BL_EV_PLAIN + 1; k < i; k++)
                        assert_string_not_equal(id, bl_event_message_id((enum bl_event)k));
        }
}

#define REDIRECTED(test) cmocka_unit_test_setup_teardown(test, redirect, restore)

int main(void)
{
        const struct CMUnitTest tests[] = {
                REDIRECTED(test_lines),
                REDIRECTED(test_levels),
                REDIRECTED(test_names_cannot_forge_lines),
                REDIRECTED(test_prefix_for_the_journal),
                cmocka_unit_test(test_message_ids_are_well_formed_and_differ),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
