/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What ballastd says to ballast-store and hears from it, over a SOCK_SEQPACKET
 * Unix socket that only root may use (SO_PEERCRED is checked too): fixed
 * structures, one request and then its answers.  Both ends are of one installation;
 * the magic tells versions apart.  Any number of clients, many requests a connection, one at
 * a time on each.
 */
#ifndef BALLAST_STORE_CONTROL_H
#define BALLAST_STORE_CONTROL_H

#include "daemon/store/store.h"

#define BL_STORE_CONTROL_DEFAULT "/run/ballast-store/control.sock"
#define BL_STORE_NBD_DEFAULT     "/run/ballast-store/nbd.sock"
#define BL_STORE_CONTROL_MAGIC   UINT32_C(0x42531001) /* changes with the structures */

enum bl_store_op {
        BL_STORE_OP_STATUS = 1, /* a reply with figures, then replies with VMs, `more` set in all but the last */
        BL_STORE_OP_REGISTER, /* `registration`; the reply's figures tell why -ENOSPC */
        BL_STORE_OP_FORGET, /* registration.uuid */
        BL_STORE_OP_RESERVE, /* `bytes`; answered at once, done in the background: pool_ready tells */
        _BL_STORE_OP_MAX,
};

struct bl_store_request {
        uint32_t magic;
        uint32_t op;
        uint64_t bytes;
        struct bl_store_registration registration;
};

#define BL_STORE_REPLY_VMS    32U
#define BL_STORE_REPLY_EVENTS 8U

struct bl_store_reply {
        uint32_t magic;
        int32_t status; /* 0 or negative errno */
        uint32_t more; /* another packet follows */
        uint32_t n_vms;
        struct bl_store_figures figures; /* in the first packet of an answer */
        uint64_t fixed; /* bytes of the process that do not grow with what is held: code, stacks, buffers */
        uint64_t events_lost; /* events that nobody fetched in time */
        uint32_t n_events; /* of BL_STORE_OP_STATUS: what happened since it was asked last */
        struct bl_store_event events[BL_STORE_REPLY_EVENTS];
        struct bl_store_vm vms[BL_STORE_REPLY_VMS];
};

#endif
