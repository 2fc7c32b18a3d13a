/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain's persistent XML made ready for Ballast.  Pure; everything that is
 * not Ballast's business is kept as it is.
 *
 * What can be added is a table of peers in enroll.c (a name, a sentence, a
 * function); a new one is one entry there and one flag here.
 */
#ifndef BALLAST_VIRT_ENROLL_H
#define BALLAST_VIRT_ENROLL_H

#include <stdbool.h>

struct bl_vm_metadata;

enum bl_enroll_channel {
        BL_ENROLL_VIRTIO_SERIAL, /* a port org.ballast.agent.0 */
        /* that, as the way to fall back to, and the kernel's <vsock> with a CID of libvirt's choice */
        BL_ENROLL_VHOST_VSOCK,
        /* The port too, private memfd memory (unless its memory has a descriptor already), a root port to plug
         * into where the machine is q35, and channel='vhost-user-vsock' in the metadata.  *ret_message says what it
         * costs: QEMU can neither migrate nor save such a VM.  Refused where it cannot work. */
        BL_ENROLL_VHOST_USER_VSOCK,
};

struct bl_enroll_options {
        enum bl_enroll_channel channel; /* what the caller found to be the default, or was told */
        bool chosen; /* it was told: if not, a VM that was given to vhost-user-vsock stays so */
        bool no_autodeflate; /* leave deflate-on-oom as it is */
        bool no_free_page_reporting; /* leave it as it is */
        bool no_channel; /* none of these */
        const struct bl_vm_metadata *swap; /* swap, swap_limit and group, where given; NULL: all as they are */
        bool no_swap; /* takes these out */
};

/*
 * 1: *ret_new is the changed XML; 0: nothing to change, *ret_new untouched;
 * -EINVAL not a domain XML, -EOPNOTSUPP not a QEMU/KVM domain, or not one for the
 * channel, -ENOMEM; all with *ret_message (allocated).  On 1 *ret_message says what was changed, one
 * sentence a line.  `o` may be NULL.  ret_message may be NULL.
 */
int bl_enroll_xml(const char *xml, const struct bl_enroll_options *o, char **ret_new, char **ret_message);

/* The opposite: takes away the agent channel, swap on the store and vhost-user-vsock (the balloon
 * options, <vsock> and the memfd stay; they are harmless).  Same results. */
int bl_unenroll_xml(const char *xml, char **ret_new, char **ret_message);

#endif
