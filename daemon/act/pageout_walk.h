/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How one VMM's guest memory is paged out, slice by slice: the part of the
 * page-out engine that runs in a worker.
 *
 * Where the VM has a memory cgroup of its own (v2, with memory.reclaim) the
 * kernel chooses: it knows what the guest touched (KVM tells it by the MMU
 * notifiers), so the coldest goes first.  Elsewhere process_madvise(2) with
 * MADV_PAGEOUT takes what it is given, hot or cold: it reclaims without asking who
 * used a page.  There the walk goes round through the RAM, and learns what is hot
 * from what came back: /proc/PID/pagemap tells which pages are there.  A slice
 * of which more than a quarter has come back rests, twice as long each time.
 */
#ifndef BALLAST_ACT_PAGEOUT_WALK_H
#define BALLAST_ACT_PAGEOUT_WALK_H

#include <stdatomic.h>
#include <sys/types.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define BL_WALK_SLICE (2 * BL_MIB)
/* A slice that was paged out is not looked at again before; doubles up to the last. */
#define BL_WALK_REST     (60 * BL_SEC)
#define BL_WALK_REST_MAX (3600 * BL_SEC)

struct bl_walk;

struct bl_walk_options {
        const char *root; /* of /proc/PID/cgroup's cgroup file system only; NULL: none */
        /* process_madvise(MADV_PAGEOUT) of one range; NULL: the kernel's.  Bytes taken on, or negative errno. */
        int64_t (*advise)(int pidfd, uint64_t start, uint64_t size);
};

/* The process `pid`, whose /proc/PID is `dirfd` (duplicated); `guest_ram` as in guest_ram.h.  -ENOMEM, -EMFILE. */
int bl_walk_new(const struct bl_walk_options *o, pid_t pid, int dirfd, uint64_t guest_ram, struct bl_walk **ret);
struct bl_walk *bl_walk_free(struct bl_walk *w);
BL_DEFINE_CLEANUP(struct bl_walk *, bl_walk_free)

struct bl_walk_result {
        uint64_t freed; /* bytes by which the VMM's resident memory fell */
        uint64_t tried; /* bytes that the kernel was asked to page out */
        uint64_t rested; /* bytes that were passed by since they came back the last time */
        usec_t cpu; /* of this thread */
        usec_t took;
        bool round; /* all of it was looked at: there is nothing more that is cold */
        /* 0; -ESRCH: it ended; -EBUSY: its process is stopped; -EOPNOTSUPP: its RAM is a shared mapping, or locked;
         * -ENODATA: no mapping looks like guest RAM; errors of the kernel */
        int error;
};

/*
 * Pages out up to `bytes` of it, for at most `time`, on half of a CPU: after
 * each slice it sleeps as long as the slice took.  Ends at once when *stop is set.
 * In a worker; one call at a time.
 */
void bl_walk_run(struct bl_walk *w, uint64_t bytes, usec_t time, const atomic_bool *stop, struct bl_walk_result *ret);

/* The VM's own memory cgroup by the process's /proc/PID/cgroup: the path below /sys/fs/cgroup of the scope or
 * "NAME.libvirt-qemu" directory that libvirt made for it.  false: it has none that is surely its own. */
bool bl_walk_cgroup(const char *text, char *ret, size_t size);

/* It is asked of the kernel by its cgroup. */
bool bl_walk_by_cgroup(const struct bl_walk *w);

#endif
