/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What both kinds of job have in common.  run() is the worker's and uses what is in the job only. */
#ifndef BALLAST_PAGES_EVIDENCE_JOB_H
#define BALLAST_PAGES_EVIDENCE_JOB_H

#include "daemon/pages/evidence_table.h"

struct bl_ev_job_ops {
        void (*run)(struct bl_evidence_job *j);
        void (*take)(struct bl_evidence *e, struct bl_evidence_job *j, usec_t now, struct bl_evidence_done *done);
        void (*free)(struct bl_evidence_job *j);
};

struct bl_evidence_job {
        const struct bl_ev_job_ops *ops;
        uint64_t (*hash)(const void *page, uint64_t seed);
        uint64_t seed;
        uint64_t looked, read;
        usec_t cpu;
        int error;
};

static inline void bl_ev_job_init(struct bl_evidence_job *j, const struct bl_evidence *e,
                                  const struct bl_ev_job_ops *ops)
{
        *j = (struct bl_evidence_job){.ops = ops, .hash = e->hash, .seed = e->seed, .error = -ECANCELED};
}

static inline uint64_t bl_ev_job_hash(const struct bl_evidence_job *j, const void *page)
{
        return j->hash(page, j->seed);
}

#endif
