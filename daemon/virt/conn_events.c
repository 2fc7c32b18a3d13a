/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/conn_events.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "daemon/virt/metadata.h"

static void deliver(virDomainPtr dom, void *opaque, enum bl_virt_event_kind kind, int detail, uint64_t actual)
{
        struct bl_virt_event ev = {.kind = kind, .detail = detail, .actual = actual};

        if (virDomainGetUUID(dom, ev.uuid) < 0)
                return;
        ev.name = virDomainGetName(dom) ?: "";
        bl_conn_deliver(opaque, &ev);
}

static int on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *opaque)
{
        enum bl_virt_event_kind kind = BL_VIRT_OTHER;

        (void)conn;
        switch (event) {
        case VIR_DOMAIN_EVENT_DEFINED:
                kind = BL_VIRT_DEFINED;
                break;
        case VIR_DOMAIN_EVENT_UNDEFINED:
                kind = BL_VIRT_UNDEFINED;
                break;
        case VIR_DOMAIN_EVENT_STARTED:
                kind = BL_VIRT_STARTED;
                break;
        case VIR_DOMAIN_EVENT_SUSPENDED:
                kind = BL_VIRT_SUSPENDED;
                break;
        case VIR_DOMAIN_EVENT_RESUMED:
                kind = BL_VIRT_RESUMED;
                break;
        case VIR_DOMAIN_EVENT_STOPPED:
                kind = BL_VIRT_STOPPED;
                break;
        default: /* libvirt's numbers, not ours */
                detail = event;
        }
        deliver(dom, opaque, kind, detail, BL_UNSET);
        return 0;
}

static void on_reboot(virConnectPtr conn, virDomainPtr dom, void *opaque)
{
        (void)conn;
        deliver(dom, opaque, BL_VIRT_REBOOT, 0, BL_UNSET);
}

static void on_balloon(virConnectPtr conn, virDomainPtr dom, unsigned long long actual, void *opaque)
{
        (void)conn;
        deliver(dom, opaque, BL_VIRT_BALLOON, 0, bl_mul_sat(actual, BL_KIB));
}

static void on_metadata(virConnectPtr conn, virDomainPtr dom, int type, const char *nsuri, void *opaque)
{
        (void)conn;
        if (type == VIR_DOMAIN_METADATA_ELEMENT && nsuri && strcmp(nsuri, BL_METADATA_URI) == 0)
                deliver(dom, opaque, BL_VIRT_METADATA, 0, BL_UNSET);
}

static void on_device_added(virConnectPtr conn, virDomainPtr dom, const char *alias, void *opaque)
{
        (void)conn;
        (void)alias;
        deliver(dom, opaque, BL_VIRT_DEVICE_ADDED, 0, BL_UNSET);
}

static void on_device_removed(virConnectPtr conn, virDomainPtr dom, const char *alias, void *opaque)
{
        (void)conn;
        (void)alias;
        deliver(dom, opaque, BL_VIRT_DEVICE_REMOVED, 0, BL_UNSET);
}

static void on_tunable(virConnectPtr conn, virDomainPtr dom, virTypedParameterPtr params, int n, void *opaque)
{
        (void)conn;
        (void)params;
        (void)n;
        deliver(dom, opaque, BL_VIRT_TUNABLE, 0, BL_UNSET);
}

static void on_migration(virConnectPtr conn, virDomainPtr dom, int iteration, void *opaque)
{
        (void)conn;
        deliver(dom, opaque, BL_VIRT_MIGRATION, iteration, BL_UNSET);
}

static void on_job(virConnectPtr conn, virDomainPtr dom, virTypedParameterPtr params, int n, void *opaque)
{
        (void)conn;
        (void)params;
        (void)n;
        deliver(dom, opaque, BL_VIRT_JOB_DONE, 0, BL_UNSET);
}

int bl_conn_events_register(virConnectPtr conn, struct bl_conn *c, int ret_ids[BL_CONN_EVENTS_MAX], size_t *ret_n,
                            char **ret_message)
{
        const struct {
                int id;
                virConnectDomainEventGenericCallback cb;
        } wanted[] = {
                /* first the one that cannot be done without */
                {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle)},
                {VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot)},
                {VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_balloon)},
                {VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_metadata)},
                {VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_device_added)},
                {VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_device_removed)},
                {VIR_DOMAIN_EVENT_ID_TUNABLE, VIR_DOMAIN_EVENT_CALLBACK(on_tunable)},
                {VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, VIR_DOMAIN_EVENT_CALLBACK(on_migration)},
                {VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, VIR_DOMAIN_EVENT_CALLBACK(on_job)},
        };
        size_t n = 0;

        _Static_assert(sizeof(wanted) / sizeof(wanted[0]) <= BL_CONN_EVENTS_MAX, "too many events");
        for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
                int id = virConnectDomainEventRegisterAny(conn, NULL, wanted[i].id, wanted[i].cb, c, NULL);

                if (id >= 0) {
                        ret_ids[n++] = id;
                        continue;
                }
                if (i == 0)
                        return bl_virt_error(ret_message);
                virResetLastError(); /* an older libvirtd does not know it */
        }
        *ret_n = n;
        return 0;
}

const char *bl_virt_event_to_string(enum bl_virt_event_kind k)
{
        switch (k) {
        case BL_VIRT_STARTED:
                return "started";
        case BL_VIRT_STOPPED:
                return "stopped";
        case BL_VIRT_SUSPENDED:
                return "suspended";
        case BL_VIRT_RESUMED:
                return "resumed";
        case BL_VIRT_DEFINED:
                return "defined";
        case BL_VIRT_UNDEFINED:
                return "undefined";
        case BL_VIRT_OTHER:
                return "other";
        case BL_VIRT_REBOOT:
                return "reboot";
        case BL_VIRT_BALLOON:
                return "balloon";
        case BL_VIRT_METADATA:
                return "metadata";
        case BL_VIRT_DEVICE_ADDED:
                return "device-added";
        case BL_VIRT_DEVICE_REMOVED:
                return "device-removed";
        case BL_VIRT_TUNABLE:
                return "tunable";
        case BL_VIRT_MIGRATION:
                return "migration";
        case BL_VIRT_JOB_DONE:
                return "job-done";
        case _BL_VIRT_EVENT_MAX:
                break;
        }
        return NULL;
}
