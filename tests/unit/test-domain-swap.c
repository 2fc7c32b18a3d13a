/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The jobs against a QEMU that keeps only what they touch: libvirt's passthrough and the pool are this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libvirt/libvirt-qemu.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/virt/domain_swap.h"
#include "daemon/virt/op.h"
#include "tests/unit/test-domain-util.h"

#define OK "{\"return\":{}}"

static struct {
        const char *pci; /* tests/data/qmp */
        const char *refuse; /* a command that QEMU refuses */
        int refuse_at; /* only from this time on that it comes */
        bool holds; /* the guest does not let go of the device */
        bool device, node, blocker; /* how it is */
        char did[512]; /* commands that change something */
        char bus[32];
} q;

static const char *argument(const json_t *command, const char *key)
{
        return json_string_value(json_object_get(json_object_get(command, "arguments"), key));
}

static char *nodes(void)
{
        char text[256];

        snprintf(text, sizeof(text), "{\"return\":[{\"node-name\":\"libvirt-1-format\"}%s%s]}",
                 q.node ? ",{\"node-name\":\"ballast-swap\"}" : "",
                 q.blocker ? ",{\"node-name\":\"ballast-swap-in-use-drain-first\"}" : "");
        return strdup(text);
}

static void check_nbd(const json_t *command)
{
        const json_t *a = json_object_get(command, "arguments"), *server = json_object_get(a, "server");

        assert_string_equal(json_string_value(json_object_get(server, "type")), "unix");
        assert_string_equal(json_string_value(json_object_get(server, "path")), "/run/nbd.sock");
        assert_string_equal(argument(command, "export"), "01020304-0506-0708-090a-0b0c0d0e0f10");
        assert_string_equal(argument(command, "discard"), "unmap");
        assert_int_equal(json_integer_value(json_object_get(a, "reconnect-delay")), UINT32_MAX);
        assert_in_range(json_integer_value(json_object_get(a, "open-timeout")), 1, 2);
}

static char *blockdev_add(const json_t *command)
{
        if (strcmp(argument(command, "driver"), "vdi") == 0) {
                assert_string_equal(argument(command, "node-name"), BL_SWAP_BLOCKER);
                assert_true(strlen(BL_SWAP_BLOCKER) < 32);
                assert_false(q.blocker);
                q.blocker = true;
                return strdup(OK);
        }
        assert_string_equal(argument(command, "driver"), "nbd");
        check_nbd(command);
        /* never a moment in which it could be saved */
        assert_true(q.blocker && !q.node);
        q.node = true;
        return strdup(OK);
}

static char *blockdev_del(const json_t *command)
{
        const char *name = argument(command, "node-name");

        if (strcmp(name, BL_SWAP_BLOCKER) == 0) {
                assert_false(q.device);
                q.blocker = false;
        } else {
                assert_string_equal(name, BL_SWAP_ID);
                assert_false(q.device);
                q.node = false;
        }
        return strdup(OK);
}

static char *device_add(const json_t *command)
{
        assert_true(q.node && !q.device);
        assert_string_equal(argument(command, "driver"), "virtio-blk-pci");
        assert_string_equal(argument(command, "drive"), BL_SWAP_ID);
        assert_string_equal(argument(command, "serial"), "ballast-swap");
        assert_string_equal(argument(command, "werror"), "report");
        assert_string_equal(argument(command, "rerror"), "report");
        snprintf(q.bus, sizeof(q.bus), "%s", argument(command, "bus"));
        q.device = true;
        return strdup(OK);
}

static char *run(const char *name, const json_t *command)
{
        if (strcmp(name, "qom-list") == 0 && strcmp(argument(command, "path"), "/machine/peripheral") == 0)
                return strdup(q.device ? "{\"return\":[{\"name\":\"ballast-swap\",\"type\":\"child<virtio-blk-pci>\"}]}"
                                       : "{\"return\":[]}");
        if (strcmp(name, "qom-list") == 0)
                return read_answer("port-free");
        if (strcmp(name, "query-named-block-nodes") == 0)
                return nodes();
        if (strcmp(name, "query-pci") == 0)
                return read_answer(q.pci);
        snprintf(q.did + strlen(q.did), sizeof(q.did) - strlen(q.did), "%s%s", *q.did ? " " : "", name);
        if (q.refuse && strcmp(name, q.refuse) == 0 && --q.refuse_at < 0)
                return strdup("{\"error\":{\"class\":\"GenericError\",\"desc\":\"QEMU does not want to\"}}");
        if (strcmp(name, "blockdev-add") == 0)
                return blockdev_add(command);
        if (strcmp(name, "blockdev-del") == 0)
                return blockdev_del(command);
        if (strcmp(name, "device_add") == 0)
                return device_add(command);
        if (strcmp(name, "device_del") == 0)
                q.device = q.holds;
        return strdup(OK);
}

int virDomainQemuMonitorCommand(virDomainPtr dom, const char *cmd, char **result, unsigned int flags)
{
        json_t *command = json_loads(cmd, 0, NULL);

        (void)dom;
        (void)flags;
        assert_non_null(command);
        *result = run(json_string_value(json_object_get(command, "execute")), command);
        json_decref(command);
        return 0;
}

/* The image that the blocker is made of: QEMU insists on its mode and on what is in it. */
int virDomainQemuMonitorCommandWithFiles(virDomainPtr dom, const char *cmd, unsigned int ninfiles, int *infiles,
                                         unsigned int *noutfiles, int **outfiles, char **result, unsigned int flags)
{
        uint8_t image[2048];

        (void)noutfiles;
        (void)outfiles;
        assert_int_equal(ninfiles, 1);
        assert_int_equal(fcntl(infiles[0], F_GETFL) & O_ACCMODE, O_RDONLY);
        assert_int_equal(pread(infiles[0], image, sizeof(image), 0), 1024);
        assert_memory_equal(image + 0x40, "\x7f\x10\xda\xbe", 4);
        return virDomainQemuMonitorCommand(dom, cmd, result, flags);
}

void bl_op_init(struct bl_op *op, struct bl_conn *c, const uint8_t *uuid, const struct bl_instance *instance)
{
        op->c = c;
        memcpy(op->uuid, uuid, BL_UUID_LEN);
        op->instance = *instance;
}

int bl_op_submit(struct bl_op *op)
{
        int r = op->run(op, NULL, NULL, &op->message);
        char *message = op->message;

        op->done(op, r, message);
        free(message);
        return 0;
}

int bl_op_submit_or_free(struct bl_op *op)
{
        return bl_op_submit(op);
}

static const uint8_t uuid[BL_UUID_LEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const struct bl_instance instance = {.pid = 4711, .start = 123456};

static struct {
        int r;
        enum bl_swap_attach a;
        char message[128];
} came;

static void on_attached(void *userdata, int r, const char *message, enum bl_swap_attach a)
{
        (void)userdata;
        came.r = r;
        came.a = a;
        snprintf(came.message, sizeof(came.message), "%s", message ? message : "");
}

static void on_detached(void *userdata, int r, const char *message)
{
        on_attached(userdata, r, message, BL_SWAP_FAILED);
}

static enum bl_swap_attach attach(void)
{
        *q.did = '\0';
        assert_int_equal(bl_domain_attach_swap(NULL, uuid, &instance, "/run/nbd.sock", on_attached, NULL), 0);
        assert_int_equal(came.r, 0);
        return came.a;
}

static int setup(void **state)
{
        (void)state;
        memset(&q, 0, sizeof(q));
        q.pci = "pci-pc";
        return 0;
}

static void test_attach(void **state)
{
        (void)state;
        assert_int_equal(attach(), BL_SWAP_ATTACHED);
        assert_true(q.device && q.node && q.blocker);
        assert_string_equal(q.bus, "pci.0");
        assert_string_equal(q.did, "remove-fd add-fd blockdev-add remove-fd blockdev-add device_add");
        assert_int_equal(attach(), BL_SWAP_THERE);
        assert_string_equal(q.did, "");
        /* somebody took the blocker away */
        q.blocker = false;
        assert_int_equal(attach(), BL_SWAP_THERE);
        assert_true(q.blocker);
}

static void test_look(void **state)
{
        (void)state;
        assert_int_equal(bl_domain_look_swap(NULL, uuid, &instance, on_attached, NULL), 0);
        assert_int_equal(came.a, BL_SWAP_ABSENT);
        q.device = true;
        assert_int_equal(bl_domain_look_swap(NULL, uuid, &instance, on_attached, NULL), 0);
        assert_int_equal(came.a, BL_SWAP_THERE);
        assert_string_equal(q.did, "");
}

/* Whatever is refused, nothing stays that would keep the VM from being saved. */
static void test_refused(void **state)
{
        static const struct {
                const char *command;
                int at;
        } table[] = {{"blockdev-add", 0}, {"blockdev-add", 1}, {"device_add", 0}, {"add-fd", 0}};

        for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
                setup(state);
                q.refuse = table[i].command;
                q.refuse_at = table[i].at;
                assert_int_equal(attach(), BL_SWAP_FAILED);
                assert_string_equal(came.message, "QEMU does not want to");
                assert_false(q.device || q.node || q.blocker);
        }
}

static void test_left_over(void **state)
{
        (void)state;
        q.node = q.blocker = true;
        assert_int_equal(attach(), BL_SWAP_ATTACHED);
        assert_true(q.device && q.node && q.blocker);
}

static void test_detach(void **state)
{
        (void)state;
        assert_int_equal(attach(), BL_SWAP_ATTACHED);
        q.holds = true;
        assert_int_equal(bl_domain_detach_swap(NULL, uuid, &instance, on_detached, NULL), 0);
        assert_int_equal(came.r, -EAGAIN);
        assert_true(q.device && q.node && q.blocker);
        q.holds = false;
        assert_int_equal(bl_domain_detach_swap(NULL, uuid, &instance, on_detached, NULL), 0);
        assert_int_equal(came.r, 0);
        assert_false(q.device || q.node || q.blocker);
        assert_int_equal(bl_domain_detach_swap(NULL, uuid, &instance, on_detached, NULL), 0);
        assert_int_equal(came.r, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_attach, setup),  cmocka_unit_test_setup(test_look, setup),
                cmocka_unit_test_setup(test_refused, setup), cmocka_unit_test_setup(test_left_over, setup),
                cmocka_unit_test_setup(test_detach, setup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
