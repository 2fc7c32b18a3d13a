// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/virt/monitor.h"

#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <stdlib.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/virt/qmp.h"
#include "daemon/virt/virt_error.h"

#define UNPLUG_LOOK (100 * BL_MSEC)

int bl_monitor(virDomainPtr dom, const char *command, json_t *arguments, int fd, json_t **ret, char **ret_message)
{
        json_t *q = json_pack("{s:s, s:o}", "execute", command, "arguments", arguments);
        _cleanup_free_ char *text = q ? json_dumps(q, JSON_COMPACT) : NULL, *answer = NULL;
        int r;

        json_decref(q);
        if (!text)
                return -ENOMEM;
        if (fd >= 0)
                r = virDomainQemuMonitorCommandWithFiles(dom, text, 1, &fd, NULL, NULL, &answer, 0);
        else
                r = virDomainQemuMonitorCommand(dom, text, &answer, 0);
        return r < 0 ? bl_virt_error(ret_message) : bl_qmp_answer(answer, ret, ret_message);
}

int bl_monitor_ask(virDomainPtr dom, const char *command, json_t *arguments, json_t **ret, char **ret_message)
{
        return bl_monitor(dom, command, arguments, -1, ret, ret_message);
}

int bl_monitor_tell(virDomainPtr dom, const char *command, json_t *arguments, char **ret_message)
{
        return bl_monitor(dom, command, arguments, -1, NULL, ret_message);
}

void bl_monitor_tell_anyway(virDomainPtr dom, const char *command, json_t *arguments)
{
        _cleanup_free_ char *message = NULL;

        (void)bl_monitor_tell(dom, command, arguments, &message);
}

int bl_monitor_unplug(virDomainPtr dom, const char *id, char **ret_message)
{
        _cleanup_free_ char *message = NULL;
        int r = bl_monitor_tell(dom, "device_del", json_pack("{s:s}", "id", id), &message);

        if (r == -ENODEV || r == -EREMOTEIO)
                return 0;
        *ret_message = BL_TAKE(message);
        return r;
}

int bl_monitor_has_device(virDomainPtr dom, const char *id, bool *ret, char **ret_message)
{
        json_t *list = NULL;
        int r = bl_monitor_ask(dom, "qom-list", json_pack("{s:s}", "path", BL_MONITOR_PERIPHERAL), &list, ret_message);

        if (r < 0)
                return r;
        *ret = bl_qmp_has_child(list, id);
        json_decref(list);
        return 0;
}

int bl_monitor_unplug_wait(virDomainPtr dom, const char *id, usec_t limit, bool *ret_there, char **ret_message)
{
        const struct timespec pause = {.tv_nsec = UNPLUG_LOOK * 1000};
        bool there = true;
        int r = bl_monitor_unplug(dom, id, ret_message);

        for (usec_t waited = 0; r == 0 && there && waited < limit; waited += UNPLUG_LOOK) {
                (void)nanosleep(&pause, NULL);
                r = bl_monitor_has_device(dom, id, &there, ret_message);
        }
        if (r == 0)
                *ret_there = there;
        return r;
}
