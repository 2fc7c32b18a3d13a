/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The segments of an ELF core (elf(5), core(5)): what QEMU's dump-guest-memory (`virsh dump --memory-only`), gcore and
 * the kernel write.  Nothing of the file is trusted.  Needs libc only.
 */
#ifndef BALLAST_PAGES_ELFCORE_H
#define BALLAST_PAGES_ELFCORE_H

#include <stddef.h>
#include <stdint.h>

#define BL_ELFCORE_SEGMENTS_MAX (1U << 20) /* a process has at most 65,530 mappings, a guest a few hundred blocks */
#define BL_ELFCORE_SIZE_MAX     (UINT64_C(1) << 52) /* of all segments: x86-64 has no more physical addresses */

/* One PT_LOAD.  filesz <= memsz; no two overlap, neither in the file nor in memory; nothing wraps. */
struct bl_elf_segment {
        uint64_t address; /* physical in a guest's dump, virtual in a process's */
        uint64_t memsz; /* bytes that it had, > 0 */
        uint64_t offset; /* in the file; may lie beyond its end: a truncated core */
        uint64_t filesz; /* bytes that were dumped: the rest was left out, by a filter (core(5), coredump_filter) */
};

/* The file.  read: all `n` bytes at `at`, which lie below `size`, or negative errno. */
struct bl_elf_file {
        int (*read)(void *userdata, void *buf, size_t n, uint64_t at);
        void *userdata;
        uint64_t size;
};

/*
 * In the order of the headers; free() *ret.  `why` gets the end of a sentence ("its header 3 ...") on -EBADMSG (it
 * contradicts itself, or its tables are cut off), -ENOTSUP (32-bit, big-endian, no core) and -ENODATA (no segment
 * with memory).  -ENOMEM, errors of read.
 */
int bl_elfcore_parse(const struct bl_elf_file *f, struct bl_elf_segment **ret, size_t *ret_n, char *why,
                     size_t why_size);

#endif
