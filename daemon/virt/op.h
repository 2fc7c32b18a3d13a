/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One asynchronous question to libvirt: what all of domain.h's calls have in
 * common.  Embedded as the first member of each call's own struct.  Private to
 * daemon/virt.
 */
#ifndef BALLAST_VIRT_OP_H
#define BALLAST_VIRT_OP_H

#include "daemon/virt/domain.h"

struct bl_op {
        struct bl_conn *c;
        bool has_uuid;
        uint8_t uuid[BL_UUID_LEN];
        bool has_instance; /* look whether it is stopped before asking */
        struct bl_instance instance;

        /* In a worker.  dom is NULL unless has_uuid.  Returns 0 or negative
         * errno, with *ret_message where there is one. */
        int (*run)(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message);
        /* On the loop.  Calls the user's callback; frees its own struct. */
        void (*done)(struct bl_op *op, int r, const char *message);

        /* op.c's */
        int r;
        char *message;
};

void bl_op_init(struct bl_op *op, struct bl_conn *c, const uint8_t *uuid, const struct bl_instance *instance);

/* On failure the op stays the caller's. */
int bl_op_submit(struct bl_op *op);
/* The same for one that holds nothing: free()s it on failure. */
int bl_op_submit_or_free(struct bl_op *op);

/* One whose callback is told no more than how it went. */
struct bl_done_op {
        struct bl_op op;
        bl_domain_done_fn fn;
        void *userdata;
};
/* `fn` may be NULL.  -ENOMEM, and as bl_op_submit; then nothing is left of it. */
int bl_op_submit_done(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *instance,
                      int (*run)(struct bl_op *op, virConnectPtr conn, virDomainPtr dom, char **ret_message),
                      bl_domain_done_fn fn, void *userdata);

/* In a worker: state and balloon statistics by one call. */
int bl_op_read_state(virDomainPtr dom, struct bl_domain_state *ret, char **ret_message);
/* In a worker: the balloon's size by QEMU itself.  What the call above gives is
 * libvirt's memory of the last BALLOON_CHANGE, up to a second old.  Errors
 * leave `s` as it is. */
void bl_op_read_actual(virDomainPtr dom, struct bl_domain_state *s);
/* In a worker: is a migration, save or dump under way?  Errors count as no. */
bool bl_op_migrating(virDomainPtr dom);

#endif
