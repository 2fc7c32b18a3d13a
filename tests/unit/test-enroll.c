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

#include "daemon/virt/domain_xml.h"
#include "daemon/virt/enroll.h"
#include "tests/unit/test-domain-util.h"

/* Lines of `after` that are not in `before`, one after the other, and the
 * other way round: how many, and the last of them. */
static size_t lines_missing(const char *from, const char *in, char *last, size_t size)
{
        size_t n = 0;

        while (*from) {
                size_t len = strcspn(from, "\n");
                char line[2048];

                snprintf(line, sizeof(line), "%.*s", (int)len, from);
                if (!strstr(in, line)) {
                        n++;
                        snprintf(last, size, "%s", line);
                }
                from += len + (from[len] == '\n');
        }
        return n;
}

static void test_adds(void **state)
{
        char *before = read_fixture("plain"), *after = NULL, *message = NULL, *again = NULL, line[2048];
        struct bl_domain_info i = {0};

        (void)state;
        assert_int_equal(bl_enroll_xml(before, NULL, &after, &message), 1);
        assert_int_equal(bl_domain_info_parse(after, &i, NULL), 0);
        assert_true(i.autodeflate && i.free_page_reporting);
        assert_non_null(strstr(after, "    <channel type='unix'>"));
        assert_non_null(strstr(after, "<target type='virtio' name='org.ballast.agent.0'/>"));
        (void)bl_domain_info_clear(&i);
        /* nothing else is touched: one line changed, the rest added */
        assert_int_equal(lines_missing(before, after, line, sizeof(line)), 1);
        assert_string_equal(line, "    <memballoon model='virtio'>");
        assert_int_equal(lines_missing(after, before, line, sizeof(line)), 2);
        /* one sentence a line */
        assert_non_null(strstr(message, "autodeflate"));
        assert_non_null(strstr(message, "\nthe guest reports"));
        /* a second time there is nothing to do */
        assert_int_equal(bl_enroll_xml(after, NULL, &again, NULL), 0);
        assert_null(again);
        free(before);
        free(after);
        free(message);
}

static void test_options(void **state)
{
        const struct bl_enroll_options none = {
                .no_autodeflate = true, .no_free_page_reporting = true, .no_channel = true};
        const struct bl_enroll_options only_channel = {.no_autodeflate = true, .no_free_page_reporting = true};
        char *before = read_fixture("plain"), *after = NULL;
        struct bl_domain_info i = {0};

        (void)state;
        assert_int_equal(bl_enroll_xml(before, &none, &after, NULL), 0);
        assert_int_equal(bl_enroll_xml(before, &only_channel, &after, NULL), 1);
        assert_int_equal(bl_domain_info_parse(after, &i, NULL), 0);
        assert_false(i.autodeflate || i.free_page_reporting);
        (void)bl_domain_info_clear(&i);
        free(before);
        free(after);
}

/* model none becomes virtio; a domain without the element gets one. */
static void test_balloon_device(void **state)
{
        static const char *const names[] = {"no-balloon", "bare", "enrolled", "units", "commandline"};

        (void)state;
        for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
                char *before = read_fixture(names[n]), *after = NULL;
                struct bl_domain_info i = {0};
                int r = bl_enroll_xml(before, NULL, &after, NULL);

                assert_int_equal(r, strcmp(names[n], "enrolled") != 0);
                assert_int_equal(bl_domain_info_parse(r ? after : before, &i, NULL), 0);
                assert_true(i.balloon && i.autodeflate && i.free_page_reporting);
                (void)bl_domain_info_clear(&i);
                free(before);
                free(after);
        }
}

static void test_keeps_text(void **state)
{
        char *before = read_fixture("commandline"), *after = NULL, line[2048];

        (void)state;
        assert_int_equal(bl_enroll_xml(before, NULL, &after, NULL), 1);
        /* libxml2 puts namespaces first */
        assert_non_null(strstr(after, "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>"));
        assert_non_null(strstr(after, "<!-- a comment -->"));
        assert_non_null(strstr(after, "value=\"it's\""));
        assert_non_null(strstr(after, "value='{&quot;driver&quot;:&quot;vhost-user-vsock-pci&quot;"));
        /* the balloon's, the domain's, and the title, whose quotes need no escape in text */
        assert_int_equal(lines_missing(before, after, line, sizeof(line)), 3);
        free(after);
        free(before);

        before = read_fixture("units");
        assert_int_equal(bl_enroll_xml(before, NULL, &after, NULL), 1);
        assert_int_equal(strncmp(after, "<?xml version='1.0'", 19), 0);
        assert_non_null(strstr(after, "<!-- as a person may write it -->"));
        free(after);
        free(before);
}

static void test_unenroll(void **state)
{
        char *before = read_fixture("plain"), *with = NULL, *without = NULL, line[2048];

        (void)state;
        assert_int_equal(bl_unenroll_xml(before, &without, NULL), 0);
        assert_int_equal(bl_enroll_xml(before, NULL, &with, NULL), 1);
        assert_int_equal(bl_unenroll_xml(with, &without, NULL), 1);
        assert_null(strstr(without, BL_AGENT_CHANNEL));
        assert_int_equal(lines_missing(without, before, line, sizeof(line)), 1); /* the balloon's options */
        free(before);
        free(with);
        free(without);
}

static void test_refused(void **state)
{
        static const struct {
                const char *xml;
                int r;
        } table[] = {
                {"", -EINVAL},
                {"<domain", -EINVAL},
                {"<network/>", -EINVAL},
                {"<domain type='kvm'/>", -EINVAL},
                {"<domain type='xen'><devices/></domain>", -EOPNOTSUPP},
                {"<domain type='lxc'><devices/></domain>", -EOPNOTSUPP},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                char *after = NULL, *message = NULL;

                assert_int_equal(bl_enroll_xml(table[i].xml, NULL, &after, &message), table[i].r);
                assert_null(after);
                assert_non_null(message);
                free(message);
                assert_int_equal(bl_unenroll_xml(table[i].xml, &after, NULL), table[i].r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_adds),           cmocka_unit_test(test_options),
                cmocka_unit_test(test_balloon_device), cmocka_unit_test(test_keeps_text),
                cmocka_unit_test(test_unenroll),       cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
