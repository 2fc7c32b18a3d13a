/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bus as the daemon uses it: daemon/control.h behind it, notes to the log.
 * Alone in its file, so that tests can do without both. */
#include <errno.h>
#include <grp.h>
#include <string.h>

#include "daemon/bus/bus.h"
#include "daemon/log.h"

static const struct bl_control_ops control_ops = {
        .status = bl_control_status,
        .list = bl_control_list,
        .show = bl_control_show,
        .tiers = bl_control_tiers,
        .sharing = bl_control_sharing,
        .plan = bl_control_plan,
        .explain = bl_control_explain,
        .config = bl_control_config,
        .metrics = bl_control_metrics,
        .set_vm = bl_control_set_vm,
        .balloon = bl_control_balloon,
        .hold = bl_control_hold,
        .drain = bl_control_drain,
        .ask = bl_control_ask,
        .resume_sharing = bl_control_resume_sharing,
        .act = bl_control_act,
        .rollback = bl_control_rollback,
        .reload = bl_control_reload,
};

static void note(void *userdata, int r, const char *sentence)
{
        (void)userdata;
        if (r == 0)
                bl_log_info("%s", sentence);
        else if (r == -ENOENT)
                bl_log(LOG_NOTICE, BL_EV_PLAIN, NULL, NULL, "%s", sentence);
        else
                bl_log_warning("%s (%s)", sentence, strerrordesc_np(-r) ? strerrordesc_np(-r) : "unknown error");
}

/* Once, at the start: before there is anything that must not wait. */
static gid_t readers(void)
{
        char buf[16384];
        struct group g, *found = NULL;

        if (getgrnam_r(BL_BUS_GROUP, &g, buf, sizeof(buf), &found) != 0 || !found)
                return BL_BUS_NO_GROUP;
        return found->gr_gid;
}

int bl_bus_new(sd_event *event, struct bl_manager *m, const char *private_socket_path, bool try_system_bus,
               struct bl_bus **ret)
{
        const struct bl_bus_options o = {
                .socket_path = private_socket_path,
                .system_bus = try_system_bus,
                .group = readers(),
                .ops = &control_ops,
                .note = note,
        };

        return bl_bus_new_with(event, m, &o, ret);
}
