/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include <ballast/snapshot.h>

struct bl_snapshot *bl_snapshot_clear(struct bl_snapshot *s)
{
        if (!s)
                return NULL;

        if (s->vms) {
                for (size_t i = 0; i < s->n_vms; i++)
                        free((char *)(uintptr_t)s->vms[i].name); /* const for readers; ours to free */
                free(s->vms);
        }
        s->vms = NULL;
        s->n_vms = 0;
        return NULL;
}
