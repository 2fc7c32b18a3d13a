/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A CONFIRM job.  An item is a page that is read: one that has its second look, one that stands for a class that was
 * compared before, or one that maps a merged frame.  Items of one hash are a group, read at one time and compared with
 * each other: those that are equal byte for byte are a part.
 */
#ifndef BALLAST_PAGES_EVIDENCE_CONFIRM_H
#define BALLAST_PAGES_EVIDENCE_CONFIRM_H

#include "daemon/pages/evidence_job.h"

#define BL_EV_BATCH 128U /* pages read at a time; items of a group at most */

enum bl_ev_result {
        BL_EV_NOT_READ, /* its VM failed */
        BL_EV_MOVED, /* is in `state` now, which is not what it was */
        BL_EV_LOST, /* could not be read */
        BL_EV_CHANGED, /* has other bytes */
        BL_EV_SAME, /* as at the first look; in `part` */
};

struct bl_ev_item {
        uint64_t page;
        uint64_t frame; /* merged: that it mapped */
        uint64_t moved_to; /* MOVED to another: that it maps now */
        uint64_t hash; /* of a frame that was read for the first time: found */
        uint32_t vm; /* of the job's */
        uint8_t class; /* that it stands for; 0: none */
        bool merged;
        uint8_t result, state, part; /* part: from 1 */
};

struct bl_ev_items {
        uint64_t hash;
        uint32_t first, n;
        bool unread; /* one page of a frame whose content is not known */
};

struct bl_ev_confirm_vm {
        struct bl_source *source;
        uint64_t id, generation;
        int error;
};

struct bl_ev_confirm {
        struct bl_evidence_job job;
        struct bl_ev_confirm_vm *vms;
        struct bl_ev_item *items;
        struct bl_ev_items *groups;
        size_t n_vms, n_items, n_groups, room;
};

void bl_ev_confirm_run(struct bl_evidence_job *job);

#endif
