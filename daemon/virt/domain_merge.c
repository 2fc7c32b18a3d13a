/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/domain_merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/virt/monitor.h"
#include "daemon/virt/op.h"

/* NUMA nodes and DIMMs; more than QEMU has slots for (ACPI_MAX_RAM_SLOTS) */
#define BACKENDS_MAX 384

struct merge_op {
        struct bl_op op;
        bool set, on;
        struct bl_merge_state s;
        bl_domain_merge_fn fn;
        void *userdata;
};

/* --- what the kernel says ------------------------------------------------------------ */

/* "7f35ebe00000-7f3613e00000 rw-p 00000000 00:00 0": the first line of a mapping; the others begin with a capital. */
static bool parse_range(const char *line, uint64_t *ret_size)
{
        unsigned long long start, end;

        if (sscanf(line, "%llx-%llx ", &start, &end) != 2 || end <= start)
                return false;
        *ret_size = end - start;
        return true;
}

static bool has_flag(const char *flags, const char *flag)
{
        char buf[512], *save = NULL;

        (void)snprintf(buf, sizeof buf, "%s", flags);
        for (const char *w = strtok_r(buf, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
                if (strcmp(w, flag) == 0)
                        return true;
        return false;
}

static bool is_one_of(uint64_t size, const uint64_t *sizes, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (sizes[i] == size)
                        return true;
        return false;
}

int bl_merge_flags(FILE *smaps, const uint64_t *sizes, size_t n)
{
        _cleanup_free_ char *line = NULL;
        size_t room = 0, seen = 0, registered = 0;
        uint64_t size = 0, s;

        while (getline(&line, &room, smaps) >= 0) {
                if (parse_range(line, &s))
                        size = s;
                else if (strncmp(line, "VmFlags:", 8) == 0 && is_one_of(size, sizes, n)) {
                        seen++;
                        registered += has_flag(line + 8, "mg");
                }
        }
        return seen < n ? -1 : (int)registered;
}

static int flags_of(const struct bl_instance *i, const uint64_t *sizes, size_t n)
{
        _cleanup_fclose_ FILE *f = NULL;
        char path[64], state;
        int registered;

        (void)snprintf(path, sizeof path, "/proc/%d/smaps", (int)i->pid);
        f = n > 0 ? fopen(path, "re") : NULL;
        if (!f)
                return -1;
        registered = bl_merge_flags(f, sizes, n);
        /* looked at afterwards: so the number was its own */
        return bl_instance_state(NULL, i, &state) < 0 ? -1 : registered;
}

/* --- what QEMU says -------------------------------------------------------------------- */

static const char *id_of(const json_t *backend)
{
        return json_string_value(json_object_get(backend, "id"));
}

static bool is_on(const json_t *backend)
{
        return json_is_true(json_object_get(backend, "merge"));
}

/* One with an id can be reached; QEMU gives all of them one since 2.7. */
static bool is_ours(const json_t *backend)
{
        return id_of(backend) && json_is_boolean(json_object_get(backend, "merge"));
}

static int ask_machine(virDomainPtr dom, bool *ret)
{
        _cleanup_free_ char *message = NULL;
        json_t *v = NULL;
        int r = bl_monitor_ask(dom, "qom-get", json_pack("{s:s, s:s}", "path", "/machine", "property", "mem-merge"), &v,
                               &message);

        /* a machine without the property merges nothing of its own */
        *ret = r == 0 && json_is_true(v);
        json_decref(v);
        return r == -EREMOTEIO ? 0 : r;
}

static int look(struct merge_op *o, virDomainPtr dom, json_t **ret_list, char **ret_message)
{
        uint64_t sizes[BACKENDS_MAX];
        const json_t *one;
        json_t *list = NULL;
        size_t i;
        int r;

        o->s = (struct bl_merge_state){.registered = -1};
        r = ask_machine(dom, &o->s.machine);
        if (r == 0)
                r = bl_monitor_ask(dom, "query-memdev", json_object(), &list, ret_message);
        if (r < 0)
                return r;
        json_array_foreach(list, i, one)
        {
                if (!is_ours(one) || o->s.backends == BACKENDS_MAX)
                        continue;
                sizes[o->s.backends++] = (uint64_t)json_integer_value(json_object_get(one, "size"));
                o->s.on += is_on(one);
        }
        o->s.registered = flags_of(&o->op.instance, sizes, o->s.backends);
        *ret_list = list;
        return 0;
}

static int set_one(virDomainPtr dom, const json_t *backend, bool on, char **ret_message)
{
        _cleanup_free_ char *path = NULL;

        if (asprintf(&path, "/objects/%s", id_of(backend)) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        return bl_monitor_tell(dom, "qom-set",
                               json_pack("{s:s, s:s, s:b}", "path", path, "property", "merge", "value", on),
                               ret_message);
}

static int set_all(virDomainPtr dom, const json_t *list, bool on, char **ret_message)
{
        const json_t *one;
        size_t i;

        json_array_foreach(list, i, one)
        {
                int r = is_ours(one) ? set_one(dom, one, on, ret_message) : 0;

                if (r < 0)
                        return r;
        }
        return 0;
}

static int refuse(char **ret_message, const char *sentence)
{
        free(*ret_message);
        *ret_message = strdup(sentence);
        return -EOPNOTSUPP;
}

static int set(struct merge_op *o, virDomainPtr dom, json_t **list, char **ret_message)
{
        int r;

        if (o->s.backends == 0)
                return refuse(ret_message, "its QEMU has no memory backend with a 'merge' property");
        r = set_all(dom, *list, o->on, ret_message);
        if (r < 0)
                return r;
        json_decref(*list);
        *list = NULL;
        r = look(o, dom, list, ret_message);
        if (r < 0)
                return r;
        if (o->s.on != (o->on ? o->s.backends : 0))
                return refuse(ret_message, "its QEMU says that it did, and has its 'merge' property as it was");
        if (o->on && o->s.registered >= 0 && (unsigned)o->s.registered < o->s.backends)
                return refuse(ret_message,
                              "the kernel does not take its memory: it is shared or of huge pages, or this is "
                              "QEMU 9.1, which does not tell the kernel");
        if (!o->on && o->s.registered > 0)
                return refuse(ret_message,
                              "its QEMU took the 'merge' property and did not tell the kernel (9.1 has that "
                              "fault): with <nosharepages/> in its XML it starts without");
        return 0;
}

static int merge_run(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message)
{
        struct merge_op *o = (struct merge_op *)op;
        json_t *list = NULL;
        int r;

        (void)conn;
        r = look(o, dom, &list, ret_message);
        if (r == 0 && o->set)
                r = set(o, dom, &list, ret_message);
        json_decref(list);
        if (o->s.registered >= 0)
                o->s.on = (unsigned)o->s.registered;
        return r;
}

static void merge_done(struct bl_op *op, int r, const char *message)
{
        struct merge_op *o = (struct merge_op *)op;

        o->fn(o->userdata, r, message, &o->s);
        free(o);
}

static int submit(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool set, bool on,
                  bl_domain_merge_fn fn, void *userdata)
{
        struct merge_op *o = calloc(1, sizeof *o);

        if (!o)
                return -ENOMEM;
        bl_op_init(&o->op, c, uuid, inst);
        o->op.run = merge_run;
        o->op.done = merge_done;
        o->set = set;
        o->on = on;
        o->s.registered = -1;
        o->fn = fn;
        o->userdata = userdata;
        return bl_op_submit_or_free(&o->op);
}

int bl_domain_read_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                         bl_domain_merge_fn fn, void *userdata)
{
        return submit(c, uuid, inst, false, false, fn, userdata);
}

int bl_domain_set_merge(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool on,
                        bl_domain_merge_fn fn, void *userdata)
{
        return submit(c, uuid, inst, true, on, fn, userdata);
}
