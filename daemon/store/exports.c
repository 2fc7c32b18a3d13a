// SPDX-License-Identifier: LGPL-2.1-or-later
/* Who has an export, and what the pool promises. */
#include "daemon/store/internal.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "daemon/util/clock.h"

/* --- groups ---------------------------------------------------------------------------- */

static int new_seed(uint64_t *ret)
{
        uint64_t seed = 0;

        while (seed == 0)
                if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
                        return -EIO;
        *ret = seed;
        return 0;
}

/* The group of that name, or one of its own for "". */
static int group_for(struct bl_store *s, const char *name, uint16_t *ret)
{
        struct bl_group *g;
        uint64_t seed;
        uint32_t i;
        int r;

        for (i = 0; *name && i < BL_GROUPS; i++)
                if (s->group_uses[i] > 0 && strcmp(s->groups[i].name, name) == 0) {
                        *ret = (uint16_t)i;
                        return 0;
                }
        for (i = 0; i < BL_GROUPS && s->group_uses[i] > 0; i++)
                ;
        if (i == BL_GROUPS)
                return -ENOMEM;
        r = new_seed(&seed);
        if (r < 0)
                return r;
        g = &s->groups[i];
        memset(g->name, 0, sizeof(g->name));
        memcpy(g->name, name, strlen(name));
        __atomic_store_n(&g->seed, seed, __ATOMIC_RELEASE);
        *ret = (uint16_t)i;
        return 0;
}

/* --- promises --------------------------------------------------------------------------- */

/* Each page that is kept whole costs an entry and a slot word besides, wherever it lies. */
#define PAGE_TABLES (sizeof(struct bl_entry) + sizeof(uint64_t) + 1)

uint64_t bl_exports_backing(const struct bl_store *s)
{
        uint64_t pool = (uint64_t)(s->n_pages - s->first) * BL_STORE_PAGE;
        /* for compaction to work in, for exports' last tables and their nodes */
        uint64_t spare = pool / 32 + UINT64_C(16) * BL_STORE_PAGE + (uint64_t)s->n_exports * 3 * BL_STORE_PAGE;
        uint64_t ram = bl_sub_sat(pool, spare) / (BL_STORE_PAGE + PAGE_TABLES) * BL_STORE_PAGE;
        uint64_t described = bl_sub_sat(pool, spare) / PAGE_TABLES * BL_STORE_PAGE;
        /* the log has to have room to be cleaned */
        uint64_t disk = bl_sub_sat(s->disk_size / 10 * 9, UINT64_C(4) * BL_DISK_SEGMENT);

        if (disk == 0)
                return ram;
        return bl_min(described, bl_mul_sat(bl_add_sat(bl_sub_sat(pool, spare), disk) / (BL_STORE_PAGE + PAGE_TABLES),
                                            BL_STORE_PAGE));
}

/* --- the table --------------------------------------------------------------------------- */

static struct bl_export *find(const struct bl_store *s, const uint8_t uuid[BL_UUID_LEN])
{
        for (uint32_t i = 0; i < BL_EXPORTS; i++) {
                struct bl_export *e = s->exports[i];

                if (e && !e->gone && memcmp(e->record->uuid, uuid, BL_UUID_LEN) == 0)
                        return e;
        }
        return NULL;
}

static struct bl_export *export_free(struct bl_export *e)
{
        if (!e)
                return NULL;
        free(e->tables);
        free(e->nodes);
        free(e);
        return NULL;
}

void bl_exports_free(struct bl_store *s)
{
        for (uint32_t i = 0; i < BL_EXPORTS; i++)
                s->exports[i] = export_free(s->exports[i]);
}

/* The record is complete, but for `state`. */
int bl_export_new(struct bl_store *s, uint16_t index, struct bl_export **ret)
{
        struct bl_export *e = calloc(1, sizeof(*e));

        if (!e)
                return -ENOMEM;
        e->store = s;
        e->record = &s->records[index];
        e->index = index;
        e->size = e->record->size;
        if (bl_slots_init(e) < 0) {
                (void)export_free(e);
                return -ENOMEM;
        }
        s->exports[index] = e;
        s->n_exports++;
        s->promised += e->size;
        s->group_uses[e->record->group]++;
        *ret = e;
        return 0;
}

static int create(struct bl_store *s, const struct bl_store_registration *r, bool lost)
{
        struct bl_record *rec;
        struct bl_export *e;
        uint16_t group;
        uint32_t i;
        int k;

        for (i = 0; i < BL_EXPORTS && s->exports[i]; i++)
                ;
        if (i == BL_EXPORTS)
                return -ENOMEM;
        k = group_for(s, r->group, &group);
        if (k < 0)
                return k;
        rec = &s->records[i];
        *rec = (struct bl_record){
                .pid = (uint64_t)r->pid,
                .start = r->start,
                .size = r->size,
                .limit = r->limit,
                .group = group,
                .lost = lost,
        };
        memcpy(rec->uuid, r->uuid, BL_UUID_LEN);
        k = bl_export_new(s, (uint16_t)i, &e);
        if (k < 0)
                return k;
        __atomic_store_n(&rec->state, BL_RECORD_LIVE, __ATOMIC_RELEASE);
        return 0;
}

static void free_unused(struct bl_export *e)
{
        if (!e->gone || e->open || e->users > 0)
                return;
        e->store->exports[e->index] = NULL;
        (void)export_free(e);
}

void bl_export_hold(struct bl_export *e)
{
        e->users++;
}

void bl_export_let_go(struct bl_export *e)
{
        e->users--;
        free_unused(e);
}

/* What it held is free when this returns, and it, if nobody has it open. */
static void drop(struct bl_store *s, struct bl_export *e)
{
        /* from here on the next process does not find it */
        __atomic_store_n(&e->record->state, 0, __ATOMIC_RELEASE);
        (void)bl_fault(BL_FAULT_STORE_FORGOTTEN);
        e->gone = true;
        s->promised -= e->size;
        s->n_exports--;
        bl_export_hold(e);
        bl_slots_drop(e);
        s->group_uses[e->record->group]--;
        bl_export_let_go(e);
}

/* --- registering -------------------------------------------------------------------------- */

/* The same process, or one that goes on with what the record holds. */
static int update(struct bl_store *s, struct bl_export *e, const struct bl_store_registration *r)
{
        struct bl_record *rec = e->record;
        uint16_t group;
        int k;

        if (strcmp(s->groups[rec->group].name, r->group) != 0) {
                k = group_for(s, r->group, &group);
                if (k < 0)
                        return k;
                /* what was written stays what it is, in the group before */
                s->group_uses[rec->group]--;
                s->group_uses[group]++;
                __atomic_store_n(&rec->group, group, __ATOMIC_RELEASE);
        }
        rec->limit = r->limit;
        rec->start = r->start;
        rec->pid = (uint64_t)r->pid;
        return 0;
}

static int admit(struct bl_store *s, const struct bl_store_registration *r)
{
        struct bl_export *e = find(s, r->uuid);
        bool ours = r->incarnation == s->super->incarnation;
        uint64_t others = s->promised - (e ? e->size : 0);

        if (e && e->record->pid == (uint64_t)r->pid && e->record->start == r->start)
                return e->size == r->size ? update(s, e, r) : -EINVAL;
        if (e && e->open)
                return -EBUSY;
        if (r->incarnation != 0 && ours && e) {
                /* another process: only one that knows the last write goes on where it ended */
                if (e->record->stamp != r->stamp || e->size != r->size || e->record->lost)
                        return -ESTALE;
                return update(s, e, r);
        }
        if (r->incarnation != 0 && r->stamp != BL_UNSET)
                return -ESTALE;
        if (bl_add_sat(others, r->size) > bl_exports_backing(s))
                return -ENOSPC;
        if (e)
                drop(s, e);
        /* the lock was given up meanwhile */
        if (find(s, r->uuid))
                return -EBUSY;
        return create(s, r, r->incarnation != 0);
}

int bl_store_register(struct bl_store *s, const struct bl_store_registration *r)
{
        int k;

        if (r->size == 0 || r->size % BL_STORE_PAGE != 0 || r->size > BL_EXPORT_MAX || r->pid <= 0 ||
            !memchr(r->group, 0, sizeof(r->group)))
                return -EINVAL;
        pthread_mutex_lock(&s->lock);
        k = admit(s, r);
        pthread_mutex_unlock(&s->lock);
        return k;
}

int bl_store_forget(struct bl_store *s, const uint8_t uuid[BL_UUID_LEN])
{
        struct bl_export *e;

        pthread_mutex_lock(&s->lock);
        e = find(s, uuid);
        if (e)
                drop(s, e);
        pthread_mutex_unlock(&s->lock);
        return e ? 0 : -ENOENT;
}

/* --- opening ------------------------------------------------------------------------------- */

int bl_export_open(struct bl_store *s, const uint8_t uuid[BL_UUID_LEN], pid_t pid, uint64_t start, usec_t wait,
                   struct bl_export **ret)
{
        usec_t until = bl_add_sat(bl_now(), wait);
        struct timespec ts = {.tv_sec = (time_t)(bl_min(until, UINT64_C(1) << 60) / BL_SEC),
                              .tv_nsec = (long)(until % BL_SEC * 1000)};
        int r = 0;

        pthread_mutex_lock(&s->lock);
        for (;;) {
                struct bl_export *e = find(s, uuid);

                if (!e || e->record->pid != (uint64_t)pid || e->record->start != start) {
                        r = -EPERM;
                        break;
                }
                if (!e->open) {
                        e->open = true;
                        *ret = e;
                        break;
                }
                if (bl_now() >= until) {
                        r = -EBUSY;
                        break;
                }
                (void)pthread_cond_timedwait(&s->closed, &s->lock, &ts);
        }
        pthread_mutex_unlock(&s->lock);
        return r;
}

struct bl_export *bl_export_close(struct bl_export *e)
{
        struct bl_store *s;

        if (!e)
                return NULL;
        s = e->store;
        pthread_mutex_lock(&s->lock);
        e->open = false;
        free_unused(e);
        pthread_cond_broadcast(&s->closed);
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

uint64_t bl_export_size(const struct bl_export *e)
{
        return e->size;
}
