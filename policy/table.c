/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The learned state of each VM, found by uuid in constant time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* A VM may be missing from a snapshot when libvirt hiccups; what was learned of it is kept this long. */
#define KEEP (60 * BL_SEC)

static size_t hash(const uint8_t uuid[BL_UUID_LEN])
{
        uint64_t a, b;

        memcpy(&a, uuid, sizeof(a));
        memcpy(&b, uuid + sizeof(a), sizeof(b));
        /* Fibonacci hashing; uuids are random, and made by the administrator's tools, not by guests */
        a = (a ^ (b << 1 | b >> 63)) * UINT64_C(0x9e3779b97f4a7c15);
        return (size_t)(a >> 32);
}

static void slot_put(struct bl_policy *p, size_t index)
{
        size_t i = hash(p->vms[index].uuid) & (p->n_slots - 1);

        while (p->slots[i] != 0)
                i = (i + 1) & (p->n_slots - 1);
        p->slots[i] = (uint32_t)(index + 1);
}

static void slots_fill(struct bl_policy *p)
{
        if (p->n_slots == 0)
                return;
        memset(p->slots, 0, p->n_slots * sizeof(*p->slots));
        for (size_t i = 0; i < p->n; i++)
                slot_put(p, i);
}

int bl_table_reserve(struct bl_policy *p, size_t n)
{
        size_t want, slots = 16;

        if (n > UINT32_MAX / 4 || p->n > UINT32_MAX / 4)
                return -ENOMEM;
        want = p->n + n;

        if (want > p->allocated) {
                size_t room = want + want / 2;
                struct bl_vm_state *vms = realloc(p->vms, room * sizeof(*vms));

                if (!vms)
                        return -ENOMEM;
                p->vms = vms;
                p->allocated = room;
        }

        while (slots < want * 2)
                slots *= 2;
        if (slots > p->n_slots) {
                uint32_t *s = calloc(slots, sizeof(*s));

                if (!s)
                        return -ENOMEM;
                free(p->slots);
                p->slots = s;
                p->n_slots = slots;
                slots_fill(p);
        }
        return 0;
}

struct bl_vm_state *bl_table_get(struct bl_policy *p, const struct bl_vm *vm, const struct bl_policy_config *c,
                                 size_t hint)
{
        struct bl_vm_state *st;
        size_t i;

        /* the set of VMs seldom changes, nor does their order */
        if (hint < p->n && memcmp(p->vms[hint].uuid, vm->uuid, BL_UUID_LEN) == 0)
                return &p->vms[hint];

        for (i = hash(vm->uuid) & (p->n_slots - 1); p->slots[i] != 0; i = (i + 1) & (p->n_slots - 1)) {
                st = &p->vms[p->slots[i] - 1];
                if (memcmp(st->uuid, vm->uuid, BL_UUID_LEN) == 0)
                        return st;
        }

        st = &p->vms[p->n];
        bl_learn_reset(st, vm, c);
        p->slots[i] = (uint32_t)(++p->n);
        return st;
}

void bl_table_purge(struct bl_policy *p, usec_t now)
{
        size_t kept = 0;

        for (size_t i = 0; i < p->n; i++) {
                if (bl_sub_sat(now, p->vms[i].seen_at) > KEEP)
                        continue;
                if (kept != i)
                        p->vms[kept] = p->vms[i];
                kept++;
        }
        if (kept == p->n)
                return;
        p->n = kept;
        slots_fill(p);
}

int bl_policy_new(struct bl_policy **ret)
{
        struct bl_policy *p = calloc(1, sizeof(*p));

        if (!p)
                return -ENOMEM;
        /* Before anything was seen: nothing may be assumed to be plenty, nothing needs haste. */
        p->state = BL_STATE_CLEAR;
        p->latency = 200 * BL_MSEC;
        *ret = p;
        return 0;
}

struct bl_policy *bl_policy_free(struct bl_policy *p)
{
        if (!p)
                return NULL;
        free(p->slots);
        free(p->vms);
        free(p);
        return NULL;
}

int bl_policy_copy(const struct bl_policy *p, struct bl_policy **ret)
{
        struct bl_policy *q;
        int r;

        q = calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->started = p->started;
        q->state = p->state;
        q->last_at = p->last_at;
        q->interval = p->interval;
        q->latency = p->latency;
        q->spending = p->spending;
        q->pressing = p->pressing;
        q->pool_ready = p->pool_ready;
        q->pool_idle_at = p->pool_idle_at;
        q->sharing = p->sharing;

        r = bl_table_reserve(q, p->n);
        if (r < 0) {
                bl_policy_free(q);
                return r;
        }
        if (p->n > 0)
                memcpy(q->vms, p->vms, p->n * sizeof(*p->vms));
        q->n = p->n;
        slots_fill(q);
        *ret = q;
        return 0;
}
