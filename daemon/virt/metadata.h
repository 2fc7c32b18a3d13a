/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VM's own settings, kept in its domain's <metadata>:
 *
 *      <ballast:memory xmlns:ballast='urn:org.ballast1:vm:1'
 *              reservation='256MiB' limit='2GiB' shares='normal' manage='yes'
 *              channel='vhost-user-vsock' swap='1GiB' group='web' swap-limit='256MiB' sharing='group'/>
 *
 * Every attribute is optional.  Sizes: a number with B, KiB, MiB, GiB or TiB
 * (K, M, G, T mean the same; a bare number is bytes).  shares: low, normal,
 * high (5, 10, 20 per MiB configured, as in ESX) or a number.  manage: yes, no.
 * channel: auto (by what the domain has), vhost-user-vsock (ballastd plugs such
 * a device in at each start).  swap: size of its swap on ballast-store, or 'auto' (1.25 times
 * the planned squeeze: what lies between its memory and its reservation); absent: none.  group: the trust group
 * that it shares pages with; absent: DefaultGroup= of ballast.conf, or none.  swap-limit: host memory
 * that its swap may take before it goes to the disk tier.  sharing: off, zero (its pages full of zeros only),
 * group (equal pages of it and of its trust group are kept once, by KSM); absent: group where `group` is given,
 * otherwise zero; never more than Mode= of ballast.conf.
 */
#ifndef BALLAST_VIRT_METADATA_H
#define BALLAST_VIRT_METADATA_H

#include <libxml/tree.h>
#include <stdbool.h>

#include <ballast/snapshot.h>
#include <ballast/units.h>

#define BL_METADATA_URI "urn:org.ballast1:vm:1"
#define BL_METADATA_KEY "ballast"

#define BL_SHARES_LOW    5
#define BL_SHARES_NORMAL 10
#define BL_SHARES_HIGH   20

enum bl_shares_kind {
        BL_SHARES_KIND_UNSET,
        BL_SHARES_KIND_LOW,
        BL_SHARES_KIND_NORMAL,
        BL_SHARES_KIND_HIGH,
        BL_SHARES_KIND_NUMBER,
};

#define BL_CHANNEL_NAME_VHOST_USER_VSOCK "vhost-user-vsock"

enum bl_channel_kind {
        BL_CHANNEL_UNSET,
        BL_CHANNEL_AUTO,
        BL_CHANNEL_VHOST_USER_VSOCK,
};

#define BL_SWAP_AUTO      UINT64_C(0)
#define BL_METADATA_GROUP 64U /* bytes with NUL: printable ASCII without blanks; BL_STORE_GROUP */

struct bl_vm_metadata {
        uint64_t reservation; /* BL_UNSET: not given */
        uint64_t limit;
        enum bl_shares_kind shares_kind;
        uint64_t shares; /* for NUMBER */
        int manage; /* 1, 0; -1 not given */
        enum bl_channel_kind channel;
        uint64_t swap; /* bytes; BL_SWAP_AUTO; BL_UNSET: none */
        uint64_t swap_limit; /* BL_UNSET: none */
        char group[BL_METADATA_GROUP]; /* "": not given */
        int sharing; /* enum bl_share_mode; -1: not given */
};

#define BL_VM_METADATA_NONE                                                                                    \
        {                                                                                                      \
                .reservation = BL_UNSET, .limit = BL_UNSET, .shares_kind = BL_SHARES_KIND_UNSET, .manage = -1, \
                .swap = BL_UNSET, .swap_limit = BL_UNSET, .sharing = -1,                                       \
        }

/* Parses the element.  -EINVAL with *ret_message (allocated; says which
 * attribute, what is wrong and how to mend it); `ret` is then untouched.  An
 * unknown attribute or child is an error too: a typing mistake must not pass
 * for a setting. */
int bl_vm_metadata_parse_node(const xmlNode *element, struct bl_vm_metadata *ret, char **ret_message);
int bl_vm_metadata_parse(const char *xml, struct bl_vm_metadata *ret, char **ret_message);

/* The element's text for virDomainSetMetadata (without the prefix, which
 * libvirt adds); NULL in *ret when nothing is set: the element is to be removed. */
int bl_vm_metadata_format(const struct bl_vm_metadata *m, char **ret);

/* Shares in force for a VM with `max` bytes configured; unset counts as normal. */
uint64_t bl_vm_metadata_shares(const struct bl_vm_metadata *m, uint64_t max);

/* Size of its swap on the store for a VM with `max` bytes configured, whole MiB; 0: it is to have none. */
uint64_t bl_vm_metadata_swap(const struct bl_vm_metadata *m, uint64_t max, uint64_t reservation);

/* May it be a trust group's name? */
bool bl_metadata_group_ok(const char *name);

/* The value of `sharing`, "off", "zero" or "group"; negative: it is none of these. */
int bl_metadata_sharing(const char *value);

/* Lays the fields of `over` that are given over `m`. */
void bl_vm_metadata_merge(struct bl_vm_metadata *m, const struct bl_vm_metadata *over);

#endif
