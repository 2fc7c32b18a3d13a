/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may share equal pages with whom.  Pure.
 *
 * KSM has one tree for the whole host, so one trust group at a time may use it.  The mode of the host (Mode=) is the
 * most that is done for any VM.  A VM says in its metadata what it wants (sharing='off|zero|group'); one that does not
 * say is taken to want `group` where it names a trust group itself, and `zero` where not.  With Group= that group is
 * served; without it all VMs that want `group` must be of one, and where two groups ask nobody is served.
 */
#ifndef BALLAST_DAEMON_SHARE_GROUPS_H
#define BALLAST_DAEMON_SHARE_GROUPS_H

#include <stdbool.h>
#include <stddef.h>

#include <ballast/snapshot.h>

#include "daemon/virt/metadata.h"

/* Of the host. */
struct bl_share_host {
        enum bl_share_mode mode; /* Mode= */
        const char *group; /* Group=; "": none is named */
        const char *default_group; /* of VMs that name none; "": each is on its own */
        bool swap; /* the host has swap: zero pages can go somewhere */
};

/* Of one VM; it must be described. */
struct bl_share_vm {
        int sharing; /* of its metadata: enum bl_share_mode; -1: it does not say */
        const char *group; /* of its metadata; "": it names none */
        bool left_alone; /* its settings are not understood, or say that Ballast is not to manage it */
        bool nosharepages, shared, hugepages, pinned;
        int backends; /* with a `merge` property; -1: not known yet */
};

struct bl_share_verdict {
        enum bl_share_mode asked, mode;
        enum bl_no_share no_share;
        bool zero_possible; /* its zero pages may be paged out, and can be */
        bool loud; /* it asked for `group` by name and does not get it: worth a warning */
        char group[BL_METADATA_GROUP]; /* its trust group; "": none */
};

/* Of all together. */
struct bl_share_groups {
        bool conflict; /* two groups ask, and Group= names none */
        char served[BL_METADATA_GROUP]; /* by KSM; "": none */
        char other[BL_METADATA_GROUP]; /* with `conflict` the second one found, and `served` is empty: `first` */
        char first[BL_METADATA_GROUP];
        char error[320]; /* the conflict as a sentence; "" */
};

/* Judges `n` VMs; `verdicts` has as many. */
void bl_share_judge(const struct bl_share_host *h, const struct bl_share_vm *vms, size_t n,
                    struct bl_share_verdict *verdicts, struct bl_share_groups *ret);

#endif
