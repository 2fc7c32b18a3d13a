/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what the agent reports: /proc/meminfo, /proc/vmstat, from Linux 4.20 on
 * /proc/pressure/memory, and whether zswap is on.  The files are opened once and read again
 * from their start, so that a report needs no allocation, no free descriptor
 * and no path.  What a kernel does not have stays BL_UNSET.
 */
#ifndef BALLAST_GUEST_REPORT_H
#define BALLAST_GUEST_REPORT_H

#include <ballast/wire.h>

struct guest_reader {
        int meminfo;
        int vmstat; /* -1: not there */
        int psi; /* -1: not there */
        int zswap; /* is it on; -1: not there */
        uint64_t page; /* bytes */
        int64_t drift; /* bytes by which free memory grew between the two files of the last report */
        char text[16384]; /* one file; vmstat of Linux 6.18 is 4 KiB */
};

/* `root` is put before each path; "" for the real one.  Negative errno if
 * meminfo cannot be opened: without it there is nothing to say. */
int guest_reader_open(struct guest_reader *r, const char *root);
void guest_reader_close(struct guest_reader *r);

/* One report, all but the sequence number and swap on the store.  -ENODATA: nothing could be read. */
int guest_reader_read(struct guest_reader *r, struct bl_wire_stats *ret);

/* The same without pressure and time, for a look in between. */
int guest_reader_glance(struct guest_reader *r, struct bl_wire_stats *ret);

/* Who we are.  What cannot be found out is left empty. */
void guest_identity(const struct guest_reader *r, const char *root, struct bl_wire_hello *ret);

/* The parts, for tests: a text that need not end in NUL; lines that are not
 * understood are passed over, as is a last line without its end. */
void guest_parse_meminfo(const char *text, size_t size, struct bl_wire_stats *stats);
void guest_parse_vmstat(const char *text, size_t size, uint64_t page, struct bl_wire_stats *stats);
void guest_parse_psi(const char *text, size_t size, struct bl_wire_stats *stats);

/* 16 bytes from "xxxxxxxx-xxxx-...".  False, and zeros, if it is no such thing. */
bool guest_parse_uuid(const char *text, size_t size, uint8_t ret[16]);

#endif
