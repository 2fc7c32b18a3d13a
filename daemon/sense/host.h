/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host's side of a snapshot: joins meminfo, PSI, budget and growth.
 * One sample costs about 5 us (kernel 6.18, busy machine), without allocation.
 */
#ifndef BALLAST_SENSE_HOST_H
#define BALLAST_SENSE_HOST_H

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>

#include "daemon/conf.h"
#include "daemon/sense/budget.h"
#include "daemon/sense/meminfo.h"

struct bl_host_sensor;

/* Opens what it needs below `root`.  A host without PSI is no error.
 * -ENOENT, -EBADMSG: no usable /proc/meminfo; -ENOMEM. */
int bl_host_sensor_new(const char *root, const struct bl_conf *conf, struct bl_host_sensor **ret);
struct bl_host_sensor *bl_host_sensor_free(struct bl_host_sensor *s);
BL_DEFINE_CLEANUP(struct bl_host_sensor *, bl_host_sensor_free)

/* After a reload.  Forgets the samples if the budget is another.  The PSI
 * trigger stays as it is: close it and open another if its settings changed. */
void bl_host_sensor_configure(struct bl_host_sensor *s, const struct bl_conf *conf);

/* A VM came or went: the jump in what is used is not growth. */
void bl_host_growth_forget(struct bl_host_sensor *s);

/* Must the caller sum up the guests for each sample? */
bool bl_host_needs_usage(const struct bl_host_sensor *s);

/* A PSI trigger by the configuration, to be watched for EPOLLPRI; the caller
 * owns the descriptor and calls bl_host_psi_fired() when it fires.  Until this
 * has succeeded the sensor itself looks at the totals, sample by sample, which
 * is as quick as long as samples are taken: a trigger that is refused (-EINVAL
 * without CAP_SYS_RESOURCE) is worth a line in the log, not more.
 * As bl_psi_trigger_open; -EOPNOTSUPP when psi=no. */
int bl_host_psi_open(struct bl_host_sensor *s);
void bl_host_psi_fired(struct bl_host_sensor *s);
/* The trigger broke (EPOLLERR) or was closed: look at the totals again. */
void bl_host_psi_lost(struct bl_host_sensor *s);

/*
 * Takes a sample and fills *ret.  `usage` may be NULL where it is not needed.
 * psi_pressure stays set until bl_host_psi_clear(): call that once the policy
 * has seen it, not on samples of the fast path.
 * Errors of reading /proc/meminfo; then *ret is untouched.
 */
int bl_host_sense(struct bl_host_sensor *s, const struct bl_usage *usage, usec_t now, struct bl_host *ret);
void bl_host_psi_clear(struct bl_host_sensor *s);

/* meminfo of the last sample, or NULL. */
const struct bl_meminfo *bl_host_meminfo(const struct bl_host_sensor *s);

/* Why PSI is not known, or why bl_host_psi_open failed last: a sentence, or NULL. */
const char *bl_host_psi_why_not(const struct bl_host_sensor *s);

#endif
