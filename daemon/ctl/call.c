/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/bus/bus.h"
#include "daemon/bus/errors.h"
#include "daemon/ctl/ctl.h"

#define READ_TIMEOUT (30 * BL_SEC)
/* libvirt may take its time; ballastd says when it took too much */
#define CHANGE_TIMEOUT (120 * BL_SEC)

/* errors.h has the table. */
static enum ctl_exit exit_of(int r)
{
        switch (-r) {
        case ENOENT:
                return CTL_NO_SUCH_VM;
        case EPERM:
        case EACCES:
                return CTL_NOT_PERMITTED;
        case EBUSY:
        case EAGAIN:
        case EHOSTDOWN:
        case ESTALE:
        case EOPNOTSUPP:
        case ERANGE:
        case ENOTCONN:
                return CTL_REFUSED;
        case ECONNREFUSED:
        case ECONNRESET:
        case EPIPE:
                return CTL_UNREACHABLE;
        default:
                return CTL_FAILED;
        }
}

enum ctl_exit ctl_say_bus_error(struct ctl *c, int r, const sd_bus_error *e)
{
        bool ours;

        if (!sd_bus_error_is_set(e) || strncmp(e->name, "System.Error.", 13) == 0 ||
            sd_bus_error_has_name(e, "org.freedesktop.DBus.Error.NoReply") ||
            sd_bus_error_has_name(e, "org.freedesktop.DBus.Error.Disconnected")) {
                if (sd_bus_error_is_set(e))
                        r = -sd_bus_error_get_errno(e);
                if (r == -ETIMEDOUT) {
                        ctl_error("ballastd at %s does not answer; see 'systemctl status ballastd'", c->where);
                        return CTL_FAILED;
                }
                /* the connection itself: not what ENOTCONN says of libvirt */
                ctl_error("ballastd at %s ended the connection: %s; is it still running, or has it too many "
                          "connections? (systemctl status ballastd)",
                          c->where, strerror(-r));
                return CTL_UNREACHABLE;
        }
        r = bl_bus_error_errno(e->name);
        ours = strncmp(e->name, BL_BUS_ERROR_PREFIX, strlen(BL_BUS_ERROR_PREFIX)) == 0;
        if (r == -EBADRQC)
                ctl_error("ballastd at %s does not know this call: it is older than ballastctl " BALLAST_VERSION
                          "; restart it (systemctl restart ballastd)",
                          c->where);
        else if (r == -EPERM && !ours)
                ctl_error("not permitted: only root may change anything, and members of group '%s' may read; try with "
                          "sudo",
                          BL_BUS_GROUP); /* the bus says it in its own way */
        else if (r == -EIO && !ours)
                ctl_error("%s: %s", e->name, e->message);
        else
                ctl_error("%s", e->message);
        return exit_of(r);
}

enum ctl_exit ctl_new_message(struct ctl *c, const char *method, sd_bus_message **ret)
{
        enum ctl_exit x;
        int r;

        x = ctl_connect(c);
        if (x != CTL_OK)
                return x;
        r = sd_bus_message_new_method_call(c->bus, ret, BL_BUS_NAME, BL_BUS_PATH, BL_BUS_INTERFACE, method);
        if (r >= 0)
                r = sd_bus_message_set_auto_start(*ret, 0);
        if (r < 0) {
                ctl_error("cannot make the call %s: %s", method, strerror(-r));
                return CTL_FAILED;
        }
        return CTL_OK;
}

static enum ctl_exit call(struct ctl *c, sd_bus_message *m, usec_t timeout, sd_bus_error *leave, char **ret)
{
        _cleanup_(sd_bus_error_free) sd_bus_error e = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *s = NULL;
        char *copy;
        int r;

        r = sd_bus_call(c->bus, m, timeout, &e, &reply);
        if (r < 0 && leave && sd_bus_error_is_set(&e)) {
                (void)sd_bus_error_move(leave, &e);
                return exit_of(bl_bus_error_errno(leave->name));
        }
        if (r < 0)
                return ctl_say_bus_error(c, r, &e);
        r = sd_bus_message_read_basic(reply, 's', &s);
        copy = r < 0 ? NULL : strdup(s);
        if (!copy) {
                ctl_error("cannot read ballastd's answer: %s", strerror(r < 0 ? -r : ENOMEM));
                return CTL_FAILED;
        }
        *ret = copy;
        return CTL_OK;
}

static enum ctl_exit read_text(struct ctl *c, const char *method, const char *vm, char **ret)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        enum ctl_exit x;
        int r;

        x = ctl_new_message(c, method, &m);
        if (x != CTL_OK)
                return x;
        r = vm ? sd_bus_message_append_basic(m, 's', vm) : 0;
        if (r < 0) {
                ctl_error("'%s' cannot be the name of a virtual machine: it is not UTF-8", vm);
                return CTL_USAGE;
        }
        return call(c, m, READ_TIMEOUT, NULL, ret);
}

enum ctl_exit ctl_read_text(struct ctl *c, const char *method, char **ret)
{
        return read_text(c, method, NULL, ret);
}

enum ctl_exit ctl_read(struct ctl *c, const char *method, const char *vm, json_t **ret)
{
        _cleanup_free_ char *text = NULL;
        json_error_t where;
        enum ctl_exit x;
        json_t *doc;

        x = read_text(c, method, vm, &text);
        if (x != CTL_OK)
                return x;
        doc = json_loads(text, 0, &where);
        if (!doc) {
                ctl_error("cannot read ballastd's answer: %s at byte %d", where.text, where.position);
                return CTL_FAILED;
        }
        if (ctl_number(doc, "schema") != BL_SCHEMA_VERSION) {
                ctl_error("ballastd at %s answers with schema %d, this ballastctl knows %d: the two are of different "
                          "versions",
                          c->where, (int)ctl_number(doc, "schema"), BL_SCHEMA_VERSION);
                json_decref(doc);
                return CTL_FAILED;
        }
        ctl_make_safe(doc);
        *ret = doc;
        return CTL_OK;
}

enum ctl_exit ctl_change_message(struct ctl *c, sd_bus_message *m, const char *otherwise, sd_bus_error *e)
{
        _cleanup_free_ char *text = NULL;
        enum ctl_exit x;

        x = call(c, m, CHANGE_TIMEOUT, e, &text);
        if (x == CTL_OK)
                ctl_print_message(c, *text ? text : otherwise);
        return x;
}

enum ctl_exit ctl_change(struct ctl *c, const char *method, const char *otherwise, const char *types, ...)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        enum ctl_exit x;
        va_list ap;
        int r = 0;

        x = ctl_new_message(c, method, &m);
        if (x != CTL_OK)
                return x;
        if (types) {
                va_start(ap, types);
                r = sd_bus_message_appendv(m, types, ap);
                va_end(ap);
        }
        if (r < 0) {
                ctl_error("an argument cannot be sent: %s", r == -EINVAL ? "it is not UTF-8" : strerror(-r));
                return CTL_USAGE;
        }
        return ctl_change_message(c, m, otherwise, NULL);
}
