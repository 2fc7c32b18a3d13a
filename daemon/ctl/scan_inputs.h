/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What `ballastctl scan` reads: running VMs, processes, dumps; each opened before anything is read, so that what is
 * wrong with one is said at once.
 */
#ifndef BALLAST_CTL_SCAN_INPUTS_H
#define BALLAST_CTL_SCAN_INPUTS_H

#include <libvirt/libvirt.h>

#include <ballast/cleanup.h>

#include "daemon/ctl/ctl.h"
#include "daemon/pages/scan.h"

#define CTL_SCAN_MAX BL_SCAN_SOURCES_MAX

enum ctl_scan_kind { CTL_SCAN_VM, CTL_SCAN_PROCESS, CTL_SCAN_DUMP };

struct ctl_scan_input {
        enum ctl_scan_kind kind;
        char *name; /* for people: harmless to a terminal, UTF-8 */
        char *uuid; /* of a VM */
        char *path; /* of a dump, as it was given */
        pid_t pid; /* 0: a dump */
        uint64_t start; /* of the process, /proc/PID/stat */
        dev_t dev; /* of a dump, with ino: two names of one file */
        ino_t ino;
        struct bl_source *source;
};

struct ctl_scan_left_out {
        char *name;
        char *why; /* a whole sentence, which names it */
};

struct ctl_scan_inputs {
        size_t n;
        struct ctl_scan_input *input;
        size_t n_left_out; /* asked for, or running, and not there to be read */
        struct ctl_scan_left_out *left_out;
        bool all; /* nothing was named: all running VMs */
        virConnectPtr conn; /* where VMs are among them; NULL */
};

/*
 * Opens what the command line names.  CTL_OK, or what is wrong has been said: CTL_USAGE, CTL_UNREACHABLE (libvirt),
 * CTL_NO_SUCH_VM, CTL_NOT_PERMITTED, CTL_REFUSED (a VM does not run, none does), CTL_FAILED.
 * Of all running VMs those that cannot be opened are left out.  `again`: a later round of --watch: so is what has
 * ended meanwhile, and nothing to read is no error.
 */
enum ctl_exit ctl_scan_open(struct ctl *c, bool again, struct ctl_scan_inputs *ret);
void ctl_scan_close(struct ctl_scan_inputs *i);

/* A new input; takes over what `in` holds, also on failure.  CTL_USAGE: that memory is named already, CTL_FAILED. */
enum ctl_exit ctl_scan_add(struct ctl *c, struct ctl_scan_inputs *i, struct ctl_scan_input *in);
void ctl_scan_leave_out(struct ctl_scan_inputs *i, const char *name, const char *why);
void ctl_scan_input_clear(struct ctl_scan_input *in);

/* After the scan: what was paused or stopped when it was opened, and runs now, was not still (source->still). */
void ctl_scan_recheck(struct ctl_scan_inputs *i);

/* "VM", "process" or "dump", and "source" where they are mixed. */
const char *ctl_scan_noun(const struct ctl_scan_inputs *i, bool many);

#endif
