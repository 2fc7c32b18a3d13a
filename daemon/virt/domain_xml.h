/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a domain's XML says that matters to Ballast.  Pure: text in, struct out.
 */
#ifndef BALLAST_VIRT_DOMAIN_XML_H
#define BALLAST_VIRT_DOMAIN_XML_H

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

#include "daemon/virt/metadata.h"

#define BL_AGENT_CHANNEL "org.ballast.agent.0"

/* What its memory is laid out like. */
enum bl_machine {
        BL_MACHINE_OTHER,
        BL_MACHINE_PC, /* i440fx */
        BL_MACHINE_Q35,
};

struct bl_domain_info {
        uint8_t uuid[BL_UUID_LEN];
        char *name;
        int id; /* -1 in an inactive XML */
        char *type; /* kvm, qemu, test */
        enum bl_machine machine;

        uint64_t memory; /* <memory>, bytes */
        uint64_t current; /* <currentMemory>; == memory where absent */

        bool balloon; /* a virtio balloon device is there */
        bool autodeflate; /* deflate-on-oom */
        bool free_page_reporting;
        unsigned stats_period; /* seconds; 0: off */

        unsigned hostdevs; /* passed-through devices that pin memory (PCI, mdev) */
        bool hugepages;
        bool locked;
        bool confidential; /* launchSecurity */
        bool memfd; /* memoryBacking source memfd or file: not anonymous memory */
        bool shared; /* access mode shared, which is a memfd's default */
        bool nosharepages; /* <nosharepages/>: its pages are never to be merged */
        bool memory_fd; /* its memory has a descriptor, so that a vhost-user backend can be plugged in */

        char *agent_path; /* host side of the channel org.ballast.agent.0, or NULL */
        char *agent_state; /* "connected", "disconnected" or NULL */
        uint32_t vsock_cid; /* 0: none */

        bool has_metadata;
        struct bl_vm_metadata metadata; /* BL_VM_METADATA_NONE when absent or bad */
        char *metadata_error; /* why it was not understood, with the mend; or NULL */
};

/* -EINVAL with *ret_message for what is no domain XML (no name, uuid or
 * memory), -ENOMEM. */
int bl_domain_info_parse(const char *xml, struct bl_domain_info *ret, char **ret_message);

/* Frees what it holds, leaves it zeroed; NULL-safe; returns NULL. */
struct bl_domain_info *bl_domain_info_clear(struct bl_domain_info *i);

/* Can its balloon free host memory, ever? */
enum bl_no_reclaim bl_domain_info_no_reclaim(const struct bl_domain_info *i);

/* Does QEMU give a descriptor to the memory of a domain with this <memoryBacking> (NULL: none)? */
bool bl_backing_has_fd(const xmlNode *backing);

/* Bytes of an XML size: number text and unit attribute (NULL: KiB, libvirt's
 * default).  -EINVAL, -ERANGE. */
int bl_xml_size(const char *number, const char *unit, uint64_t *ret);

#endif
