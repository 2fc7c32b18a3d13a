/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/errors.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
        int error;
        const char *name;
        const char *sentence;
} errors[] = {
        /* The first line for an errno names it; the first for a name gives its errno. */
        {ENOENT, BL_BUS_ERROR_PREFIX "NoSuchVm", "no such virtual machine is known to ballastd"},
        {EPERM, BL_BUS_ERROR_PREFIX "NotPermitted", "not permitted"},
        {EACCES, BL_BUS_ERROR_PREFIX "NotPermitted", "not permitted"},
        {EBUSY, BL_BUS_ERROR_PREFIX "Busy", "something else is under way; try again in a moment"},
        {EAGAIN, BL_BUS_ERROR_PREFIX "Busy", "not known yet; try again in a moment"},
        {EHOSTDOWN, BL_BUS_ERROR_PREFIX "NotAnswering", "the virtual machine does not answer libvirt"},
        {ESTALE, BL_BUS_ERROR_PREFIX "State", "not possible in the state it is in now"},
        {EOPNOTSUPP, BL_BUS_ERROR_PREFIX "NotSupported", "this virtual machine or host cannot do that"},
        {ERANGE, BL_BUS_ERROR_PREFIX "OutOfRange", "the value is out of range"},
        {ENOTCONN, BL_BUS_ERROR_PREFIX "NoLibvirt", "libvirt is not connected"},
        {ETIMEDOUT, BL_BUS_ERROR_PREFIX "Timeout", "no answer in time"},
        {EINVAL, BL_BUS_ERROR_PREFIX "InvalidArgument", "invalid argument"},
        {ENOMEM, BL_BUS_ERROR_PREFIX "NoMemory", "out of memory"},
        /* what a bus says itself */
        {EPERM, "org.freedesktop.DBus.Error.AccessDenied", NULL},
        {EPERM, "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", NULL},
        {ECONNREFUSED, "org.freedesktop.DBus.Error.ServiceUnknown", NULL},
        {ECONNREFUSED, "org.freedesktop.DBus.Error.NameHasNoOwner", NULL},
        {ETIMEDOUT, "org.freedesktop.DBus.Error.NoReply", NULL},
        {ETIMEDOUT, "org.freedesktop.DBus.Error.Timeout", NULL},
        {ENOMEM, "org.freedesktop.DBus.Error.NoMemory", NULL},
        {EINVAL, "org.freedesktop.DBus.Error.InvalidArgs", NULL},
        {EBADRQC, "org.freedesktop.DBus.Error.UnknownMethod", NULL},
};

#define N_ERRORS (sizeof(errors) / sizeof(errors[0]))

static int positive(int r)
{
        return r < 0 ? -r : r;
}

const char *bl_bus_error_name(int r)
{
        for (size_t i = 0; i < N_ERRORS; i++)
                if (errors[i].sentence && errors[i].error == positive(r))
                        return errors[i].name;
        return BL_BUS_ERROR_PREFIX "Failed";
}

int bl_bus_error_errno(const char *name)
{
        for (size_t i = 0; name && i < N_ERRORS; i++)
                if (strcmp(errors[i].name, name) == 0)
                        return -errors[i].error;
        return -EIO;
}

const char *bl_bus_error_sentence(int r)
{
        const char *s;

        for (size_t i = 0; i < N_ERRORS; i++)
                if (errors[i].sentence && errors[i].error == positive(r))
                        return errors[i].sentence;
        s = strerrordesc_np(positive(r));
        return s ? s : "unknown error";
}
