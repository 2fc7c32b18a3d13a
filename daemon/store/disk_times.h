/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long requests took in the last seconds: a histogram of steps of 1/4 of a power of two, in two
 * windows, of which the older one counts too. */
#ifndef BALLAST_STORE_DISK_TIMES_H
#define BALLAST_STORE_DISK_TIMES_H

#include <ballast/units.h>

#define BL_TIMES_STEPS  128U
#define BL_TIMES_WINDOW (5 * BL_SEC)

struct bl_disk_times {
        uint32_t count[2][BL_TIMES_STEPS];
        usec_t begun; /* the newer window */
        unsigned newer;
};

void bl_disk_times_add(struct bl_disk_times *t, usec_t took, usec_t now);
/* The time that `part` of them did not exceed, to 1/8; 0: there were none. */
usec_t bl_disk_times_part(struct bl_disk_times *t, permyriad_t part, usec_t now);

#endif
