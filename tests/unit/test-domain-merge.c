/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The jobs against a QEMU that is this process: its memory backends are mappings of ours, and it does with them what
 * QEMU's backends/hostmem.c does, or what faulty ones do.  libvirt's passthrough and the pool are this file's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <libvirt/libvirt-qemu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/virt/domain_merge.h"
#include "daemon/virt/op.h"

#define OK "{\"return\":{}}"

/* No other mapping has these sizes. */
static const size_t sizes[] = {(1 << 20) + 7 * 4096, (1 << 20) + 9 * 4096};

static struct {
        unsigned n; /* backends */
        const char *machine; /* the answer about mem-merge */
        bool deaf; /* 9.1: the kernel is not told */
        bool stubborn; /* the property stays */
        const char *refuse; /* of this id it is refused */
        void *ram[2];
        bool merge[2];
        char did[256];
} q;

static int setup(void **state)
{
        (void)state;
        memset(&q, 0, sizeof(q));
        q.n = 1;
        q.machine = "{\"return\":true}";
        for (int i = 0; i < 2; i++) {
                q.ram[i] = mmap(NULL, sizes[i], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                assert_ptr_not_equal(q.ram[i], MAP_FAILED);
        }
        /* neighbours of the same kind would be one mapping */
        assert_int_equal(mprotect((char *)q.ram[0] + sizes[0] - 4096, 4096, PROT_NONE), 0);
        assert_int_equal(mprotect((char *)q.ram[1] + sizes[1] - 4096, 4096, PROT_NONE), 0);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        for (int i = 0; i < 2; i++)
                munmap(q.ram[i], sizes[i]);
        return 0;
}

static size_t ram_size(int i)
{
        return sizes[i] - 4096;
}

static void tell_kernel(int i, bool on)
{
        assert_int_equal(madvise(q.ram[i], ram_size(i), on ? MADV_MERGEABLE : MADV_UNMERGEABLE), 0);
}

static void start_merging(void)
{
        for (int i = 0; i < 2; i++) {
                q.merge[i] = true;
                tell_kernel(i, true);
        }
}

static const char *argument(const json_t *command, const char *key)
{
        return json_string_value(json_object_get(json_object_get(command, "arguments"), key));
}

static char *memdevs(void)
{
        char text[512];

        (void)snprintf(text, sizeof(text), "{\"return\":[{\"merge\":true,\"dump\":false,\"size\":4096}]}");
        if (q.n == 1)
                (void)snprintf(text, sizeof(text),
                               "{\"return\":[{\"share\":false,\"size\":%zu,\"merge\":%s,\"policy\":\"default\","
                               "\"id\":\"pc.ram\"}],\"id\":\"libvirt-1\"}",
                               ram_size(0), q.merge[0] ? "true" : "false");
        else if (q.n == 2)
                (void)snprintf(text, sizeof(text),
                               "{\"return\":[{\"size\":%zu,\"merge\":%s,\"id\":\"ram-node0\"},"
                               "{\"size\":%zu,\"merge\":%s,\"id\":\"ram-node1\"}]}",
                               ram_size(0), q.merge[0] ? "true" : "false", ram_size(1), q.merge[1] ? "true" : "false");
        return strdup(text);
}

static char *set(const json_t *command)
{
        const char *path = argument(command, "path");
        const json_t *value = json_object_get(json_object_get(command, "arguments"), "value");
        int i = strcmp(path, "/objects/ram-node1") == 0;

        assert_string_equal(argument(command, "property"), "merge");
        assert_true(json_is_boolean(value));
        assert_string_equal(path, q.n == 1 ? "/objects/pc.ram" : i ? "/objects/ram-node1" : "/objects/ram-node0");
        snprintf(q.did + strlen(q.did), sizeof(q.did) - strlen(q.did), "%s%s=%d", *q.did ? " " : "",
                 strrchr(path, '/') + 1, json_is_true(value));
        if (q.refuse && strstr(path, q.refuse))
                return strdup("{\"error\":{\"class\":\"GenericError\",\"desc\":\"QEMU does not want to\"}}");
        if (!q.stubborn && q.merge[i] != json_is_true(value)) {
                q.merge[i] = json_is_true(value);
                if (!q.deaf)
                        tell_kernel(i, q.merge[i]);
        }
        return strdup(OK);
}

int virDomainQemuMonitorCommand(virDomainPtr dom, const char *cmd, char **result, unsigned int flags)
{
        json_t *command = json_loads(cmd, 0, NULL);
        const char *name = json_string_value(json_object_get(command, "execute"));

        (void)dom;
        (void)flags;
        if (strcmp(name, "query-memdev") == 0) {
                *result = memdevs();
        } else if (strcmp(name, "qom-get") == 0) {
                assert_string_equal(argument(command, "path"), "/machine");
                assert_string_equal(argument(command, "property"), "mem-merge");
                *result = strdup(q.machine);
        } else {
                assert_string_equal(name, "qom-set");
                *result = set(command);
        }
        json_decref(command);
        return 0;
}

void bl_op_init(struct bl_op *op, struct bl_conn *c, const uint8_t *uuid, const struct bl_instance *instance)
{
        op->c = c;
        memcpy(op->uuid, uuid, BL_UUID_LEN);
        op->instance = *instance;
}

int bl_op_submit_or_free(struct bl_op *op)
{
        int r = op->run(op, NULL, NULL, &op->message);
        char *message = op->message;

        op->done(op, r, message);
        free(message);
        return 0;
}

static const uint8_t uuid[BL_UUID_LEN] = {1, 2, 3};

static struct {
        int r;
        struct bl_merge_state s;
        char message[256];
} came;

static void on_merge(void *userdata, int r, const char *message, const struct bl_merge_state *s)
{
        assert_ptr_equal(userdata, &came);
        came.r = r;
        came.s = *s;
        snprintf(came.message, sizeof(came.message), "%s", message ? message : "");
}

static struct bl_instance this_process(void)
{
        struct bl_instance i = {.pid = getpid()};
        char stat[1024], state;

        assert_true(bl_fs_read(NULL, "/proc/self/stat", stat, sizeof(stat)) > 0);
        assert_int_equal(bl_proc_stat_parse(stat, &state, &i.start), 0);
        return i;
}

static int look(void)
{
        const struct bl_instance i = this_process();

        assert_int_equal(bl_domain_read_merge(NULL, uuid, &i, on_merge, &came), 0);
        return came.r;
}

static int set_to(bool on)
{
        const struct bl_instance i = this_process();

        q.did[0] = '\0';
        assert_int_equal(bl_domain_set_merge(NULL, uuid, &i, on, on_merge, &came), 0);
        return came.r;
}

static void expect(unsigned backends, unsigned on, int registered)
{
        assert_int_equal(came.s.backends, backends);
        assert_int_equal(came.s.on, on);
        assert_int_equal(came.s.registered, registered);
}

static void test_look(void **state)
{
        (void)state;
        assert_int_equal(look(), 0);
        expect(1, 0, 0);
        assert_true(came.s.machine);
        start_merging();
        q.machine = "{\"return\":false}";
        assert_int_equal(look(), 0);
        expect(1, 1, 1);
        assert_false(came.s.machine);
        /* nothing was changed by looking */
        assert_string_equal(q.did, "");
        q.n = 2;
        assert_int_equal(look(), 0);
        expect(2, 2, 2);
        q.merge[1] = false;
        tell_kernel(1, false);
        assert_int_equal(look(), 0);
        expect(2, 1, 1);
        /* a machine that merges nothing of its own, and one that does not answer */
        q.machine = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"Property 'x.mem-merge' not found\"}}";
        assert_int_equal(look(), 0);
        assert_false(came.s.machine);
        q.machine = "[]";
        assert_int_equal(look(), -EBADMSG);
}

static void test_set(void **state)
{
        (void)state;
        start_merging();
        assert_int_equal(set_to(false), 0);
        expect(1, 0, 0);
        assert_string_equal(q.did, "pc.ram=0");
        assert_int_equal(set_to(true), 0);
        expect(1, 1, 1);
        q.n = 2;
        assert_int_equal(set_to(false), 0);
        expect(2, 0, 0);
        assert_string_equal(q.did, "ram-node0=0 ram-node1=0");
        /* one of two stays registered, whatever QEMU says */
        start_merging();
        q.deaf = true;
        q.merge[1] = true;
        tell_kernel(0, false);
        assert_int_equal(set_to(false), -EOPNOTSUPP);
        expect(2, 1, 1);
        q.deaf = false;
        q.refuse = "node1";
        assert_int_equal(set_to(true), -EREMOTEIO);
        assert_string_equal(came.message, "QEMU does not want to");
}

/* Backends without an id cannot be reached. */
static void test_none(void **state)
{
        (void)state;
        q.n = 0;
        assert_int_equal(look(), 0);
        expect(0, 0, -1);
        assert_int_equal(set_to(false), -EOPNOTSUPP);
        assert_non_null(strstr(came.message, "no memory backend"));
        assert_string_equal(q.did, "");
}

/* It says that it did: the kernel knows better. */
static void test_deaf(void **state)
{
        (void)state;
        start_merging();
        q.deaf = true;
        assert_int_equal(set_to(false), -EOPNOTSUPP);
        assert_non_null(strstr(came.message, "9.1"));
        /* also afterwards, and to the next daemon: it can be merged, whatever the property says */
        assert_int_equal(look(), 0);
        expect(1, 1, 1);
        assert_int_equal(set_to(false), -EOPNOTSUPP);
        tell_kernel(0, false);
        assert_int_equal(set_to(true), -EOPNOTSUPP);
        assert_int_equal(look(), 0);
        expect(1, 0, 0);
        q.deaf = false;
        q.stubborn = true;
        q.merge[0] = false;
        assert_int_equal(set_to(true), -EOPNOTSUPP);
        assert_non_null(strstr(came.message, "as it was"));
}

/* Of another process nothing is said but what QEMU says. */
static void test_other_process(void **state)
{
        struct bl_instance i = this_process();

        (void)state;
        start_merging();
        i.start++;
        assert_int_equal(bl_domain_read_merge(NULL, uuid, &i, on_merge, &came), 0);
        assert_int_equal(came.r, 0);
        expect(1, 1, -1);
}

static int flags(const char *text, uint64_t a, uint64_t b)
{
        const uint64_t wanted[] = {a, b};
        FILE *f = fmemopen((char *)text, strlen(text), "r");
        int r = bl_merge_flags(f, wanted, b ? 2 : 1);

        fclose(f);
        return r;
}

#define VMA(range, flags) range " rw-p 00000000 00:00 0 \nSize:  8 kB\nKSM:   4 kB\nVmFlags: rd wr mr mw me " flags "\n"

static void test_flags(void **state)
{
        (void)state;
        assert_int_equal(flags(VMA("1000-3000", "ac mg"), 0x2000, 0), 1);
        assert_int_equal(flags(VMA("1000-3000", "ac"), 0x2000, 0), 0);
        /* a flag that only begins so */
        assert_int_equal(flags(VMA("1000-3000", "ac mgx"), 0x2000, 0), 0);
        /* another mapping's flags, before and after */
        assert_int_equal(flags(VMA("1000-2000", "mg") VMA("3000-5000", "ac") VMA("6000-7000", "mg"), 0x2000, 0), 0);
        /* not there, or in pieces */
        assert_int_equal(flags(VMA("1000-2000", "mg"), 0x2000, 0), -1);
        assert_int_equal(flags("", 0x2000, 0), -1);
        assert_int_equal(flags(VMA("1000-3000", "mg") VMA("5000-8000", "mg"), 0x2000, 0x3000), 2);
        assert_int_equal(flags(VMA("1000-3000", "mg") VMA("5000-8000", "ac"), 0x2000, 0x3000), 1);
        assert_int_equal(flags(VMA("1000-3000", "mg"), 0x2000, 0x3000), -1);
        /* two of one size */
        assert_int_equal(flags(VMA("1000-3000", "mg") VMA("5000-7000", "mg"), 0x2000, 0x2000), 2);
        /* a file that is mapped, with a name like a range */
        assert_int_equal(flags("1000-3000 r--p 0 00:00 0 /tmp/5000-7000 x\nSize: 8 kB\nVmFlags: rd mg\n", 0x2000, 0),
                         1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_look, setup, teardown),
                cmocka_unit_test_setup_teardown(test_set, setup, teardown),
                cmocka_unit_test_setup_teardown(test_none, setup, teardown),
                cmocka_unit_test_setup_teardown(test_deaf, setup, teardown),
                cmocka_unit_test_setup_teardown(test_other_process, setup, teardown),
                cmocka_unit_test(test_flags),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
