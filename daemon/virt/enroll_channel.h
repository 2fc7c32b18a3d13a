/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* enroll.c's table: what the guest agent's channels need.  Private to enrolling. */
#ifndef BALLAST_VIRT_ENROLL_CHANNEL_H
#define BALLAST_VIRT_ENROLL_CHANNEL_H

#include <libxml/tree.h>
#include <stdbool.h>

#include "daemon/virt/enroll.h"
#include "daemon/virt/metadata.h"

struct bl_enroll_target {
        xmlNode *domain, *devices;
        enum bl_enroll_channel channel;
        const struct bl_vm_metadata *swap; /* NULL: as it is */
        bool no_channel, no_swap;
};

xmlNode *bl_enroll_find_channel(const xmlNode *devices);
bool bl_enroll_is_vhost_user(const xmlNode *domain);
/* A sentence, or NULL: it can. */
const char *bl_enroll_why_no_vhost_user(const struct bl_enroll_target *t);

/* 1 changed, 0 was so already or is not for t->channel, negative errno. */
int bl_enroll_add_channel(const struct bl_enroll_target *t);
int bl_enroll_add_vsock(const struct bl_enroll_target *t);
int bl_enroll_change_memory(const struct bl_enroll_target *t);
/* Counts what the ones above, and the balloon, added. */
int bl_enroll_add_root_port(const struct bl_enroll_target *t);
int bl_enroll_choose_vhost_user(const struct bl_enroll_target *t);
int bl_enroll_drop_vhost_user(const struct bl_enroll_target *t);
int bl_enroll_choose_swap(const struct bl_enroll_target *t);
int bl_enroll_drop_swap(const struct bl_enroll_target *t);

#endif
