/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The jobs against a QEMU that keeps only what they touch: libvirt's passthrough,
 * the supervisor and the pool are this file's. */
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

#include "daemon/virt/domain_vsock.h"
#include "daemon/virt/op.h"
#include "daemon/vsock/control.h"
#include "tests/unit/test-domain-util.h"

#define OK "{\"return\":{}}"

static struct {
        /* how it is set up */
        const char *pci; /* tests/data/qmp */
        const char *port; /* what is in a root port */
        const char *refuse; /* a command that QEMU refuses */
        const char *fail; /* a command during which libvirt's connection breaks */
        int control; /* what the supervisor says */
        bool dies; /* the backend does, as soon as it is plugged in */
        unsigned lets_go; /* looks until the guest has let go of the device; 0: never */
        int submit; /* what the pool says */

        /* how it is */
        bool device, chardev, connected, fd, unplugging;
        char did[512]; /* commands that change something */
        char bus[32], addr[32];
        int backend; /* the descriptor given; -1: none was asked for */
        struct bl_vsock_request request;
} q;

static char *peripheral(void)
{
        if (q.unplugging && q.lets_go > 0 && --q.lets_go == 0)
                q.device = q.unplugging = false;
        return strdup(q.device ? "{\"return\":[{\"name\":\"ballast-vsock\",\"type\":\"child<vhost-user-vsock-pci>\"}]}"
                               : "{\"return\":[{\"name\":\"balloon0\",\"type\":\"child<virtio-balloon-pci>\"}]}");
}

static char *chardevs(void)
{
        if (!q.chardev)
                return strdup("{\"return\":[]}");
        return read_answer(q.connected ? "chardev-live" : "chardev-dead");
}

static const char *argument(const json_t *command, const char *key)
{
        return json_string_value(json_object_get(json_object_get(command, "arguments"), key));
}

static char *device_add(const json_t *command)
{
        assert_false(q.device);
        assert_true(q.chardev && q.connected);
        assert_string_equal(argument(command, "driver"), "vhost-user-vsock-pci");
        assert_string_equal(argument(command, "id"), BL_VSOCK_ID);
        assert_string_equal(argument(command, "chardev"), BL_VSOCK_ID);
        snprintf(q.bus, sizeof(q.bus), "%s", argument(command, "bus"));
        snprintf(q.addr, sizeof(q.addr), "%s", argument(command, "addr"));
        q.device = true;
        q.connected = !q.dies;
        return strdup(OK);
}

static char *chardev_add(const json_t *command)
{
        const json_t *data = json_object_get(
                json_object_get(json_object_get(json_object_get(command, "arguments"), "backend"), "data"), "addr");

        assert_string_equal(argument(command, "id"), BL_VSOCK_ID);
        assert_string_equal(json_string_value(json_object_get(data, "type")), "fd");
        assert_string_equal(json_string_value(json_object_get(json_object_get(data, "data"), "str")), BL_VSOCK_ID);
        assert_true(q.fd && !q.chardev);
        q.fd = false;
        q.chardev = q.connected = true;
        return strdup(OK);
}

static char *chardev_remove(void)
{
        assert_true(q.chardev);
        if (q.device)
                return strdup("{\"error\":{\"class\":\"GenericError\",\"desc\":\"Chardev is busy\"}}");
        q.chardev = false;
        return strdup(OK);
}

static char *device_del(void)
{
        if (!q.device)
                return strdup("{\"error\":{\"class\":\"DeviceNotFound\",\"desc\":\"not found\"}}");
        q.unplugging = true;
        return strdup(OK);
}

static char *list(const json_t *command)
{
        const char *path = argument(command, "path");

        if (strcmp(path, "/machine/peripheral") == 0)
                return peripheral();
        assert_true(strncmp(path, "/machine/peripheral/pci.", 24) == 0);
        return read_answer(q.port);
}

static char *run(const char *name, const json_t *command)
{
        if (strcmp(name, "qom-list") == 0)
                return list(command);
        if (strcmp(name, "query-chardev") == 0)
                return chardevs();
        if (strcmp(name, "query-pci") == 0)
                return read_answer(q.pci);
        snprintf(q.did + strlen(q.did), sizeof(q.did) - strlen(q.did), "%s%s", *q.did ? " " : "", name);
        if (q.refuse && strcmp(name, q.refuse) == 0)
                return strdup("{\"error\":{\"class\":\"GenericError\",\"desc\":\"QEMU does not want to\"}}");
        if (strcmp(name, "getfd") == 0) {
                assert_string_equal(argument(command, "fdname"), BL_VSOCK_ID);
                q.fd = true;
                return strdup(OK);
        }
        if (strcmp(name, "closefd") == 0) {
                q.fd = false;
                return strdup(OK);
        }
        if (strcmp(name, "chardev-add") == 0)
                return chardev_add(command);
        if (strcmp(name, "chardev-remove") == 0)
                return chardev_remove();
        if (strcmp(name, "device_add") == 0)
                return device_add(command);
        assert_string_equal(name, "device_del");
        return device_del();
}

int virDomainQemuMonitorCommand(virDomainPtr dom, const char *cmd, char **result, unsigned int flags)
{
        json_t *command = json_loads(cmd, 0, NULL);
        const char *name = json_string_value(json_object_get(command, "execute"));
        bool fails;

        (void)dom;
        assert_non_null(name);
        assert_int_equal(flags, 0);
        fails = q.fail && strcmp(name, q.fail) == 0;
        if (!fails)
                *result = run(name, command);
        json_decref(command);
        return fails ? -1 : 0;
}

int virDomainQemuMonitorCommandWithFiles(virDomainPtr dom, const char *cmd, unsigned int ninfiles, int *infiles,
                                         unsigned int *noutfiles, int **outfiles, char **result, unsigned int flags)
{
        assert_int_equal(ninfiles, 1);
        assert_int_equal(infiles[0], q.backend);
        assert_null(noutfiles);
        assert_null(outfiles);
        return virDomainQemuMonitorCommand(dom, cmd, result, flags);
}

int bl_vsock_control_serve(const char *path, const struct bl_vsock_request *r, usec_t limit, int *ret_fd)
{
        assert_string_equal(path, "/run/control.sock");
        assert_true(limit > 0 && limit <= 5 * BL_SEC);
        q.request = *r;
        if (q.control < 0)
                return q.control;
        q.backend = *ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        assert_true(q.backend >= 0);
        return 0;
}

void bl_op_init(struct bl_op *op, struct bl_conn *c, const uint8_t *uuid, const struct bl_instance *instance)
{
        op->c = c;
        memcpy(op->uuid, uuid, BL_UUID_LEN);
        op->instance = *instance;
}

int bl_op_submit(struct bl_op *op)
{
        int r;

        if (q.submit < 0)
                return q.submit;
        r = op->run(op, NULL, NULL, &op->message);
        char *message = op->message;
        op->done(op, r, message);
        free(message);
        return 0;
}

int bl_op_submit_or_free(struct bl_op *op)
{
        int r = bl_op_submit(op);

        if (r < 0)
                free(op);
        return r;
}

static const uint8_t uuid[BL_UUID_LEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const struct bl_instance instance = {.pid = 4711, .start = 123456};

static struct {
        unsigned calls;
        int r;
        enum bl_vsock_attach a;
        char message[256];
} came;

static void on_attached(void *userdata, int r, const char *message, enum bl_vsock_attach a)
{
        assert_ptr_equal(userdata, &came);
        came.calls++;
        came.r = r;
        came.a = a;
        snprintf(came.message, sizeof(came.message), "%s", message ? message : "");
}

static void on_detached(void *userdata, int r, const char *message)
{
        on_attached(userdata, r, message, BL_VSOCK_FAILED);
}

static int setup(void **state)
{
        (void)state;
        memset(&q, 0, sizeof(q));
        memset(&came, 0, sizeof(came));
        q.pci = "pci-pc";
        q.port = "port-free";
        q.backend = -1;
        return 0;
}

/* What comes of it; the backend's descriptor never stays open here. */
static enum bl_vsock_attach attach(void)
{
        *q.did = '\0';
        came.calls = 0;
        assert_int_equal(bl_domain_attach_vsock(NULL, uuid, &instance, "/run/control.sock", 77, on_attached, &came), 0);
        assert_int_equal(came.calls, 1);
        if (q.backend >= 0)
                assert_int_equal(fcntl(q.backend, F_GETFD), -1);
        return came.a;
}

static void test_attach_pc(void **state)
{
        (void)state;
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
        assert_int_equal(came.r, 0);
        assert_string_equal(came.message, "");
        assert_string_equal(q.did, "getfd chardev-add device_add");
        assert_string_equal(q.bus, "pci.0");
        assert_string_equal(q.addr, "0x1f");
        assert_int_equal(q.request.magic, BL_VSOCK_CONTROL_MAGIC);
        assert_int_equal(q.request.cid, 77);
        assert_int_equal(q.request.pid, 4711);
        assert_int_equal(q.request.start, 123456);
        assert_memory_equal(q.request.uuid, uuid, BL_UUID_LEN);
        /* and again: it is there, and no other backend is asked for */
        q.backend = -1;
        assert_int_equal(attach(), BL_VSOCK_THERE);
        assert_string_equal(q.did, "");
        assert_int_equal(q.backend, -1);
}

static void test_attach_q35(void **state)
{
        (void)state;
        q.pci = "pci-q35";
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
        assert_string_equal(q.bus, "pci.3");
        assert_string_equal(q.addr, "0x0");
}

static void test_no_room(void **state)
{
        (void)state;
        q.pci = "pci-q35-dev";
        assert_int_equal(attach(), BL_VSOCK_NO_ROOM);
        assert_int_equal(came.r, 0);
        assert_string_equal(q.did, "");
        assert_int_equal(q.backend, -1); /* no backend is started for nothing */
        /* in the firmware QEMU does not say what is in a port; the object tree does */
        q.pci = "pci-q35-reset";
        q.port = "port-used";
        assert_int_equal(attach(), BL_VSOCK_NO_ROOM);
        q.port = "port-free";
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
}

static void test_no_backend(void **state)
{
        static const int none[] = {-ENOENT, -ECONNREFUSED};

        (void)state;
        for (size_t i = 0; i < 2; i++) {
                q.control = none[i];
                assert_int_equal(attach(), BL_VSOCK_NO_BACKEND);
                assert_int_equal(came.r, 0);
                assert_string_equal(q.did, "");
        }
        q.control = -ESRCH;
        assert_int_equal(attach(), BL_VSOCK_FAILED);
        assert_int_equal(came.r, 0);
        assert_non_null(strstr(came.message, strerror(ESRCH)));
        assert_string_equal(q.did, "");
}

/* Whatever fails on the way, nothing of it stays in QEMU. */
static void test_cleans_up(void **state)
{
        (void)state;
        q.refuse = "chardev-add";
        assert_int_equal(attach(), BL_VSOCK_FAILED);
        assert_string_equal(came.message, "QEMU does not want to");
        assert_string_equal(q.did, "getfd chardev-add closefd");
        assert_false(q.fd || q.chardev || q.device);

        q.refuse = "device_add";
        assert_int_equal(attach(), BL_VSOCK_FAILED);
        assert_string_equal(came.message, "QEMU does not want to");
        assert_string_equal(q.did, "getfd chardev-add device_add chardev-remove");
        assert_false(q.fd || q.chardev || q.device);

        q.refuse = NULL;
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
}

/* The connection to libvirt breaks and comes back: what was left is found. */
static void test_interrupted(void **state)
{
        (void)state;
        q.fail = "device_add";
        (void)attach();
        assert_true(came.r < 0);
        q.chardev = true; /* the clean-up did not get through either */
        q.connected = false;
        q.fail = NULL;
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
        assert_string_equal(q.did, "chardev-remove getfd chardev-add device_add");

        q.fail = "qom-list";
        (void)attach();
        assert_true(came.r < 0);
        assert_string_equal(q.did, "");
}

static void test_backend_dies(void **state)
{
        (void)state;
        q.dies = true;
        assert_int_equal(attach(), BL_VSOCK_FAILED);
        assert_string_equal(q.did, "getfd chardev-add device_add device_del");
        assert_true(*came.message);
        /* the guest takes its time; it is asked again each time */
        q.unplugging = false;
        assert_int_equal(attach(), BL_VSOCK_UNPLUGGING);
        assert_int_equal(came.r, 0);
        assert_string_equal(q.did, "device_del");
        q.refuse = "device_del"; /* "already in the process of unplug" */
        assert_int_equal(attach(), BL_VSOCK_UNPLUGGING);
        q.refuse = NULL;
        q.lets_go = 1;
        q.dies = false;
        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
        assert_string_equal(q.did, "chardev-remove getfd chardev-add device_add");
        assert_true(q.device && q.chardev && q.connected);
}

static void detach(void)
{
        *q.did = '\0';
        came.calls = 0;
        assert_int_equal(bl_domain_detach_vsock(NULL, uuid, &instance, on_detached, &came), 0);
        assert_int_equal(came.calls, 1);
}

static void test_detach(void **state)
{
        (void)state;
        detach();
        assert_int_equal(came.r, 0);
        assert_string_equal(q.did, "");

        assert_int_equal(attach(), BL_VSOCK_ATTACHED);
        q.lets_go = 3;
        detach();
        assert_int_equal(came.r, 0);
        assert_string_equal(q.did, "device_del chardev-remove");
        assert_false(q.device || q.chardev);

        /* the chardev alone, left by an earlier one that did not wait */
        q.chardev = true;
        detach();
        assert_int_equal(came.r, 0);
        assert_string_equal(q.did, "chardev-remove");
        assert_int_equal(bl_domain_detach_vsock(NULL, uuid, &instance, NULL, NULL), 0);
}

static void test_not_submitted(void **state)
{
        (void)state;
        q.submit = -EHOSTDOWN;
        assert_int_equal(bl_domain_attach_vsock(NULL, uuid, &instance, "/run/control.sock", 77, on_attached, &came),
                         -EHOSTDOWN);
        assert_int_equal(bl_domain_detach_vsock(NULL, uuid, &instance, on_detached, &came), -EHOSTDOWN);
        assert_int_equal(came.calls, 0);
}

static void test_cid(void **state)
{
        uint8_t u[BL_UUID_LEN] = {0};
        uint32_t last = 0;

        (void)state;
        for (unsigned i = 0; i < 100000; i++) {
                uint32_t cid;

                memcpy(u + 4, &i, sizeof(i));
                cid = bl_vsock_cid(u);
                assert_in_range(cid, 3, UINT32_MAX - 1);
                assert_int_not_equal(cid, last);
                assert_int_equal(cid, bl_vsock_cid(u));
                last = cid;
        }
}

static void test_names(void **state)
{
        (void)state;
        for (int a = BL_VSOCK_ATTACHED; a <= BL_VSOCK_FAILED; a++)
                for (int b = a + 1; b <= BL_VSOCK_FAILED; b++)
                        assert_string_not_equal(bl_vsock_attach_to_string((enum bl_vsock_attach)a),
                                                bl_vsock_attach_to_string((enum bl_vsock_attach)b));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_attach_pc, setup),
                cmocka_unit_test_setup(test_attach_q35, setup),
                cmocka_unit_test_setup(test_no_room, setup),
                cmocka_unit_test_setup(test_no_backend, setup),
                cmocka_unit_test_setup(test_cleans_up, setup),
                cmocka_unit_test_setup(test_interrupted, setup),
                cmocka_unit_test_setup(test_backend_dies, setup),
                cmocka_unit_test_setup(test_detach, setup),
                cmocka_unit_test_setup(test_not_submitted, setup),
                cmocka_unit_test(test_cid),
                cmocka_unit_test(test_names),
        };

        /* its errors are per thread, by a key that this makes */
        if (virInitialize() < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
