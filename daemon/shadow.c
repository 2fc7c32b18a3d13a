// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * VMs whose RAM is a private memfd hold pages twice (daemon/sense/memfd.h): here
 * the second ones go back to the host, in a worker, a VM at a time.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/manager-private.h"
#include "daemon/sense/memfd.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

/* Less is not worth a job; and a VM is looked at so often at most: a guest that
 * grows by a GiB a second holds 100 MiB twice by then. */
#define WORTH (8 * BL_MIB)
#define PACE  (100 * BL_MSEC)

/* A job that has not come back by then is not counted on. */
#define PROMISED (2 * BL_SEC)

struct dropping {
        struct bl_manager *m;
        uint8_t uuid[BL_UUID_LEN];
        uint64_t serial;
        int proc_dirfd; /* our own copy */
        struct bl_memfds memfds;
        int r;
        uint64_t freed;
};

static struct dropping *dropping_free(struct dropping *d)
{
        bl_closep(&d->proc_dirfd);
        free(d);
        return NULL;
}

static void run(void *arg)
{
        struct dropping *d = arg;

        d->r = bl_memfd_drop(d->proc_dirfd, &d->memfds, &d->freed);
}

static void done(void *arg, int r)
{
        struct dropping *d = arg;
        struct bl_guest *g = bl_manager_find(d->m, d->uuid);
        char size[BL_SIZE_BUF];

        d->m->dropping = false;
        if (g && g->serial == d->serial && r >= 0) {
                g->shadow.freed = bl_add_sat(g->shadow.freed, d->freed);
                if (d->r == -EBUSY) {
                        g->shadow.never = true;
                        bl_log(LOG_NOTICE, BL_EV_VM, g->name, "memfd.shared",
                               "the memory file of %s has data of another process in it: what it holds twice is left",
                               g->name);
                } else if (d->freed >= WORTH) {
                        bl_log_debug("%s held %s twice in its memory file: freed", g->name,
                                     bl_size_format(d->freed, size, sizeof size));
                }
        }
        (void)dropping_free(d);
}

/* Bytes that would come free, where that is worth it. */
static uint64_t droppable(const struct bl_guest *g)
{
        uint64_t twice = bl_sub_sat(g->mem.memfd, g->mem.shmem);

        if (!g->resident || !g->desc || !g->desc->live.memfd || g->desc->live.shared || g->shadow.never ||
            !bl_guest_managed(g) || !bl_manager_acting(g->m))
                return 0;
        return twice >= WORTH ? twice : 0;
}

uint64_t bl_shadow_resident(const struct bl_guest *g)
{
        uint64_t resident = bl_proc_mem_resident(&g->mem);

        if (g->m->dropping && bl_sub_sat(bl_now(), g->m->dropping_at) > PROMISED)
                return resident;
        return bl_sub_sat(resident, droppable(g));
}

void bl_shadow_drop(struct bl_manager *m, usec_t now)
{
        for (size_t i = 0; i < m->n_guests && !m->dropping; i++) {
                struct bl_guest *g = m->guests[i];
                struct dropping *d;

                if (droppable(g) == 0 || now < bl_add_sat(g->shadow.at, PACE))
                        continue;
                g->shadow.at = now;
                d = calloc(1, sizeof *d);
                if (!d)
                        return;
                d->m = m;
                memcpy(d->uuid, g->uuid, BL_UUID_LEN);
                d->serial = g->serial;
                d->memfds = *bl_resident_memfds(g->resident);
                d->proc_dirfd = fcntl(bl_resident_dirfd(g->resident), F_DUPFD_CLOEXEC, 3);
                m->dropping_at = now;
                m->dropping = d->proc_dirfd >= 0 && bl_pool_submit(m->pool, NULL, run, done, d) >= 0;
                if (!m->dropping)
                        (void)dropping_free(d);
        }
}
