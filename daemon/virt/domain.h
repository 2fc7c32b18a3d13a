/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What Ballast asks of libvirt about one VM, asynchronously: each call queues
 * a job for the VM and returns; the callback comes on the loop, exactly once,
 * unless the call itself failed.  Errors of the call (then no callback): those
 * of bl_pool_submit (pool.h), above all -EHOSTDOWN: the VM is hung.
 *
 * r of the callbacks: 0 or negative errno: -ENOENT the VM is gone, -ENOTCONN
 * no connection, -EHOSTDOWN its QEMU process is stopped (state T), so nothing
 * was asked of it, -ECANCELED the daemon ends; others from libvirt.  `message`
 * is a sentence or NULL, valid during the call.
 */
#ifndef BALLAST_VIRT_DOMAIN_H
#define BALLAST_VIRT_DOMAIN_H

#include <sys/types.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

#include "daemon/virt/conn.h"
#include "daemon/virt/domain_xml.h"
#include "daemon/virt/proc.h"

struct bl_domain_ref {
        uint8_t uuid[BL_UUID_LEN];
        char *name;
};

typedef void (*bl_domain_list_fn)(void *userdata, int r, const char *message, const struct bl_domain_ref *refs,
                                  size_t n);

/* All active domains. */
int bl_domain_list(struct bl_conn *c, bl_domain_list_fn fn, void *userdata);

/* What a VM is: changes seldom (device or definition events, restart). */
struct bl_domain_desc {
        struct bl_domain_info live;
        bool persistent;
        struct bl_domain_info config; /* the inactive XML, where persistent; else zeroed */
        bool migrating; /* an outgoing migration, a save or a dump is under way */
        bool has_instance;
        struct bl_instance instance; /* the QEMU process; proc.h */
        int instance_error; /* why not, negative errno; 0 */
};
struct bl_domain_desc *bl_domain_desc_free(struct bl_domain_desc *d);

/* `d` passes to the callee; NULL unless r is 0. */
typedef void (*bl_domain_desc_fn)(void *userdata, int r, const char *message, struct bl_domain_desc *d);

/* run_dir: where libvirt keeps NAME.pid; NULL: /run/libvirt/qemu. */
int bl_domain_describe(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const char *run_dir, bl_domain_desc_fn fn,
                       void *userdata);

/* What a VM does: one call to libvirt (virDomainListGetStats, NOWAIT). */
struct bl_domain_state {
        usec_t at; /* when it was read, CLOCK_MONOTONIC */
        int state; /* VIR_DOMAIN_*; -1 unknown */
        int reason;
        enum bl_vm_run run;
        bool incomplete; /* libvirt was busy with the VM and gave the state only */
        uint64_t current; /* balloon size, bytes; BL_UNSET when not told */
        uint64_t maximum;
        uint64_t rss;
        struct bl_guest_stats stats; /* source NONE when the guest never reported; .period is not filled */
};

typedef void (*bl_domain_state_fn)(void *userdata, int r, const char *message, const struct bl_domain_state *s);

/* `inst` may be NULL; else a stopped QEMU process is noticed before it is asked.
 * `exact`: also asks QEMU itself for the balloon's size (a further call); otherwise
 * it is what libvirt last heard, up to a second old while the balloon moves. */
int bl_domain_sense(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst, bool exact,
                    bl_domain_state_fn fn, void *userdata);

/* Pure: decodes what virDomainListGetStats gave.  now_wall and now are the two
 * clocks at one instant. */
void bl_domain_state_decode(const virTypedParameter *params, int n, usec_t now_wall, usec_t now,
                            struct bl_domain_state *ret);

typedef void (*bl_domain_done_fn)(void *userdata, int r, const char *message);

/* Statistics period in seconds, live; 0: off. */
int bl_domain_set_period(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *inst,
                         unsigned seconds, bl_domain_done_fn fn, void *userdata);

/* Lays `m` over what the metadata says now (fields not given stay), live
 * and/or persistent.  The domain need not be active for persistent. */
int bl_domain_set_metadata(struct bl_conn *c, const uint8_t uuid[BL_UUID_LEN], const struct bl_vm_metadata *m,
                           bool live, bool persistent, bl_domain_done_fn fn, void *userdata);

/* Why one more look did not let a balloon command through. */
enum bl_look {
        BL_LOOK_OK,
        BL_LOOK_NOT_RUNNING, /* paused, shut off, ... */
        BL_LOOK_MIGRATING, /* or being saved or dumped */
        BL_LOOK_MOVED, /* its balloon is not where the decision saw it */
        BL_LOOK_FLOOR, /* the guest needs more now than when it was decided */
        BL_LOOK_INSTANCE, /* another QEMU process than the one decided about */
        BL_LOOK_BUSY, /* libvirt is busy with it and could not tell */
};

struct bl_balloon_request {
        uint8_t uuid[BL_UUID_LEN];
        const struct bl_instance *instance; /* copied; or NULL */
        uint64_t from; /* balloon size when decided */
        uint64_t to; /* target, bytes; rounded down to KiB for libvirt */
        uint64_t tolerance; /* how far `from` may be off; shrinking only */
        uint64_t transit; /* it is on its way down to this by our own command: found there it has not "moved"; 0: it is
                             not */
        uint64_t floor; /* of the decision; 0: not checked */
        uint64_t available; /* MemAvailable when decided; BL_UNSET: floor is not checked */
        bool force; /* by hand: only NOT_RUNNING and INSTANCE refuse */
};

struct bl_balloon_answer {
        enum bl_look look; /* OK: the command was given, r tells how it went */
        uint64_t found; /* balloon size at the look; BL_UNSET */
        uint64_t floor; /* by the fresh figures, where checked */
        bool unknown; /* the connection broke during the command: it may have been carried out */
        usec_t t_command; /* how long the command took; 0: not given */
};

/* r: 0 done; -ESTALE refused by the look; -EHOSTDOWN, -ENOENT, ... as above. */
typedef void (*bl_balloon_fn)(void *userdata, int r, const char *message, const struct bl_balloon_answer *a);

/* One more look, then virDomainSetMemoryFlags(LIVE), in one job. */
int bl_domain_set_balloon(struct bl_conn *c, const struct bl_balloon_request *q, bl_balloon_fn fn, void *userdata);

/* Pure: the judgement of one more look. */
enum bl_look bl_balloon_look(const struct bl_balloon_request *q, const struct bl_domain_state *s, uint64_t *ret_floor);
const char *bl_look_to_string(enum bl_look l);

BL_DEFINE_CLEANUP(struct bl_domain_desc *, bl_domain_desc_free)

#endif
