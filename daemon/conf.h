/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballast.conf: where settings come from, and what they are.
 *
 * As systemd does: the main file is the first found of
 *     /etc/ballast/ballast.conf, /run/ballast/ballast.conf, /usr/lib/ballast/ballast.conf
 * then the *.conf files of ballast.conf.d/ in all three directories, sorted by
 * name; of equal names only the one in /etc counts, then /run, then /usr/lib; a
 * link to /dev/null or an empty file masks.  Later settings win.  One table in
 * conf.c (key, type, bounds, default, a line of documentation) drives parsing,
 * defaults, listing and the tests of the man page and the shipped file.
 */
#ifndef BALLAST_DAEMON_CONF_H
#define BALLAST_DAEMON_CONF_H

#include <stddef.h>

#include <ballast/cleanup.h>
#include <ballast/config.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

enum bl_budget_kind {
        BL_BUDGET_RAM, /* all of the host's memory, judged by MemAvailable */
        BL_BUDGET_SIZE, /* so many bytes for guests and our own stores */
        BL_BUDGET_PERCENT, /* so much of the host's memory, then as a size */
};

struct bl_budget_conf {
        enum bl_budget_kind kind;
        uint64_t bytes; /* SIZE */
        permyriad_t ratio; /* PERCENT */
};

struct bl_conf {
        /* [daemon] */
        char *libvirt_uri; /* qemu:///system */
        char *libvirt_run_dir; /* /run/libvirt/qemu: NAME.pid */
        char *vsock_control; /* where ballast-vsock is asked for a backend */
        char *state_dir; /* /var/lib/ballast */
        char *runtime_dir; /* /run/ballast; the private socket is its ballast.sock */
        bool act; /* no: only say what would be done */
        int log_level; /* a syslog priority */

        /* [host] */
        struct bl_budget_conf budget;
        usec_t sample_min; /* bounds of the fast path's interval: sense/sampler.h */
        usec_t sample_max;
        bool psi; /* watch the kernel's memory pressure */
        usec_t psi_stall; /* "some" stall in psi_window that counts as pressure */
        usec_t psi_window;

        /* [vm]: for VMs that do not say otherwise */
        bool manage_default;
        uint64_t default_reservation; /* bytes */
        uint64_t shares_per_mib;
        usec_t stats_period; /* balloon statistics; 0: leave the period alone */

        /* [store]: ballast-store reads them too */
        char *store_control; /* its socket; "" : there is no store */
        char *store_socket; /* where it serves NBD */
        uint64_t store_pool; /* PoolSize: RAM, bytes; 0: none, no store */
        char *store_disk; /* Disk: file or block device; "": no disk tier */
        uint64_t store_disk_size; /* DiskSize: 0: all of a block device */
        char *store_default_group; /* DefaultGroup: of VMs that name none; "": each is a group of its own */
        uint64_t store_ready; /* PoolReady: bytes of the pool that are taken ahead, at least */

        /* [tiers] */
        bool pageout; /* KernelTiers: may guests be paged out by the host's kernel? */
        usec_t pageout_idle; /* IdleAfter: a VM that did nothing for so long is idle; 0: never ahead of pressure */

        /* [sharing] */
        enum bl_share_mode share_mode; /* Mode: the most that is done for any VM */
        char *share_group; /* Group: that KSM serves; "": none is named */
        permyriad_t share_scan_cpu; /* ScanCpu: of one core, for evidence at rest */
        permyriad_t share_ksmd_cpu; /* KsmdCpu: of one core, while ksmd is driven */
        bool share_host_knobs; /* HostKnobs: khugepaged's may be set */

        /* [policy]; its `test` part is never set from a file */
        struct bl_policy_config policy;

        char **source; /* private: one per setting of the table, NULL is the default */
};

struct bl_conf_paths {
        const char *root; /* prefix for the standard places; NULL or "": none */
        const char
                *file; /* --config FILE: this and FILE.d/ *.conf only, without the prefix; NULL: the standard places */
};

struct bl_conf_message {
        int priority; /* LOG_WARNING or LOG_ERR */
        char *text; /* "FILE:LINE: ..." or "FILE: ...", a whole sentence */
};

struct bl_conf_report {
        size_t n;
        struct bl_conf_message *messages;
};

/* Frees the messages; NULL-safe; returns NULL. */
struct bl_conf_report *bl_conf_report_clear(struct bl_conf_report *r);

/* The shipped values.  -ENOMEM. */
int bl_conf_new(struct bl_conf **ret);
struct bl_conf *bl_conf_free(struct bl_conf *c);
BL_DEFINE_CLEANUP(struct bl_conf *, bl_conf_free)

/*
 * Loads everything, or nothing: one bad value fails the whole with -EINVAL and
 * `ret` untouched, so that a reload keeps what was.  `rep` (required, starts
 * as {0}) receives all messages of all files: unknown keys and sections as
 * warnings, bad values as errors; it is the caller's also on failure.
 * -EINVAL; -ENOENT: `file` is given and is not there; -EACCES and other errors
 * from reading a file (said in the report); -ENOMEM.
 */
int bl_conf_load(const struct bl_conf_paths *paths, struct bl_conf **ret, struct bl_conf_report *rep);

/* Sets one value as a file would, e.g. what `ballastctl act on` changed;
 * `source` is copied, NULL is "default".  -ENOENT: no such key; -EINVAL,
 * -ERANGE: bad value, then `ret_message` (may be NULL) is what is allowed. */
int bl_conf_set(struct bl_conf *c, const char *section, const char *key, const char *value, const char *source,
                char **ret_message);

#define BL_CONF_VALUE_MAX   256
#define BL_CONF_ALLOWED_MAX 96

struct bl_conf_setting {
        const char *section;
        const char *key;
        const char *doc; /* one line */
        const char *source; /* "default", "FILE:LINE", ...; lives as long as the configuration */
        char value[BL_CONF_VALUE_MAX]; /* as it would stand in a file */
        char allowed[BL_CONF_ALLOWED_MAX]; /* what may: "yes or no", "a size from 1M to 1T, as 512M or 1.5G" */
};

/* The settings in the table's order: i from 0 while the answer is true. */
bool bl_conf_setting(const struct bl_conf *c, size_t i, struct bl_conf_setting *ret);

#endif
