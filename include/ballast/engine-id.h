/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engines, as the policy names them.  Adding one: HACKING.md, "A new engine". */
#ifndef BALLAST_ENGINE_ID_H
#define BALLAST_ENGINE_ID_H

enum bl_engine_id {
        BL_ENGINE_BALLOON,
        BL_ENGINE_PAGEOUT, /* the host kernel's own tiers: process_madvise(2), memory.reclaim */
        _BL_ENGINE_MAX,
};

#endif
