/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/virt_error.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>

static int error_to_errno(const virError *e)
{
        switch (e->code) {
        case VIR_ERR_NO_DOMAIN:
                return -ENOENT;
        case VIR_ERR_NO_DOMAIN_METADATA:
                return -ENODATA;
        case VIR_ERR_OPERATION_TIMEOUT:
                return -ETIMEDOUT;
        case VIR_ERR_OPERATION_UNSUPPORTED:
        case VIR_ERR_NO_SUPPORT:
        case VIR_ERR_CONFIG_UNSUPPORTED:
        case VIR_ERR_ARGUMENT_UNSUPPORTED:
                return -EOPNOTSUPP;
        case VIR_ERR_ACCESS_DENIED:
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_AUTH_CANCELLED:
        case VIR_ERR_AUTH_UNAVAILABLE:
        case VIR_ERR_OPERATION_DENIED:
                return -EACCES;
        case VIR_ERR_NO_CONNECT:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_RPC:
                return -ENOTCONN;
        case VIR_ERR_NO_MEMORY:
                return -ENOMEM;
        case VIR_ERR_OPERATION_INVALID:
                return -EBUSY;
        case VIR_ERR_INVALID_ARG:
        case VIR_ERR_XML_ERROR:
        case VIR_ERR_XML_DETAIL:
        case VIR_ERR_XML_INVALID_SCHEMA:
                return -EINVAL;
        default:
                /* a broken connection is told in several ways, all from these two */
                return e->domain == VIR_FROM_RPC || e->domain == VIR_FROM_REMOTE ? -ENOTCONN : -EIO;
        }
}

int bl_virt_error(char **ret_message)
{
        const virError *e = virGetLastError();

        if (!e || e->code == VIR_ERR_OK) {
                *ret_message = strdup("libvirt gave no reason");
                return -EIO;
        }
        *ret_message = strdup(e->message ?: "libvirt gave no reason");
        return error_to_errno(e);
}
