/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* set, balloon: sizes and weights of one virtual machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <ballast/plan.h>

#include "daemon/bus/errors.h"
#include "daemon/control.h"
#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"
#include "daemon/virt/metadata.h"

static enum ctl_exit parse_size(const struct ctl *c, const char *option, uint64_t *ret)
{
        const char *s = ctl_value(c, option);
        int r;

        if (!s)
                return CTL_OK;
        r = bl_size_parse(s, ret);
        if (r == -ERANGE)
                return ctl_usage(c, "--%s: '%s' is more than there can be", option, s);
        if (r < 0)
                return ctl_usage(c, "--%s: '%s' is no size; give a number with K, M, G or T, as in 512M or 1.5G",
                                 option, s);
        return CTL_OK;
}

/* low, normal and high are so many shares for each MiB that the VM has. */
static enum ctl_exit parse_shares(struct ctl *c, uint64_t *ret)
{
        static const struct {
                const char *word;
                uint64_t per_mib;
        } words[] = {{"low", BL_SHARES_LOW}, {"normal", BL_SHARES_NORMAL}, {"high", BL_SHARES_HIGH}};
        const char *s = ctl_value(c, "shares");
        json_t *d = NULL;
        enum ctl_exit x;

        if (!s || (bl_uint_parse(s, ret) >= 0 && *ret > 0 && *ret < BL_UNSET))
                return CTL_OK;
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (strcmp(words[i].word, s) == 0) {
                        x = ctl_read(c, "Show", c->args[0], &d);
                        if (x != CTL_OK)
                                return x;
                        *ret = bl_max(1, bl_mul_sat(ctl_number(d, "max") / BL_MIB, words[i].per_mib));
                        json_decref(d);
                        return CTL_OK;
                }
        return ctl_usage(c, "--shares: '%s' is neither low, normal, high nor a number above 0", s);
}

static enum ctl_exit parse_settings(struct ctl *c, struct bl_vm_settings *ret)
{
        struct bl_vm_settings s = BL_VM_SETTINGS_NONE;
        const char *manage = ctl_value(c, "manage"), *sharing = ctl_value(c, "sharing");
        const char *group = ctl_value(c, "group");
        enum ctl_exit x;
        bool yes;

        x = parse_size(c, "reservation", &s.reservation);
        if (x != CTL_OK)
                return x;
        x = parse_size(c, "limit", &s.limit);
        if (x != CTL_OK)
                return x;
        if (manage) {
                if (bl_bool_parse(manage, &yes) < 0)
                        return ctl_usage(c, "--manage: '%s' is neither yes nor no", manage);
                s.managed = yes;
        }
        if (sharing) {
                s.sharing = bl_metadata_sharing(sharing);
                if (s.sharing < 0)
                        return ctl_usage(c, "--sharing: '%s' is neither off, zero nor group", sharing);
        }
        if (group && !bl_metadata_group_ok(group))
                return ctl_usage(c, "--group: '%s' is no name for a group: at most %u characters, without blanks",
                                 group, BL_METADATA_GROUP - 1);
        if (group)
                (void)snprintf(s.group, sizeof(s.group), "%s", group);
        if (s.reservation == BL_UNSET && s.limit == BL_UNSET && !manage && !sharing && !group &&
            !ctl_value(c, "shares"))
                return ctl_usage(c, "nothing to set: give --reservation, --limit, --shares, --manage, --sharing or "
                                    "--group");
        x = parse_shares(c, &s.shares); /* last: it may ask the daemon */
        if (x == CTL_OK)
                *ret = s;
        return x;
}

static int append_settings(sd_bus_message *m, const struct bl_vm_settings *s)
{
        const struct {
                const char *key;
                uint64_t value;
        } sizes[] = {{"Reservation", s->reservation}, {"Limit", s->limit}, {"Shares", s->shares}};
        int r = sd_bus_message_open_container(m, 'a', "{sv}");

        for (size_t i = 0; r >= 0 && i < 3; i++)
                if (sizes[i].value != BL_UNSET)
                        r = sd_bus_message_append(m, "{sv}", sizes[i].key, "t", sizes[i].value);
        if (r >= 0 && s->managed >= 0)
                r = sd_bus_message_append(m, "{sv}", "Managed", "b", s->managed);
        if (r >= 0 && s->sharing >= 0)
                r = sd_bus_message_append(m, "{sv}", "Sharing", "s",
                                          bl_share_mode_to_string((enum bl_share_mode)s->sharing));
        if (r >= 0 && *s->group)
                r = sd_bus_message_append(m, "{sv}", "Group", "s", s->group);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static enum ctl_exit send_settings(struct ctl *c, const struct bl_vm_settings *s, bool live, bool persistent,
                                   const char *done, sd_bus_error *e)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        enum ctl_exit x;
        int r;

        x = ctl_new_message(c, "SetVm", &m);
        if (x != CTL_OK)
                return x;
        r = sd_bus_message_append_basic(m, 's', c->args[0]);
        if (r >= 0)
                r = append_settings(m, s);
        if (r >= 0)
                r = sd_bus_message_append(m, "bb", live, persistent);
        if (r < 0) {
                ctl_error("the settings cannot be sent: %s", strerror(-r));
                return CTL_FAILED;
        }
        return ctl_change_message(c, m, done, e);
}

enum ctl_exit ctl_cmd_set(struct ctl *c)
{
        bool live = ctl_value(c, "live") != NULL, persistent = ctl_value(c, "persistent") != NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        struct bl_vm_settings s = {0};
        enum ctl_exit x;

        x = parse_settings(c, &s);
        if (x != CTL_OK)
                return x;
        if (live || persistent)
                return send_settings(c, &s, live, persistent,
                                     live && persistent ? "Set, now and for the next boot."
                                     : live             ? "Set, until the VM ends."
                                                        : "Set for the next boot.",
                                     NULL);
        x = send_settings(c, &s, true, true, "Set, now and for the next boot.", &e);
        if (!sd_bus_error_is_set(&e))
                return x;
        /* transient: it has no next boot */
        if (bl_bus_error_errno(e.name) == -EOPNOTSUPP)
                return send_settings(c, &s, true, false, "Set, until the VM ends: it is transient.", NULL);
        return ctl_say_bus_error(c, 0, &e);
}

enum ctl_exit ctl_cmd_balloon(struct ctl *c)
{
        const char *leave = ctl_value(c, "leave"), *take = ctl_value(c, "take");
        uint64_t bytes = 0;
        enum ctl_exit x;

        if (!leave == !take)
                return ctl_usage(c, "give either --leave SIZE or --take SIZE");
        x = parse_size(c, leave ? "leave" : "take", &bytes);
        if (x != CTL_OK)
                return x;
        if (bytes == 0)
                return ctl_usage(c, "--%s: a size above 0 is needed", leave ? "leave" : "take");
        return ctl_change(c, "Balloon", "Told; the VM is held from now on.", "stb", c->args[0], bytes, take != NULL);
}
