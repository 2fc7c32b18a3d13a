/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>

#include <ballast/plan.h>

struct bl_plan *bl_plan_clear(struct bl_plan *p)
{
        if (!p)
                return NULL;

        free(p->d);
        free(p->share.d);
        p->d = NULL;
        p->share.d = NULL;
        p->n = 0;
        return NULL;
}
