/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers of QEMU 7.2 as libvirt 9.0 handed them over (tests/data/qmp). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/qmp.h"
#include "tests/unit/test-domain-util.h"

static json_t *answer(const char *name)
{
        char *text = read_answer(name);
        json_t *j = NULL;

        assert_int_equal(bl_qmp_answer(text, &j, NULL), 0);
        assert_non_null(j);
        free(text);
        return j;
}

static void test_answer(void **state)
{
        static const struct {
                const char *text;
                int r;
                const char *says;
        } table[] = {
                {"{\"return\":{},\"id\":\"libvirt-1\"}", 0, NULL},
                {"{\"error\":{\"class\":\"GenericError\",\"desc\":\"it is busy\"}}", -EREMOTEIO, "it is busy"},
                {"{\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"Device 'x' not found\"}}", -ENODEV,
                 "Device 'x' not found"},
                {"{\"error\":{}}", -EREMOTEIO, ""},
                {"{\"error\":7}", -EREMOTEIO, ""},
                {"{\"event\":\"RESET\"}", -EBADMSG, NULL},
                {"[]", -EBADMSG, NULL},
                {"{\"return\"", -EBADMSG, NULL},
                {"", -EBADMSG, NULL},
                {NULL, -EBADMSG, NULL},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                char *message = NULL;
                json_t *j = NULL;

                assert_int_equal(bl_qmp_answer(table[i].text, &j, &message), table[i].r);
                assert_int_equal(j != NULL, table[i].r == 0);
                if (table[i].says)
                        assert_string_equal(message, table[i].says);
                else
                        assert_null(message);
                json_decref(j);
                free(message);
                /* nobody need take what it gives */
                assert_int_equal(bl_qmp_answer(table[i].text, NULL, NULL), table[i].r);
        }
}

static void test_children(void **state)
{
        json_t *j = answer("peripheral");

        (void)state;
        assert_true(bl_qmp_has_child(j, "ballast-vsock"));
        assert_true(bl_qmp_has_child(j, "balloon0"));
        assert_false(bl_qmp_has_child(j, "ballast-vsock2"));
        assert_false(bl_qmp_has_child(j, "type")); /* a property */
        assert_false(bl_qmp_bus_is_used(j));
        json_decref(j);
        j = answer("port-free");
        assert_false(bl_qmp_bus_is_used(j));
        json_decref(j);
        j = answer("port-used");
        assert_true(bl_qmp_bus_is_used(j));
        json_decref(j);
        assert_false(bl_qmp_has_child(NULL, "x"));
        assert_false(bl_qmp_bus_is_used(NULL));
}

static void test_chardev(void **state)
{
        json_t *live = answer("chardev-live"), *dead = answer("chardev-dead");

        (void)state;
        assert_int_equal(bl_qmp_chardev(live, "ballast-vsock"), BL_QMP_CHARDEV_CONNECTED);
        assert_int_equal(bl_qmp_chardev(dead, "ballast-vsock"), BL_QMP_CHARDEV_LOST);
        assert_int_equal(bl_qmp_chardev(live, "charchannel0"), BL_QMP_CHARDEV_LOST);
        assert_int_equal(bl_qmp_chardev(live, "ballast"), BL_QMP_CHARDEV_NONE);
        assert_int_equal(bl_qmp_chardev(NULL, "ballast-vsock"), BL_QMP_CHARDEV_NONE);
        json_decref(live);
        json_decref(dead);
}

static void test_i440fx(void **state)
{
        json_t *j = answer("pci-pc"), *devices, *one;

        (void)state;
        assert_int_equal(bl_qmp_free_slot(j), 31);
        /* ours where QEMU chose its place: libvirt's next one */
        json_decref(j);
        j = answer("pci-pc-dev");
        assert_int_equal(bl_qmp_free_slot(j), 31);
        assert_null(bl_qmp_root_port(j, 0));

        devices = json_object_get(json_array_get(j, 0), "devices");
        one = json_deep_copy(json_array_get(devices, 1));
        for (int slot = 31; slot > 0; slot--) {
                assert_int_equal(bl_qmp_free_slot(j), slot == 4 || slot == 3 || slot == 2 || slot == 1 ? 0 : slot);
                assert_int_equal(json_object_set_new(one, "slot", json_integer(slot)), 0);
                assert_int_equal(json_array_append_new(devices, json_deep_copy(one)), 0);
        }
        json_decref(one);
        json_decref(j);
}

static void test_q35(void **state)
{
        json_t *j = answer("pci-q35");

        (void)state;
        assert_int_equal(bl_qmp_free_slot(j), -ENODEV);
        assert_string_equal(bl_qmp_root_port(j, 0), "pci.3");
        assert_null(bl_qmp_root_port(j, 1)); /* the others have devices */
        json_decref(j);

        j = answer("pci-q35-dev");
        assert_null(bl_qmp_root_port(j, 0));
        json_decref(j);

        /* nothing is known of any: the last one first */
        j = answer("pci-q35-reset");
        assert_string_equal(bl_qmp_root_port(j, 0), "pci.3");
        assert_string_equal(bl_qmp_root_port(j, 1), "pci.2");
        assert_string_equal(bl_qmp_root_port(j, 2), "pci.1");
        assert_null(bl_qmp_root_port(j, 3));
        json_decref(j);
}

/* Not what QEMU says: nothing is found, nothing breaks. */
static void test_odd(void **state)
{
        static const char *const table[] = {
                "{}",
                "[]",
                "[{}]",
                "[{\"bus\":0}]",
                "[{\"bus\":0,\"devices\":7}]",
                "[{\"bus\":0,\"devices\":[7,{},{\"slot\":-1},{\"slot\":99,\"id\":{\"device\":4663}}]}]",
                "[{\"bus\":1,\"devices\":[{\"slot\":0,\"id\":{\"vendor\":32902,\"device\":4663}}]}]",
                "[{\"bus\":0,\"devices\":[{\"slot\":1,\"qdev_id\":7,\"id\":{\"vendor\":6966,\"device\":12}}]}]",
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                json_t *j = json_loads(table[i], 0, NULL);

                assert_non_null(j);
                assert_int_equal(bl_qmp_free_slot(j), -ENODEV);
                assert_null(bl_qmp_root_port(j, 0));
                assert_false(bl_qmp_has_child(j, ""));
                json_decref(j);
        }
        assert_int_equal(bl_qmp_free_slot(NULL), -ENODEV);
        assert_null(bl_qmp_root_port(NULL, 0));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_answer), cmocka_unit_test(test_children), cmocka_unit_test(test_chardev),
                cmocka_unit_test(test_i440fx), cmocka_unit_test(test_q35),      cmocka_unit_test(test_odd),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
