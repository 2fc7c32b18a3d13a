/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ledger_file.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const hold_names[_BL_HOLD_MAX] = {
        [BL_HOLD_NONE] = "none",
        [BL_HOLD_HAND] = "hand",
        [BL_HOLD_ADMIN] = "admin",
        [BL_HOLD_MANUAL] = "manual",
};

static const char *const state_names[] = {
        [BL_TARGET_IN_FLIGHT] = "in-flight",
        [BL_TARGET_DONE] = "done",
        [BL_TARGET_UNKNOWN] = "unknown",
};

static const char *const rollback_names[] = {
        [BL_ROLLBACK_NONE] = "none",
        [BL_ROLLBACK_RUNNING] = "running",
        [BL_ROLLBACK_DONE] = "done",
};

static struct bl_ledger_vm *vm_free(struct bl_ledger_vm *v)
{
        if (!v)
                return NULL;
        free(v->name);
        free(v->hold_reason);
        free(v);
        return NULL;
}

static void knob_clear(struct bl_ledger_knob *k)
{
        free(k->path);
        free(k->was);
        free(k->ours);
        free(k->before);
}

void bl_ledger_data_remove_knob(struct bl_ledger_data *d, size_t i)
{
        knob_clear(&d->knobs[i]);
        d->n_knobs--;
        memmove(&d->knobs[i], &d->knobs[i + 1], (d->n_knobs - i) * sizeof(d->knobs[0]));
}

int bl_ledger_data_add_knob(struct bl_ledger_data *d, const char *path, const char *was, const char *ours,
                            const char *before)
{
        struct bl_ledger_knob k;

        if (d->n_knobs == BL_LEDGER_KNOBS)
                return -ENOSPC;
        k = (struct bl_ledger_knob){
                .path = strdup(path),
                .was = strdup(was),
                .ours = strdup(ours),
                .before = before ? strdup(before) : NULL,
        };
        if (!k.path || !k.was || !k.ours || (before && !k.before)) {
                knob_clear(&k);
                return -ENOMEM;
        }
        d->knobs[d->n_knobs++] = k;
        return 0;
}

void bl_ledger_data_clear(struct bl_ledger_data *d)
{
        for (size_t i = 0; i < d->n_knobs; i++)
                knob_clear(&d->knobs[i]);
        for (size_t i = 0; i < d->n; i++)
                (void)vm_free(d->vms[i]);
        free(d->vms);
        free(d->boot_id);
        *d = (struct bl_ledger_data){0};
}

int bl_ledger_data_add(struct bl_ledger_data *d, const uint8_t uuid[BL_UUID_LEN], const char *name,
                       struct bl_ledger_vm **ret)
{
        struct bl_ledger_vm *v;

        if (d->n == d->size) {
                size_t size = d->size ? d->size * 2 : 16;
                struct bl_ledger_vm **vms = reallocarray(d->vms, size, sizeof(*vms));

                if (!vms)
                        return -ENOMEM;
                d->vms = vms;
                d->size = size;
        }
        v = calloc(1, sizeof(*v));
        if (!v)
                return -ENOMEM;
        v->name = strdup(name);
        if (!v->name) {
                free(v);
                return -ENOMEM;
        }
        memcpy(v->uuid, uuid, BL_UUID_LEN);
        v->original = BL_UNSET;
        v->original_period = -1;
        v->merge_was = -1;
        d->vms[d->n++] = v;
        *ret = v;
        return 0;
}

void bl_ledger_data_remove(struct bl_ledger_data *d, size_t i)
{
        (void)vm_free(d->vms[i]);
        memmove(&d->vms[i], &d->vms[i + 1], (d->n - i - 1) * sizeof(d->vms[0]));
        d->n--;
}

/* --- reading ------------------------------------------------------------------------- */

/* What is wrong, for the sentence to the administrator; the first counts. */
struct reader {
        const char *wrong;
};

static int wrong(struct reader *rd, const char *what)
{
        if (!rd->wrong)
                rd->wrong = what;
        return -EINVAL;
}

/* A number that is a size or a time: not negative.  Absent: `otherwise`. */
static int get_u64(struct reader *rd, const json_t *o, const char *key, uint64_t otherwise, uint64_t *ret)
{
        const json_t *v = json_object_get(o, key);

        if (!v || json_is_null(v)) {
                *ret = otherwise;
                return 0;
        }
        if (!json_is_integer(v) || json_integer_value(v) < 0)
                return wrong(rd, key);
        *ret = (uint64_t)json_integer_value(v);
        return 0;
}

static int get_bool(struct reader *rd, const json_t *o, const char *key, bool *ret)
{
        const json_t *v = json_object_get(o, key);

        if (!json_is_boolean(v))
                return wrong(rd, key);
        *ret = json_boolean_value(v);
        return 0;
}

/* Index of a string in a table of names. */
static int get_name(struct reader *rd, const json_t *o, const char *key, const char *const *names, size_t n)
{
        const char *s = json_string_value(json_object_get(o, key));

        for (size_t i = 0; s && i < n; i++)
                if (strcmp(s, names[i]) == 0)
                        return (int)i;
        return wrong(rd, key);
}

static int read_targets(struct reader *rd, const json_t *o, struct bl_ledger_vm *v)
{
        const json_t *list = json_object_get(o, "targets"), *t;
        size_t i;

        if (!list)
                return 0;
        if (!json_is_array(list) || json_array_size(list) > BL_LEDGER_TARGETS)
                return wrong(rd, "targets");
        json_array_foreach((json_t *)list, i, t)
        {
                struct bl_ledger_target *to = &v->targets[i];
                int state = get_name(rd, t, "state", state_names, 3);

                if (state < 0 || get_u64(rd, t, "from", BL_UNSET, &to->from) < 0 ||
                    get_u64(rd, t, "to", BL_UNSET, &to->to) < 0 || get_u64(rd, t, "at_us", 0, &to->at_wall) < 0)
                        return -EINVAL;
                if (to->from == BL_UNSET || to->to == BL_UNSET)
                        return wrong(rd, "targets");
                to->state = (enum bl_ledger_target_state)state;
        }
        v->n_targets = i;
        return 0;
}

static int read_instance(struct reader *rd, const json_t *o, const char *pid_key, const char *start_key,
                         struct bl_instance *ret)
{
        uint64_t pid = 0, start = 0;

        if (get_u64(rd, o, pid_key, 0, &pid) < 0 || get_u64(rd, o, start_key, 0, &start) < 0)
                return -EINVAL;
        if (pid > INT32_MAX)
                return wrong(rd, pid_key);
        *ret = (struct bl_instance){.pid = (pid_t)pid, .start = start};
        return 0;
}

/* It came later than the rest of this version. */
static int read_merge(struct reader *rd, const json_t *o, struct bl_ledger_vm *v)
{
        bool was = false;

        if (!json_object_get(o, "merge_was"))
                return 0;
        if (get_bool(rd, o, "merge_was", &was) < 0 ||
            read_instance(rd, o, "merge_pid", "merge_start", &v->merge_of) < 0)
                return -EINVAL;
        if (v->merge_of.pid == 0)
                return wrong(rd, "merge_pid");
        v->merge_was = was;
        return 0;
}

/* So did they. */
static int read_knobs(struct reader *rd, const json_t *root, struct bl_ledger_data *d)
{
        json_t *knobs = json_object_get(root, "knobs"), *k;
        const char *path;
        int r;

        if (!knobs)
                return 0;
        if (!json_is_object(knobs))
                return wrong(rd, "knobs");
        json_object_foreach(knobs, path, k)
        {
                const char *was = json_string_value(json_object_get(k, "was"));
                const char *ours = json_string_value(json_object_get(k, "ours"));
                const json_t *before = json_object_get(k, "before");

                if (!was || !ours || (before && !json_is_string(before)))
                        return wrong(rd, "knobs");
                r = bl_ledger_data_add_knob(d, path, was, ours, json_string_value(before));
                if (r < 0)
                        return r == -ENOSPC ? wrong(rd, "knobs") : r;
        }
        return 0;
}

static int read_vm(struct reader *rd, const char *uuid_text, const json_t *o, struct bl_ledger_data *d)
{
        const char *name = json_string_value(json_object_get(o, "name"));
        const char *reason = json_string_value(json_object_get(o, "hold_reason"));
        uint8_t uuid[BL_UUID_LEN];
        struct bl_ledger_vm *v;
        uint64_t period;
        int hold, r;

        if (bl_uuid_from_string(uuid_text, uuid) < 0)
                return wrong(rd, "uuid");
        if (!name)
                return wrong(rd, "name");
        r = bl_ledger_data_add(d, uuid, name, &v);
        if (r < 0)
                return r;
        hold = get_name(rd, o, "hold", hold_names, _BL_HOLD_MAX);
        /* the second came later than the rest of this version */
        if (hold < 0 || read_instance(rd, o, "pid", "start", &v->instance) < 0 ||
            read_instance(rd, o, "drained_pid", "drained_start", &v->drained) < 0 || read_targets(rd, o, v) < 0 ||
            read_merge(rd, o, v) < 0 || get_u64(rd, o, "original", BL_UNSET, &v->original) < 0 ||
            get_u64(rd, o, "original_period", BL_UNSET, &period) < 0 ||
            get_u64(rd, o, "hold_at_us", 0, &v->hold_at_wall) < 0)
                return -EINVAL;
        if (period != BL_UNSET && period > INT32_MAX)
                return wrong(rd, "original_period");
        v->original_period = period == BL_UNSET ? -1 : (int)period;
        v->hold = (enum bl_hold)hold;
        if (reason) {
                v->hold_reason = strdup(reason);
                if (!v->hold_reason)
                        return -ENOMEM;
        }
        return 0;
}

static int read_all(struct reader *rd, json_t *root, struct bl_ledger_data *d)
{
        const json_t *act = json_object_get(root, "act");
        const char *boot_id = json_string_value(json_object_get(root, "boot_id"));
        json_t *vms = json_object_get(root, "vms"), *vm;
        const char *uuid;
        int r, rollback = BL_ROLLBACK_NONE;

        if (!boot_id)
                return wrong(rd, "boot_id");
        if (!json_is_null(act) && !json_is_boolean(act))
                return wrong(rd, "act");
        d->act = json_is_boolean(act) ? json_boolean_value(act) : -1;
        if (get_bool(rd, root, "held", &d->held) < 0 || get_bool(rd, root, "trusted", &d->trusted) < 0 ||
            get_u64(rd, root, "phase", BL_UNSET, &d->phase) < 0)
                return -EINVAL;
        /* it came later than the rest of this version */
        if (json_object_get(root, "rollback"))
                rollback = get_name(rd, root, "rollback", rollback_names, 3);
        if (rollback < 0)
                return -EINVAL;
        d->rollback = (enum bl_ledger_rollback)rollback;
        if (d->phase == 0 || d->phase >= BL_MIB || d->phase % (4 * BL_KIB) != 0)
                return wrong(rd, "phase");
        if (!json_is_object(vms))
                return wrong(rd, "vms");
        d->boot_id = strdup(boot_id);
        if (!d->boot_id)
                return -ENOMEM;
        r = read_knobs(rd, root, d);
        if (r < 0)
                return r;
        json_object_foreach(vms, uuid, vm)
        {
                r = read_vm(rd, uuid, vm, d);
                if (r < 0)
                        return r;
        }
        return 0;
}

static void why(char **ret_why, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void why(char **ret_why, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        if (vasprintf(ret_why, format, ap) < 0)
                *ret_why = NULL;
        va_end(ap);
}

enum bl_ledger_found bl_ledger_data_parse(const char *text, size_t len, struct bl_ledger_data *ret, char **ret_why)
{
        struct bl_ledger_data d = {0};
        struct reader rd = {0};
        json_int_t version;
        json_error_t error;
        json_t *root;
        int r;

        root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
        if (!root) {
                why(ret_why, "%s", len == 0 ? "it is empty" : error.text);
                return BL_LEDGER_DAMAGED;
        }
        version = json_integer_value(json_object_get(root, "version"));
        if (version > BL_LEDGER_VERSION) {
                why(ret_why, "version %lld", (long long)version);
                json_decref(root);
                return BL_LEDGER_NEWER;
        }
        r = version == BL_LEDGER_VERSION ? read_all(&rd, root, &d) : wrong(&rd, "version");
        json_decref(root);
        if (r < 0) {
                if (r == -ENOMEM)
                        why(ret_why, "out of memory");
                else
                        why(ret_why, "its field '%s' is missing or wrong", rd.wrong);
                bl_ledger_data_clear(&d);
                return BL_LEDGER_INVALID;
        }
        *ret = d;
        return BL_LEDGER_READ;
}

/* --- writing ------------------------------------------------------------------------- */

static json_t *number_or_null(uint64_t v)
{
        /* JSON's integers are signed here; what does not fit is no size */
        return v > INT64_MAX ? json_null() : json_integer((json_int_t)v);
}

/* Sets members that are there only sometimes.  Takes `value`. */
static int add_member(json_t *o, const char *key, json_t *value)
{
        return json_object_set_new(o, key, value) < 0 ? -ENOMEM : 0;
}

static int add_instance(json_t *o, const char *pid_key, const char *start_key, const struct bl_instance *i)
{
        int r = add_member(o, pid_key, json_integer(i->pid));

        return r < 0 ? r : add_member(o, start_key, number_or_null(i->start));
}

static json_t *vm_to_json(const struct bl_ledger_vm *v)
{
        json_t *targets = json_array(), *j;
        int r = 0;

        for (size_t i = 0; i < v->n_targets; i++) {
                const struct bl_ledger_target *t = &v->targets[i];

                (void)json_array_append_new(targets,
                                            json_pack("{s:o, s:o, s:o, s:s}", "from", number_or_null(t->from), "to",
                                                      number_or_null(t->to), "at_us", number_or_null(t->at_wall),
                                                      "state", state_names[t->state]));
        }
        j = json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:s, s:s*, s:o}", "name", v->name, "pid", (int)v->instance.pid,
                      "start", number_or_null(v->instance.start), "original", number_or_null(v->original),
                      "original_period", v->original_period < 0 ? json_null() : json_integer(v->original_period),
                      "targets", targets, "hold", hold_names[v->hold], "hold_reason", v->hold_reason, "hold_at_us",
                      number_or_null(v->hold_at_wall));
        if (j && v->drained.pid != 0)
                r = add_instance(j, "drained_pid", "drained_start", &v->drained);
        if (j && r == 0 && v->merge_was >= 0) {
                r = add_member(j, "merge_was", json_boolean(v->merge_was));
                if (r == 0)
                        r = add_instance(j, "merge_pid", "merge_start", &v->merge_of);
        }
        if (r < 0) {
                json_decref(j);
                return NULL;
        }
        return j;
}

static json_t *knobs_to_json(const struct bl_ledger_data *d)
{
        json_t *knobs = json_object();

        for (size_t i = 0; i < d->n_knobs; i++) {
                const struct bl_ledger_knob *k = &d->knobs[i];

                if (json_object_set_new(
                            knobs, k->path,
                            json_pack("{s:s, s:s, s:s*}", "was", k->was, "ours", k->ours, "before", k->before)) < 0) {
                        json_decref(knobs);
                        return NULL;
                }
        }
        return knobs;
}

int bl_ledger_data_format(const struct bl_ledger_data *d, char **ret, size_t *ret_len)
{
        json_t *vms = json_object(), *root;
        char uuid[37], *text = NULL;
        int r = 0;

        for (size_t i = 0; i < d->n && r == 0; i++) {
                bl_uuid_to_string(d->vms[i]->uuid, uuid);
                r = json_object_set_new(vms, uuid, vm_to_json(d->vms[i]));
        }
        root = json_pack("{s:i, s:s, s:o, s:b, s:b, s:s, s:o, s:o, s:o}", "version", BL_LEDGER_VERSION, "boot_id",
                         d->boot_id, "act", d->act < 0 ? json_null() : json_boolean(d->act), "held", d->held, "trusted",
                         d->trusted, "rollback", rollback_names[d->rollback], "phase", number_or_null(d->phase), "vms",
                         vms, "knobs", knobs_to_json(d));
        if (root && r == 0)
                text = json_dumps(root, JSON_INDENT(2));
        json_decref(root);
        if (!text)
                return -ENOMEM;
        *ret = text;
        *ret_len = strlen(text);
        return 0;
}
