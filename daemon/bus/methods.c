/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/methods.h"

#include <errno.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/bus/internal.h"
#include "daemon/virt/metadata.h"

#define VM_NAME_MAX 256U

__attribute__((format(printf, 3, 4))) static int fail(char **ret_error, int r, const char *format, ...)
{
        char *s = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&s, format, ap) >= 0)
                *ret_error = s;
        va_end(ap);
        return r;
}

/* ---- reading ---- */

static int give_document(int r, json_t *doc, char **ret_text)
{
        char *text;

        if (r < 0)
                return r;
        text = json_dumps(doc, JSON_COMPACT);
        json_decref(doc);
        if (!text)
                return -ENOMEM;
        *ret_text = text;
        return 0;
}

#define READ_DOCUMENT(name)                                                                            \
        static int read_##name(struct bl_bus *b, sd_bus_message *m, char **ret_text, char **ret_error) \
        {                                                                                              \
                json_t *doc = NULL;                                                                    \
                int r;                                                                                 \
                                                                                                       \
                (void)m;                                                                               \
                (void)ret_error;                                                                       \
                r = b->ops->name(b->manager, &doc);                                                    \
                return give_document(r, doc, ret_text);                                                \
        }

READ_DOCUMENT(status)
READ_DOCUMENT(list)
READ_DOCUMENT(tiers)
READ_DOCUMENT(sharing)
READ_DOCUMENT(plan)
READ_DOCUMENT(config)

/* The name is the message's. */
static int vm_argument(sd_bus_message *m, bool may_be_empty, const char **ret_vm, char **ret_error)
{
        const char *vm = NULL;
        int r;

        r = sd_bus_message_read_basic(m, 's', &vm);
        if (r < 0)
                return r;
        if (strlen(vm) > VM_NAME_MAX)
                return fail(ret_error, -EINVAL, "the name of the virtual machine is too long");
        if (!*vm && !may_be_empty)
                return fail(ret_error, -EINVAL, "the name of a virtual machine is needed");
        *ret_vm = *vm ? vm : NULL;
        return 0;
}

static int no_such_vm(int r, const char *vm, char **ret_error)
{
        if (r == -ENOENT && vm)
                return fail(ret_error, r, "no virtual machine '%s' is known to ballastd; 'ballastctl list' shows them",
                            vm);
        return r;
}

static int read_show(struct bl_bus *b, sd_bus_message *m, char **ret_text, char **ret_error)
{
        const char *vm = NULL;
        json_t *doc = NULL;
        int r;

        r = vm_argument(m, false, &vm, ret_error);
        if (r < 0)
                return r;
        r = b->ops->show(b->manager, vm, &doc);
        return no_such_vm(give_document(r, doc, ret_text), vm, ret_error);
}

static int read_explain(struct bl_bus *b, sd_bus_message *m, char **ret_text, char **ret_error)
{
        const char *vm = NULL;
        json_t *doc = NULL;
        int r;

        r = vm_argument(m, true, &vm, ret_error);
        if (r < 0)
                return r;
        r = b->ops->explain(b->manager, vm, &doc);
        return no_such_vm(give_document(r, doc, ret_text), vm, ret_error);
}

static int read_metrics(struct bl_bus *b, sd_bus_message *m, char **ret_text, char **ret_error)
{
        (void)m;
        (void)ret_error;
        return b->ops->metrics(b->manager, ret_text);
}

/* ---- changing ---- */

static int one_setting(sd_bus_message *m, struct bl_vm_settings *s, char **ret_error)
{
        static const struct {
                const char *key;
                size_t offset;
        } sizes[] = {
                {"Reservation", offsetof(struct bl_vm_settings, reservation)},
                {"Limit", offsetof(struct bl_vm_settings, limit)},
                {"Shares", offsetof(struct bl_vm_settings, shares)},
        };
        const char *key = NULL, *text = NULL;
        uint64_t t = 0;
        int r, flag = 0;

        r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
                return r;
        if (strcmp(key, "Sharing") == 0) {
                r = sd_bus_message_read(m, "v", "s", &text);
                if (r >= 0)
                        s->sharing = r = bl_metadata_sharing(text);
                return r < 0 ? fail(ret_error, -EINVAL, "setting Sharing must be off, zero or group") : 0;
        }
        if (strcmp(key, "Group") == 0) {
                r = sd_bus_message_read(m, "v", "s", &text);
                if (r < 0 || !bl_metadata_group_ok(text))
                        return fail(ret_error, -EINVAL, "setting Group must be at most %u characters, without blanks",
                                    BL_METADATA_GROUP - 1);
                (void)snprintf(s->group, sizeof(s->group), "%s", text);
                return 0;
        }
        if (strcmp(key, "Managed") == 0) {
                r = sd_bus_message_read(m, "v", "b", &flag);
                if (r >= 0)
                        s->managed = flag ? 1 : 0;
                return r < 0 ? fail(ret_error, -EINVAL, "setting Managed must be a boolean") : 0;
        }
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                if (strcmp(sizes[i].key, key) == 0) {
                        r = sd_bus_message_read(m, "v", "t", &t);
                        if (r < 0)
                                return fail(ret_error, -EINVAL, "setting %s must be of type t", key);
                        if (t == BL_UNSET)
                                return fail(ret_error, -ERANGE, "setting %s is too large", key);
                        memcpy((char *)s + sizes[i].offset, &t, sizeof(t));
                        return 0;
                }
        return fail(ret_error, -EINVAL,
                    "no setting is called '%.64s'; there are Reservation, Limit, Shares, Managed, Sharing, Group", key);
}

static int read_settings(sd_bus_message *m, struct bl_vm_settings *ret, char **ret_error)
{
        struct bl_vm_settings s = BL_VM_SETTINGS_NONE;
        bool any = false;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = one_setting(m, &s, ret_error);
                if (r < 0)
                        return r;
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
                any = true;
        }
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        if (!any)
                return fail(ret_error, -EINVAL, "no setting is given");
        *ret = s;
        return 0;
}

static int change_set_vm(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        struct bl_vm_settings s;
        const char *vm = NULL;
        int r, live = 0, persistent = 0;

        r = vm_argument(m, false, &vm, ret_error);
        if (r < 0)
                return r;
        r = read_settings(m, &s, ret_error);
        if (r < 0)
                return r;
        r = sd_bus_message_read(m, "bb", &live, &persistent);
        if (r < 0)
                return r;
        if (!live && !persistent)
                return fail(ret_error, -EINVAL, "settings must be for the running VM, for its next boot, or for both");
        b->ops->set_vm(b->manager, vm, &s, live, persistent, done, userdata);
        return 0;
}

static int change_balloon(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        const char *vm = NULL;
        uint64_t bytes = 0;
        int r, take = 0;

        r = vm_argument(m, false, &vm, ret_error);
        if (r < 0)
                return r;
        r = sd_bus_message_read(m, "tb", &bytes, &take);
        if (r < 0)
                return r;
        if (bytes == 0 || bytes == BL_UNSET)
                return fail(ret_error, -ERANGE, "a size above nothing is needed");
        b->ops->balloon(b->manager, vm, bytes, take, done, userdata);
        return 0;
}

static int change_hold(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        const char *vm = NULL;
        int r, hold = 0;

        r = vm_argument(m, true, &vm, ret_error);
        if (r < 0)
                return r;
        r = sd_bus_message_read_basic(m, 'b', &hold);
        if (r < 0)
                return r;
        b->ops->hold(b->manager, vm, hold, done, userdata);
        return 0;
}

static int change_drain(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        const char *vm = NULL;
        int r, undo = 0;

        r = vm_argument(m, false, &vm, ret_error);
        if (r < 0)
                return r;
        r = sd_bus_message_read_basic(m, 'b', &undo);
        if (r < 0)
                return r;
        b->ops->drain(b->manager, vm, undo, done, userdata);
        return 0;
}

static int change_ask(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        const char *vm = NULL, *what = NULL;
        uint64_t bytes = 0;
        int r;

        r = vm_argument(m, false, &vm, ret_error);
        if (r < 0)
                return r;
        r = sd_bus_message_read(m, "st", &what, &bytes);
        if (r < 0)
                return r;
        b->ops->ask(b->manager, vm, what, bytes, done, userdata);
        return 0;
}

static int change_resume_sharing(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        (void)m;
        (void)ret_error;
        b->ops->resume_sharing(b->manager, done, userdata);
        return 0;
}

static int change_act(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        int r, on = 0;

        (void)ret_error;
        r = sd_bus_message_read_basic(m, 'b', &on);
        if (r < 0)
                return r;
        b->ops->act(b->manager, on, done, userdata);
        return 0;
}

static int change_rollback(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        (void)m;
        (void)ret_error;
        b->ops->rollback(b->manager, done, userdata);
        return 0;
}

static int change_reload(struct bl_bus *b, sd_bus_message *m, bl_done_fn done, void *userdata, char **ret_error)
{
        _cleanup_free_ char *message = NULL;
        int r;

        (void)m;
        (void)ret_error;
        r = b->ops->reload(b->manager, &message);
        done(userdata, r, message);
        return 0;
}

static const struct bl_method methods[] = {
        {"Status", .read = read_status},
        {"List", .read = read_list},
        {"Show", .read = read_show},
        {"Tiers", .read = read_tiers},
        {"Sharing", .read = read_sharing},
        {"Plan", .read = read_plan},
        {"Explain", .read = read_explain},
        {"Config", .read = read_config},
        {"Metrics", .read = read_metrics},
        {"SetVm", .change = change_set_vm},
        {"Balloon", .change = change_balloon},
        {"Hold", .change = change_hold},
        {"Drain", .change = change_drain},
        {"Ask", .change = change_ask},
        {"ResumeSharing", .change = change_resume_sharing},
        {"Act", .change = change_act},
        {"Rollback", .change = change_rollback},
        {"Reload", .change = change_reload},
};

const struct bl_method *bl_method_find(const char *name)
{
        for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
                if (strcmp(methods[i].name, name) == 0)
                        return &methods[i];
        return NULL;
}
