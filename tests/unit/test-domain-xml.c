/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/domain_xml.h"
#include "daemon/virt/proc.h"
#include "tests/unit/test-domain-util.h"

static struct bl_domain_info parse(const char *name)
{
        struct bl_domain_info i = {0};
        char *message = NULL, *text = read_fixture(name);

        if (bl_domain_info_parse(text, &i, &message) < 0)
                fail_msg("%s: %s", name, message);
        free(text);
        return i;
}

static void test_plain(void **state)
{
        struct bl_domain_info i = parse("plain");
        char uuid[37];

        (void)state;
        bl_uuid_to_string(i.uuid, uuid);
        assert_string_equal(uuid, "c7a5fdbd-cdaf-9455-926a-d65c16db1809");
        assert_string_equal(i.name, "plain");
        assert_string_equal(i.type, "kvm");
        assert_int_equal(i.id, 7);
        assert_int_equal(i.memory, 4 * BL_GIB);
        assert_int_equal(i.current, 2 * BL_GIB);
        assert_true(i.balloon);
        assert_false(i.autodeflate);
        assert_false(i.free_page_reporting);
        assert_int_equal(i.stats_period, 5);
        assert_null(i.agent_path);
        assert_int_equal(i.vsock_cid, 0);
        assert_false(i.has_metadata);
        assert_int_equal(i.metadata.reservation, BL_UNSET);
        assert_int_equal(bl_domain_info_no_reclaim(&i), BL_RECLAIM_OK);
        (void)bl_domain_info_clear(&i);
        assert_null(bl_domain_info_clear(NULL));
}

static void test_enrolled(void **state)
{
        struct bl_domain_info i = parse("enrolled");

        (void)state;
        assert_true(i.autodeflate && i.free_page_reporting);
        assert_string_equal(i.agent_path, "/run/libvirt/qemu/channel/8-enrolled/org.ballast.agent.0");
        assert_string_equal(i.agent_state, "connected");
        assert_int_equal(i.vsock_cid, 42);
        assert_true(i.has_metadata);
        assert_null(i.metadata_error);
        assert_int_equal(i.metadata.reservation, 256 * BL_MIB);
        assert_int_equal(i.metadata.limit, 3 * BL_GIB);
        assert_int_equal(i.metadata.shares_kind, BL_SHARES_KIND_HIGH);
        assert_int_equal(i.metadata.manage, 0);
        (void)bl_domain_info_clear(&i);
}

static void test_bad_metadata(void **state)
{
        struct bl_domain_info i = parse("bad-metadata");

        (void)state;
        assert_true(i.has_metadata);
        assert_int_equal(i.metadata.shares_kind, BL_SHARES_KIND_UNSET);
        /* which VM, what is wrong, how to mend it */
        assert_non_null(strstr(i.metadata_error, "VM bad-metadata"));
        assert_non_null(strstr(i.metadata_error, "reservation='256 MB'"));
        assert_non_null(strstr(i.metadata_error, "virsh edit bad-metadata"));
        (void)bl_domain_info_clear(&i);
}

static void test_no_reclaim(void **state)
{
        static const struct {
                const char *name;
                enum bl_no_reclaim why;
        } table[] = {
                {"vfio", BL_RECLAIM_VFIO},
                {"mdev", BL_RECLAIM_VFIO},
                {"hugepages", BL_RECLAIM_HUGEPAGES},
                {"locked", BL_RECLAIM_LOCKED},
                {"sev", BL_RECLAIM_CONFIDENTIAL},
                {"no-balloon", BL_RECLAIM_NO_BALLOON},
                {"bare", BL_RECLAIM_NO_BALLOON},
                {"memfd-shared", BL_RECLAIM_OK},
                {"units", BL_RECLAIM_OK},
        };

        (void)state;
        for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
                struct bl_domain_info i = parse(table[n].name);

                assert_int_equal(bl_domain_info_no_reclaim(&i), table[n].why);
                (void)bl_domain_info_clear(&i);
        }
}

static void test_backing_and_units(void **state)
{
        struct bl_domain_info i = parse("memfd-shared");

        (void)state;
        assert_true(i.memfd && i.shared && !i.hugepages);
        (void)bl_domain_info_clear(&i);

        i = parse("vfio");
        assert_int_equal(i.hostdevs, 1); /* USB does not count */
        (void)bl_domain_info_clear(&i);
        i = parse("mdev");
        assert_int_equal(i.hostdevs, 2);
        (void)bl_domain_info_clear(&i);

        i = parse("units");
        assert_int_equal(i.id, -1);
        assert_int_equal(i.memory, 2 * BL_GIB);
        assert_int_equal(i.current, BL_GIB);
        assert_false(i.autodeflate);
        (void)bl_domain_info_clear(&i);
}

/* What libvirt 9.0 made of each (virsh domxml-to-native): all but the first and the
 * second are memory-backend-file or memory-backend-memfd. */
static void test_descriptor(void **state)
{
        static const struct {
                const char *backing;
                bool fd, memfd, shared;
        } table[] = {
                {"", false, false, false},
                {"<memoryBacking><source type='anonymous'/><nosharepages/></memoryBacking>", false, false, false},
                {"<memoryBacking><access mode='private'/></memoryBacking>", true, false, false},
                {"<memoryBacking><source type='anonymous'/><access mode='shared'/></memoryBacking>", true, false, true},
                {"<memoryBacking><source type='file'/></memoryBacking>", true, true, false},
                {"<memoryBacking><source type='memfd'/></memoryBacking>", true, true, true},
                {"<memoryBacking><source type='memfd'/><access mode='private'/></memoryBacking>", true, true, false},
                {"<memoryBacking><hugepages/></memoryBacking>", true, false, false},
        };

        (void)state;
        for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
                struct bl_domain_info i = {0};
                char xml[512];

                snprintf(xml, sizeof(xml),
                         "<domain><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"
                         "<memory>1</memory>%s<devices/></domain>",
                         table[n].backing);
                assert_int_equal(bl_domain_info_parse(xml, &i, NULL), 0);
                assert_int_equal(i.memory_fd, table[n].fd);
                assert_int_equal(i.memfd, table[n].memfd);
                assert_int_equal(i.shared, table[n].shared);
                (void)bl_domain_info_clear(&i);
        }
        assert_false(bl_backing_has_fd(NULL));
}

static void test_sharing(void **state)
{
        static const struct {
                const char *os, *backing;
                enum bl_machine machine;
                bool never;
        } table[] = {
                {"<os><type machine='pc-i440fx-7.2'>hvm</type></os>", "", BL_MACHINE_PC, false},
                {"<os><type machine='pc'>hvm</type></os>", "<memoryBacking/>", BL_MACHINE_PC, false},
                {"<os><type machine='pc-q35-7.2'>hvm</type></os>", "<memoryBacking><nosharepages/></memoryBacking>",
                 BL_MACHINE_Q35, true},
                {"<os><type machine='q35'>hvm</type></os>", "<memoryBacking><locked/></memoryBacking>", BL_MACHINE_Q35,
                 false},
                {"<os><type machine='microvm'>hvm</type></os>", "", BL_MACHINE_OTHER, false},
                {"<os><type>hvm</type></os>", "<nosharepages/>", BL_MACHINE_OTHER, false},
                {"", "", BL_MACHINE_OTHER, false},
        };

        (void)state;
        for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
                struct bl_domain_info i = {0};
                char xml[512];

                snprintf(xml, sizeof(xml),
                         "<domain><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid>"
                         "<memory>1</memory>%s%s<devices/></domain>",
                         table[n].os, table[n].backing);
                assert_int_equal(bl_domain_info_parse(xml, &i, NULL), 0);
                assert_int_equal(i.machine, table[n].machine);
                assert_int_equal(i.nosharepages, table[n].never);
                assert_int_equal(i.metadata.sharing, -1);
                (void)bl_domain_info_clear(&i);
        }
}

static void test_size(void **state)
{
        uint64_t v = 7;

        (void)state;
        assert_int_equal(bl_xml_size("10", NULL, &v), 0);
        assert_int_equal(v, 10240);
        assert_int_equal(bl_xml_size("10", "b", &v), 0);
        assert_int_equal(v, 10);
        assert_int_equal(bl_xml_size("3", "MB", &v), 0);
        assert_int_equal(v, 3000000);
        assert_int_equal(bl_xml_size("3", "MiB", &v), 0);
        assert_int_equal(v, 3 * BL_MIB);
        assert_int_equal(bl_xml_size("1", "TiB", &v), 0);
        assert_int_equal(v, 1024 * BL_GIB);
        v = 7;
        assert_int_equal(bl_xml_size("3", "parsec", &v), -EINVAL);
        assert_int_equal(bl_xml_size("-3", "MiB", &v), -EINVAL);
        assert_int_equal(bl_xml_size("", "MiB", &v), -EINVAL);
        assert_int_equal(bl_xml_size("99999999999999999999", "b", &v), -ERANGE);
        assert_int_equal(bl_xml_size("18446744073709551615", "KiB", &v), -ERANGE);
        assert_int_equal(v, 7);
}

static void test_refused(void **state)
{
        static const char *const bad[] = {
                "",
                "hello",
                "<domain",
                "<network/>",
                "<domain/>",
                "<domain><name>a</name></domain>",
                "<domain><name>a</name><uuid>x</uuid><memory>1</memory></domain>",
                "<domain><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid></domain>",
                "<domain><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid><memory>x</memory></domain>",
                "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><domain><name>&e;</name></domain>",
        };

        (void)state;
        for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
                struct bl_domain_info i = {.id = 77};
                char *message = NULL;

                assert_int_equal(bl_domain_info_parse(bad[n], &i, &message), -EINVAL);
                assert_non_null(message);
                assert_int_equal(i.id, 77);
                assert_null(i.name);
                free(message);
                assert_int_equal(bl_domain_info_parse(bad[n], &i, NULL), -EINVAL);
        }
}

/* A document cut short anywhere: an error, nothing lost or touched. */
static void test_truncated(void **state)
{
        char *text = read_fixture("enrolled");
        size_t len = strlen(text);

        (void)state;
        /* what follows the last tag may go */
        for (size_t n = len - 2; n > 0; n--) {
                struct bl_domain_info i = {0};

                text[n] = '\0';
                assert_int_equal(bl_domain_info_parse(text, &i, NULL), -EINVAL);
        }
        free(text);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain),
                cmocka_unit_test(test_enrolled),
                cmocka_unit_test(test_bad_metadata),
                cmocka_unit_test(test_no_reclaim),
                cmocka_unit_test(test_backing_and_units),
                cmocka_unit_test(test_sharing),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_descriptor),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_truncated),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
