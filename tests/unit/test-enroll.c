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
#include "daemon/virt/metadata.h"
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

static const struct bl_enroll_options serial = {.channel = BL_ENROLL_VIRTIO_SERIAL, .chosen = true};
static const struct bl_enroll_options vsock = {.channel = BL_ENROLL_VHOST_VSOCK, .chosen = true};
static const struct bl_enroll_options vhost_user = {.channel = BL_ENROLL_VHOST_USER_VSOCK, .chosen = true};
/* nothing was said, and the host has vhost-vsock */
static const struct bl_enroll_options by_default = {.channel = BL_ENROLL_VHOST_VSOCK};

static size_t count(const char *in, const char *what)
{
        size_t n = 0;

        for (const char *p = strstr(in, what); p; p = strstr(p + 1, what))
                n++;
        return n;
}

/* `xml` is replaced by the outcome, which must be a change. */
static char *enroll(char *xml, const struct bl_enroll_options *o)
{
        char *after = NULL, *message = NULL;

        if (bl_enroll_xml(xml, o, &after, &message) != 1)
                fail_msg("not changed: %s", message);
        /* and again: nothing to do */
        assert_int_equal(bl_enroll_xml(after, o, &(char *){NULL}, NULL), 0);
        free(message);
        free(xml);
        return after;
}

static void test_swap(void **state)
{
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;
        const struct bl_enroll_options on = {.swap = &m}, off = {.no_swap = true};
        static const char xml[] = "<domain type='kvm'><name>g</name><metadata/><memory>1048576</memory>"
                                  "<os><type machine='pc-q35-7.2'>hvm</type></os><devices>"
                                  "<controller type='pci' model='pcie-root' index='0'/></devices></domain>";
        char *with = NULL, *without = NULL, *plain = NULL, *message = NULL;

        (void)state;
        m.swap = BL_SWAP_AUTO;
        m.swap_limit = 256 * BL_MIB;
        snprintf(m.group, sizeof(m.group), "web");
        assert_int_equal(bl_enroll_xml(xml, &on, &with, &message), 1);
        assert_non_null(strstr(with, "swap='auto'"));
        assert_non_null(strstr(with, "group='web'"));
        assert_non_null(strstr(with, "swap-limit='256M'"));
        assert_non_null(strstr(message, "drain"));
        /* one to plug it into, beside those that what was added takes itself */
        assert_non_null(strstr(with, "pcie-root-port"));
        assert_int_equal(bl_enroll_xml(with, &on, &plain, NULL), 0);
        /* enrolled again without a word of it: it stays */
        assert_int_equal(bl_enroll_xml(with, NULL, &plain, NULL), 0);
        assert_int_equal(bl_enroll_xml(with, &off, &without, NULL), 1);
        assert_null(strstr(without, "swap"));
        assert_null(strstr(without, "web"));
        free(without);
        assert_int_equal(bl_unenroll_xml(with, &without, NULL), 1);
        assert_null(strstr(without, "swap="));
        assert_int_equal(bl_enroll_xml(xml, NULL, &plain, NULL), 1);
        assert_null(strstr(plain, "pcie-root-port"));
        free(plain);
        free(with);
        free(without);
        free(message);
}

static void test_vsock(void **state)
{
        char *xml = enroll(read_fixture("plain"), &vsock), *after = NULL;

        (void)state;
        assert_non_null(strstr(xml, "    <vsock model='virtio'><cid auto='yes'/></vsock>"));
        assert_non_null(strstr(xml, BL_AGENT_CHANNEL)); /* to fall back to */
        assert_null(strstr(xml, "memoryBacking"));
        assert_null(strstr(xml, "metadata"));
        free(xml);
        /* one that is there stays as it is */
        xml = read_fixture("enrolled");
        assert_int_equal(bl_enroll_xml(xml, &vsock, &after, NULL), 0);
        free(xml);
}

static void test_vhost_user(void **state)
{
        struct bl_domain_info i = {0};
        char *xml = read_fixture("i440fx-anonymous"), *after = NULL, *message = NULL, line[2048];

        (void)state;
        assert_int_equal(bl_enroll_xml(xml, &vhost_user, &after, &message), 1);
        assert_non_null(strstr(message, "neither migrate nor save"));
        assert_non_null(strstr(message, "memfd when it is next started"));
        assert_null(strstr(message, "root port"));
        assert_int_equal(bl_domain_info_parse(after, &i, NULL), 0);
        assert_null(i.metadata_error);
        assert_true(i.memory_fd && i.memfd && !i.shared);
        assert_int_equal(i.metadata.channel, BL_CHANNEL_VHOST_USER_VSOCK);
        assert_int_equal(i.metadata.reservation, 256 * BL_MIB);
        assert_int_equal(i.metadata.shares_kind, BL_SHARES_KIND_HIGH);
        (void)bl_domain_info_clear(&i);
        /* the source and the metadata's element changed in place, the access mode came */
        assert_int_equal(lines_missing(xml, after, line, sizeof(line)), 2);
        assert_int_equal(lines_missing(after, xml, line, sizeof(line)), 3);
        assert_non_null(
                strstr(after, "    <nosharepages/>\n    <source type='memfd'/>\n    <access mode='private'/>\n"));
        assert_non_null(strstr(after, "note='kept'"));
        free(xml);
        free(message);
        free(after);
}

/* Nothing of it is there yet. */
static void test_vhost_user_anew(void **state)
{
        struct bl_domain_info i = {0};
        char *xml = read_fixture("q35-spare"), *after = NULL, *message = NULL;

        (void)state;
        assert_int_equal(bl_enroll_xml(xml, &vhost_user, &after, &message), 1);
        assert_non_null(strstr(after, "</uuid>\n  <metadata><ballast:memory xmlns:ballast='urn:org.ballast1:vm:1' "
                                      "channel='vhost-user-vsock'/></metadata>\n"));
        assert_non_null(strstr(after, "</currentMemory>\n  <memoryBacking><source type='memfd'/>"
                                      "<access mode='private'/></memoryBacking>\n"));
        /* the port that is spare will do */
        assert_int_equal(count(after, "model='pcie-root-port'"), 3);
        assert_null(strstr(message, "root port"));
        assert_int_equal(bl_domain_info_parse(after, &i, NULL), 0);
        assert_int_equal(i.metadata.channel, BL_CHANNEL_VHOST_USER_VSOCK);
        (void)bl_domain_info_clear(&i);
        free(message);
        free(after);
        free(xml);
}

/* Memory that has a descriptor stays what it is. */
static void test_memory_stays(void **state)
{
        static const char *const names[] = {"memfd-shared", "hugepages"};

        (void)state;
        for (size_t n = 0; n < 2; n++) {
                char *xml = enroll(read_fixture(names[n]), &vhost_user);

                assert_null(strstr(xml, "private"));
                assert_int_equal(count(xml, "memfd'"), strcmp(names[n], "memfd-shared") == 0);
                free(xml);
        }
}

static void test_root_ports(void **state)
{
        static const char *const no_plug = "<target chassis='3' port='0xa' hotplug='off'/>";
        char *xml = enroll(read_fixture("q35-full"), &vhost_user), *p;

        (void)state;
        /* one for the device, one for the channel's controller, which libvirt adds */
        assert_int_equal(count(xml, "<controller type='pci' model='pcie-root-port'/>"), 2);
        free(xml);

        xml = enroll(read_fixture("q35-full"), &serial);
        assert_int_equal(count(xml, "model='pcie-root-port'"), 3);
        free(xml);

        /* a port that cannot be plugged into is none */
        xml = read_fixture("q35-spare");
        p = strstr(xml, "<target chassis='3' port='0xa'/>");
        assert_non_null(p);
        assert_true(asprintf(&p, "%.*s%s%s", (int)(p - xml), xml, no_plug, p + 32) > 0);
        free(xml);
        xml = enroll(p, &vhost_user);
        assert_int_equal(count(xml, "<controller type='pci' model='pcie-root-port'/>"), 1);
        free(xml);
}

static void test_change_back(void **state)
{
        char *xml = enroll(read_fixture("i440fx-anonymous"), &vhost_user), *after = NULL, *message = NULL;
        struct bl_domain_info i = {0};

        (void)state;
        /* only who says so changes it */
        assert_int_equal(bl_enroll_xml(xml, &by_default, &after, NULL), 0);
        assert_int_equal(bl_enroll_xml(xml, NULL, &after, NULL), 0);
        assert_int_equal(bl_enroll_xml(xml, &serial, &after, &message), 1);
        assert_non_null(strstr(message, "memfd stays one"));
        assert_int_equal(bl_domain_info_parse(after, &i, NULL), 0);
        assert_int_equal(i.metadata.channel, BL_CHANNEL_UNSET);
        assert_int_equal(i.metadata.reservation, 256 * BL_MIB);
        assert_true(i.memfd);
        (void)bl_domain_info_clear(&i);
        assert_non_null(strstr(after, BL_AGENT_CHANNEL));
        free(after);
        free(message);
        free(xml);

        /* what enrolling added to the metadata goes as a whole */
        xml = enroll(enroll(read_fixture("q35-spare"), &vhost_user), &vsock);
        assert_null(strstr(xml, "metadata"));
        assert_non_null(strstr(xml, "<vsock "));
        free(xml);
}

static void test_unenroll_vhost_user(void **state)
{
        char *xml = enroll(read_fixture("q35-full"), &vhost_user), *after = NULL, *message = NULL, *again = NULL;

        (void)state;
        assert_int_equal(bl_unenroll_xml(xml, &after, &message), 1);
        assert_null(strstr(after, BL_AGENT_CHANNEL));
        assert_null(strstr(after, "vhost-user-vsock"));
        assert_null(strstr(after, "metadata"));
        assert_non_null(strstr(after, "memfd"));
        assert_non_null(strstr(message, "taken away\nballastd plugs no"));
        assert_int_equal(bl_unenroll_xml(after, &again, NULL), 0);
        free(message);
        free(after);
        free(xml);

        xml = read_fixture("i440fx-anonymous");
        assert_int_equal(bl_unenroll_xml(xml, &after, &message), 1);
        assert_non_null(strstr(after, "reservation='256MiB'"));
        assert_null(strstr(message, "vhost"));
        free(message);
        free(after);
        free(xml);
}

/* Where it would be written and could not work. */
static void test_vhost_user_refused(void **state)
{
        static const char *const machines[] = {"microvm", "virt-7.2", "s390-ccw-virtio-7.2", "pseries", "isapc"};
        static const char *const fine[] = {"pc", "q35", "pc-i440fx-jammy", "pc-q35-rhel9.2.0", "pc-0.15"};
        const struct bl_enroll_options no_channel = {.channel = BL_ENROLL_VHOST_USER_VSOCK, .no_channel = true};
        char xml[512], *after = NULL, *message = NULL, *text;

        (void)state;
        for (size_t n = 0; n < 10; n++) {
                snprintf(xml, sizeof(xml),
                         "<domain type='kvm'><os><type machine='%s'>hvm</type></os><devices/></domain>",
                         n < 5 ? machines[n] : fine[n - 5]);
                assert_int_equal(bl_enroll_xml(xml, &vhost_user, &after, &message), n < 5 ? -EOPNOTSUPP : 1);
                assert_int_equal(strstr(message, "pc and q35 only") != NULL, n < 5);
                assert_int_equal(after != NULL, n >= 5);
                free(message);
                free(after);
                after = message = NULL;
        }
        text = read_fixture("sev");
        assert_int_equal(bl_enroll_xml(text, &vhost_user, &after, &message), -EOPNOTSUPP);
        assert_non_null(strstr(message, "launchSecurity"));
        free(message);
        assert_int_equal(bl_enroll_xml(text, &no_channel, &after, NULL), 1);
        assert_null(strstr(after, BL_AGENT_CHANNEL));
        free(after);
        free(text);
        text = read_fixture("enrolled");
        assert_int_equal(bl_enroll_xml(text, &vhost_user, &after, &message), -EOPNOTSUPP);
        assert_non_null(strstr(message, "<vsock>"));
        free(message);
        free(text);
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
                cmocka_unit_test(test_adds),
                cmocka_unit_test(test_options),
                cmocka_unit_test(test_balloon_device),
                cmocka_unit_test(test_keeps_text),
                cmocka_unit_test(test_unenroll),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_swap),
                cmocka_unit_test(test_vsock),
                cmocka_unit_test(test_vhost_user),
                cmocka_unit_test(test_vhost_user_anew),
                cmocka_unit_test(test_memory_stays),
                cmocka_unit_test(test_root_ports),
                cmocka_unit_test(test_change_back),
                cmocka_unit_test(test_unenroll_vhost_user),
                cmocka_unit_test(test_vhost_user_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
