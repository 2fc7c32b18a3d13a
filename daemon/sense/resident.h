/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Host memory behind one VMM process, from /proc/PID/status (proc(5)).
 *
 * The files are kept open.  A descriptor in /proc/PID belongs to that process
 * and not to the number: when the process is gone every read answers -ESRCH,
 * also when another process has the number by then.  So the number is checked
 * once, when it is opened.
 */
#ifndef BALLAST_SENSE_RESIDENT_H
#define BALLAST_SENSE_RESIDENT_H

#include <sys/types.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/sense/memfd.h"

struct bl_proc_mem {
        uint64_t anon; /* RssAnon */
        uint64_t shmem; /* RssShmem: memfd and other shared memory */
        uint64_t file; /* RssFile: the program itself */
        uint64_t swap; /* VmSwap */
        uint64_t hugetlb; /* HugetlbPages: in none of the others */
        uint64_t locked; /* VmLck */
        uint64_t pinned; /* VmPin */
        uint64_t memfd; /* held by its guest's memory files, mapped now or not (memfd.h) */
};

/* bl_vm.resident: what the balloon can change.  Of what the files hold RssShmem is the mapped part. */
static inline uint64_t bl_proc_mem_resident(const struct bl_proc_mem *m)
{
        return bl_add_sat(m->anon, bl_max(m->shmem, m->memfd));
}

/* -ESRCH: a process without memory (zombie, kernel thread); -EBADMSG. */
int bl_proc_mem_parse(const char *text, struct bl_proc_mem *ret);

struct bl_resident;

/* `start`: the start time that the process must have, 0 for any.
 * -ESRCH: no such process, or another start time: the number is used again. */
int bl_resident_open(const char *root, pid_t pid, uint64_t start, struct bl_resident **ret);
struct bl_resident *bl_resident_free(struct bl_resident *r);
BL_DEFINE_CLEANUP(struct bl_resident *, bl_resident_free)

/* Which memory files it has, looked up again: after its devices changed. */
void bl_resident_refresh(struct bl_resident *r);
const struct bl_memfds *bl_resident_memfds(const struct bl_resident *r);

/* Does not allocate.  -ESRCH: it has ended. */
int bl_resident_read(const struct bl_resident *r, struct bl_proc_mem *ret);

pid_t bl_resident_pid(const struct bl_resident *r);
uint64_t bl_resident_start(const struct bl_resident *r);

/* The descriptor of /proc/PID, for other readers of the same process; owned by `r`. */
int bl_resident_dirfd(const struct bl_resident *r);

#endif
