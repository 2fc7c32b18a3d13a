/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/metadata.h"

/* What is not swapped, nor shared. */
#define NO_SWAP .swap = BL_UNSET, .swap_limit = BL_UNSET, .sharing = -1

static void assert_same(const struct bl_vm_metadata *a, const struct bl_vm_metadata *b)
{
        assert_int_equal(a->reservation, b->reservation);
        assert_int_equal(a->limit, b->limit);
        assert_int_equal(a->shares_kind, b->shares_kind);
        if (a->shares_kind == BL_SHARES_KIND_NUMBER)
                assert_int_equal(a->shares, b->shares);
        assert_int_equal(a->manage, b->manage);
        assert_int_equal(a->channel, b->channel);
        assert_int_equal(a->swap, b->swap);
        assert_int_equal(a->swap_limit, b->swap_limit);
        assert_string_equal(a->group, b->group);
        assert_int_equal(a->sharing, b->sharing);
}

static void test_parse(void **state)
{
        struct bl_vm_metadata m;
        char *message = NULL;

        (void)state;
        assert_int_equal(bl_vm_metadata_parse("<memory xmlns='urn:org.ballast1:vm:1'/>", &m, &message), 0);
        assert_int_equal(m.reservation, BL_UNSET);
        assert_int_equal(m.limit, BL_UNSET);
        assert_int_equal(m.shares_kind, BL_SHARES_KIND_UNSET);
        assert_int_equal(m.manage, -1);
        assert_int_equal(m.sharing, -1);

        assert_int_equal(
                bl_vm_metadata_parse("<b:memory xmlns:b='urn:org.ballast1:vm:1' reservation='256MiB' limit='1.5G' "
                                     "shares='1234' manage='yes'/>",
                                     &m, &message),
                0);
        assert_int_equal(m.reservation, 256 * BL_MIB);
        assert_int_equal(m.limit, 1536 * BL_MIB);
        assert_int_equal(m.shares_kind, BL_SHARES_KIND_NUMBER);
        assert_int_equal(m.shares, 1234);
        assert_int_equal(m.manage, 1);
        assert_int_equal(m.channel, BL_CHANNEL_UNSET);
        assert_int_equal(bl_vm_metadata_parse("<memory channel='auto'/>", &m, &message), 0);
        assert_int_equal(m.channel, BL_CHANNEL_AUTO);
        assert_int_equal(bl_vm_metadata_parse("<memory channel='vhost-user-vsock' manage='no'/>", &m, &message), 0);
        assert_int_equal(m.channel, BL_CHANNEL_VHOST_USER_VSOCK);
        assert_int_equal(m.manage, 0);
        assert_int_equal(bl_vm_metadata_parse("<memory sharing='zero' group='web'/>", &m, &message), 0);
        assert_int_equal(m.sharing, BL_SHARE_ZERO);
        assert_int_equal(bl_vm_metadata_parse("<memory sharing='off'/>", &m, &message), 0);
        assert_int_equal(m.sharing, BL_SHARE_OFF);
        assert_int_equal(bl_vm_metadata_parse("<memory sharing='group'/>", &m, &message), 0);
        assert_int_equal(m.sharing, BL_SHARE_GROUP);
        assert_null(message);
}

static void test_refused(void **state)
{
        static const struct {
                const char *xml;
                const char *says;
        } table[] = {
                {"", "not XML"},
                {"<memory", "not XML"},
                {"<mem/>", "<memory>"},
                {"<memory reservation='lots'/>", "512MiB"},
                {"<memory reservation='-1'/>", "reservation"},
                {"<memory limit='1MB'/>", "limit='1MB'"},
                {"<memory shares='0'/>", "low, normal, high"},
                {"<memory shares='-5'/>", "low, normal, high"},
                {"<memory shares='99999999999999999999'/>", "low, normal, high"},
                {"<memory shares=''/>", "low, normal, high"},
                {"<memory manage='perhaps'/>", "yes or no"},
                {"<memory channel='vsock'/>", "auto or vhost-user-vsock"},
                {"<memory channel=''/>", "channel=''"},
                {"<memory reservaton='1G'/>", "no setting 'reservaton'"},
                {"<memory chanel='auto'/>", "swap-limit and sharing"},
                {"<memory swap='yes'/>", "auto or a size"},
                {"<memory swap='4K'/>", "auto or a size"},
                {"<memory swap='1000T'/>", "auto or a size"},
                {"<memory group=''/>", "without blanks"},
                {"<memory group='a b'/>", "without blanks"},
                {"<memory group='0123456789012345678901234567890123456789012345678901234567890123'/>", "1 to 63"},
                {"<memory swap-limit='much'/>", "swap-limit='512MiB'"},
                {"<memory sharing='yes'/>", "off, zero or group"},
                {"<memory sharing=''/>", "sharing=''"},
                {"<memory><limit/></memory>", "<limit>"},
                {"<memory reservation='2G' limit='1G'/>", "larger than limit"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct bl_vm_metadata m = {.shares = 77};
                char *message = NULL;

                assert_int_equal(bl_vm_metadata_parse(table[i].xml, &m, &message), -EINVAL);
                assert_non_null(message);
                if (!strstr(message, table[i].says))
                        fail_msg("%s: %s", table[i].xml, message);
                assert_int_equal(m.shares, 77);
                free(message);
                assert_int_equal(bl_vm_metadata_parse(table[i].xml, &m, NULL), -EINVAL);
        }
}

static void test_round_trip(void **state)
{
        static const struct bl_vm_metadata table[] = {
                {NO_SWAP, .reservation = 1, .limit = BL_UNSET, .manage = -1},
                {NO_SWAP, .reservation = 3 * BL_GIB, .limit = 4 * BL_GIB + 4096, .shares_kind = BL_SHARES_KIND_LOW,
                 .manage = 0},
                {NO_SWAP, .reservation = BL_UNSET, .limit = BL_UNSET, .shares_kind = BL_SHARES_KIND_NORMAL,
                 .manage = 1},
                {NO_SWAP, .reservation = BL_UNSET, .limit = BL_UNSET, .shares_kind = BL_SHARES_KIND_HIGH, .manage = -1},
                {NO_SWAP, .reservation = BL_UNSET, .limit = BL_UNSET, .manage = -1, .channel = BL_CHANNEL_AUTO},
                {NO_SWAP, .reservation = 7, .limit = BL_UNSET, .manage = 0, .channel = BL_CHANNEL_VHOST_USER_VSOCK},
                {NO_SWAP, .reservation = 0, .limit = 0, .shares_kind = BL_SHARES_KIND_NUMBER, .shares = 7,
                 .manage = -1},
                {.reservation = BL_UNSET,
                 .limit = BL_UNSET,
                 .manage = -1,
                 .swap = BL_SWAP_AUTO,
                 .swap_limit = BL_UNSET},
                {.reservation = BL_UNSET,
                 .limit = BL_UNSET,
                 .manage = -1,
                 .swap = 3 * BL_GIB,
                 .swap_limit = 77,
                 .group = "web"},
                {NO_SWAP, .reservation = BL_UNSET, .limit = BL_UNSET, .manage = -1, .group = "a'<&\">b"},
        };
        const struct bl_vm_metadata none = BL_VM_METADATA_NONE;
        char *text = (char *)1;

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct bl_vm_metadata m = {0};

                assert_int_equal(bl_vm_metadata_format(&table[i], &text), 0);
                assert_int_equal(bl_vm_metadata_parse(text, &m, NULL), 0);
                assert_same(&m, &table[i]);
                free(text);
        }
        assert_int_equal(bl_vm_metadata_format(&none, &text), 0);
        assert_null(text);
}

static void test_shares(void **state)
{
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;

        (void)state;
        assert_int_equal(bl_vm_metadata_shares(&m, BL_GIB), 10240);
        m.shares_kind = BL_SHARES_KIND_LOW;
        assert_int_equal(bl_vm_metadata_shares(&m, BL_GIB), 5120);
        m.shares_kind = BL_SHARES_KIND_HIGH;
        assert_int_equal(bl_vm_metadata_shares(&m, BL_GIB), 20480);
        assert_int_equal(bl_vm_metadata_shares(&m, 0), 1);
        m.shares_kind = BL_SHARES_KIND_NUMBER;
        m.shares = 5;
        assert_int_equal(bl_vm_metadata_shares(&m, BL_GIB), 5);
}

static void test_merge(void **state)
{
        struct bl_vm_metadata m = {NO_SWAP, .reservation = 1, .limit = 2, .shares_kind = BL_SHARES_KIND_LOW,
                                   .manage = 0};
        const struct bl_vm_metadata none = BL_VM_METADATA_NONE;
        const struct bl_vm_metadata all = {.reservation = 5,
                                           .limit = 6,
                                           .shares_kind = BL_SHARES_KIND_NUMBER,
                                           .shares = 7,
                                           .manage = 1,
                                           .swap = BL_GIB,
                                           .swap_limit = BL_MIB,
                                           .group = "g"};

        (void)state;
        bl_vm_metadata_merge(&m, &none);
        assert_int_equal(m.reservation, 1);
        assert_int_equal(m.manage, 0);
        bl_vm_metadata_merge(&m, &all);
        assert_same(&m, &all);
        /* what is not given stays, above all when only a limit is set */
        m.channel = BL_CHANNEL_VHOST_USER_VSOCK;
        bl_vm_metadata_merge(&m, &all);
        assert_int_equal(m.channel, BL_CHANNEL_VHOST_USER_VSOCK);
        bl_vm_metadata_merge(
                &m, &(struct bl_vm_metadata){NO_SWAP, .limit = BL_UNSET, .channel = BL_CHANNEL_AUTO, .manage = -1});
        assert_int_equal(m.channel, BL_CHANNEL_AUTO);
        assert_int_equal(m.swap, BL_GIB);
        assert_string_equal(m.group, "g");
}

static void test_swap_size(void **state)
{
        struct bl_vm_metadata m = BL_VM_METADATA_NONE;

        (void)state;
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, 0), 0);
        m.swap = BL_SWAP_AUTO;
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, BL_GIB / 2), 640 * BL_MIB);
        /* not more than it has, nor so little that nothing would fit */
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, 0), BL_GIB);
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, BL_GIB), 16 * BL_MIB);
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, BL_GIB / 2 + 1) % BL_MIB, 0);
        m.swap = 5 * BL_MIB + 1;
        assert_int_equal(bl_vm_metadata_swap(&m, BL_GIB, 0), 6 * BL_MIB);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),  cmocka_unit_test(test_refused), cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_shares), cmocka_unit_test(test_merge),   cmocka_unit_test(test_swap_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
