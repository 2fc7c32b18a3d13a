/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The interface org.ballast1.Manager.  org.ballast1(5) describes it. */
#include "daemon/bus/internal.h"

/* sd-bus leaves the question who may call to us (request.c). */
#define FREE     SD_BUS_VTABLE_UNPRIVILEGED
#define DOCUMENT SD_BUS_RESULT("s", document)
#define MESSAGE  SD_BUS_RESULT("s", message)

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),

        SD_BUS_PROPERTY("Version", "s", bl_property_get, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Acting", "b", bl_property_get, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Held", "b", bl_property_get, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("HostState", "s", bl_property_get, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("BudgetBytes", "t", bl_property_get, 0, 0),
        SD_BUS_PROPERTY("UsedBytes", "t", bl_property_get, 0, 0),
        SD_BUS_PROPERTY("FreeBytes", "t", bl_property_get, 0, 0),

        SD_BUS_METHOD_WITH_ARGS("Status", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("List", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Show", SD_BUS_ARGS("s", vm), DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Tiers", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Sharing", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Plan", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Explain", SD_BUS_ARGS("s", vm), DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Config", SD_BUS_NO_ARGS, DOCUMENT, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Metrics", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", text), bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("SetVm", SD_BUS_ARGS("s", vm, "a{sv}", settings, "b", live, "b", persistent), MESSAGE,
                                bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Balloon", SD_BUS_ARGS("s", vm, "t", bytes, "b", take), MESSAGE, bl_request_handle,
                                FREE),
        SD_BUS_METHOD_WITH_ARGS("Hold", SD_BUS_ARGS("s", vm, "b", hold), MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Drain", SD_BUS_ARGS("s", vm, "b", undo), MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Ask", SD_BUS_ARGS("s", vm, "s", what, "t", bytes), MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("ResumeSharing", SD_BUS_NO_ARGS, MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Act", SD_BUS_ARGS("b", act), MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Rollback", SD_BUS_NO_ARGS, MESSAGE, bl_request_handle, FREE),
        SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, MESSAGE, bl_request_handle, FREE),

        SD_BUS_SIGNAL_WITH_ARGS("HostStateChanged", SD_BUS_ARGS("s", from, "s", to), 0),
        SD_BUS_VTABLE_END,
};

int bl_vtable_add(struct bl_link *l)
{
        return sd_bus_add_object_vtable(l->conn, NULL, BL_BUS_PATH, BL_BUS_INTERFACE, vtable, l);
}
