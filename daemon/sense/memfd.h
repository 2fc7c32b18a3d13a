/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest RAM in a memfd that is mapped privately (libvirt: memfd source, private
 * access; what vhost-user needs to describe it).
 *
 * The kernel serves the first write to a page of such a mapping by a page of the
 * file, zeroed, and then a private copy of it (mm/memory.c, do_cow_fault).  The
 * page of the file stays: nobody sees it again, RssShmem does not count it, and
 * up to half of what the guest holds is there twice.  Measured: a guest of 256 MiB
 * that filled 120 held 115 MiB in its memfd beside 238 MiB of its own.
 *
 * The file itself is never written, so it holds zeros only, and a hole reads as
 * zeros too: punching one changes nothing that anybody can see, and leaves
 * private copies alone (mm/shmem.c, shmem_fallocate: unmap_mapping_range without
 * even_cows).
 */
#ifndef BALLAST_SENSE_MEMFD_H
#define BALLAST_SENSE_MEMFD_H

#include <stdint.h>
#include <sys/types.h>

#define BL_MEMFD_MAX  16
#define BL_MEMFD_NAME "/memfd:memory-backend-memfd" /* as QEMU calls it (backends/hostmem-memfd.c) */

/* Which of a VMM's descriptors they are; one a NUMA node or DIMM. */
struct bl_memfds {
        unsigned n;
        int fds[BL_MEMFD_MAX]; /* numbers in the VMM */
};

/* Looks through the descriptors of the process behind `proc_dirfd` (/proc/PID).
 * None is no error.  -ESRCH, -EACCES. */
int bl_memfd_find(int proc_dirfd, struct bl_memfds *ret);

/* Bytes that the files hold; what cannot be asked counts as 0.  Opens nothing. */
uint64_t bl_memfd_held(int proc_dirfd, const struct bl_memfds *f);

/*
 * Frees what the files hold, piece by piece: a piece that is not all zeros is
 * somebody's data (another process maps the file and shares it), and ends it.
 * Blocks for about 0.2 s a GiB: for a worker.  *ret_freed: bytes, also on error.
 * -EBUSY: the VMM maps it shared, or there is data in it: never try again;
 * -ESRCH, -EACCES, others.
 */
int bl_memfd_drop(int proc_dirfd, const struct bl_memfds *f, uint64_t *ret_freed);

#endif
