/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The clocks.  Everything that decides uses the first; the wall clock is for
 * people and for files that outlive a boot. */
#ifndef BALLAST_UTIL_CLOCK_H
#define BALLAST_UTIL_CLOCK_H

#include <ballast/units.h>

/* CLOCK_MONOTONIC. */
usec_t bl_now(void);

/* CLOCK_BOOTTIME: counts on while the host is suspended. */
usec_t bl_now_boot(void);

/* CLOCK_REALTIME, since the epoch. */
usec_t bl_now_wall(void);

/* CPU time of the calling thread: what a measurement has cost. */
usec_t bl_now_thread_cpu(void);

/* A monotonic instant as wall time, by the two clocks' distance now; BL_UNSET and 0 are kept. */
usec_t bl_mono_to_wall(usec_t mono);

#endif
