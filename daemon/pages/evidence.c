// SPDX-License-Identifier: LGPL-2.1-or-later
/* Evidence: the rolling sample as a whole, and what all its jobs have in common. */
#include "daemon/pages/evidence_figures.h"
#include "daemon/pages/evidence_job.h"
#include "daemon/util/clock.h"

#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SETTLE     (100 * BL_MSEC)
#define LIFE       (600 * BL_SEC)
#define MEMORY     (64 * BL_MIB)
#define MEMORY_MIN (256 * BL_KIB) /* a chunk of each kind and then some */

static uint64_t hash_page(const void *page, uint64_t seed)
{
        return XXH3_64bits_withSeed(page, BL_PAGE_SIZE, seed);
}

int bl_evidence_new(const struct bl_evidence_options *o, struct bl_evidence **ret)
{
        static const struct bl_evidence_options none;
        _cleanup_(bl_evidence_freep) struct bl_evidence *e = calloc(1, sizeof(*e));
        int r;

        if (!e)
                return -ENOMEM;
        if (!o)
                o = &none;
        e->seed = o->seed;
        if (e->seed == 0 && getrandom(&e->seed, sizeof(e->seed), 0) != (ssize_t)sizeof(e->seed))
                return -errno;
        e->random = bl_ev_mix(~e->seed);
        e->settle = o->settle ? o->settle : SETTLE;
        e->life = o->life ? o->life : LIFE;
        e->hash = o->hash ? o->hash : hash_page;
        e->memory.max = o->memory_max ? bl_max(o->memory_max, MEMORY_MIN) : MEMORY;
        e->version = 1;
        e->kept = bl_ev_figures_new();
        if (!e->kept)
                return -ENOMEM;
        r = bl_ev_table_init(e);
        if (r < 0)
                return r;
        *ret = BL_TAKE(e);
        return 0;
}

struct bl_evidence *bl_evidence_free(struct bl_evidence *e)
{
        if (!e)
                return NULL;
        bl_ev_table_done(e);
        for (size_t i = 0; i < e->n_vms; i++)
                free(e->vms[i].runs);
        free(e->vms);
        bl_ev_figures_free(e->kept);
        free(e);
        return NULL;
}

size_t bl_evidence_memory(const struct bl_evidence *e)
{
        return e->memory.now;
}

void bl_evidence_job_run(struct bl_evidence_job *j)
{
        usec_t before = bl_now_thread_cpu();

        j->ops->run(j);
        j->cpu = bl_now_thread_cpu() - before;
}

void bl_evidence_job_take(struct bl_evidence *e, struct bl_evidence_job *j, usec_t now, struct bl_evidence_done *ret)
{
        struct bl_evidence_done done = {.looked = j->looked, .read = j->read, .cpu = j->cpu, .error = j->error};

        j->ops->take(e, j, now, &done);
        bl_evidence_job_free(j);
        if (ret)
                *ret = done;
}

struct bl_evidence_job *bl_evidence_job_free(struct bl_evidence_job *j)
{
        if (j)
                j->ops->free(j);
        return NULL;
}
