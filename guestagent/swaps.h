/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* /proc/swaps, as seen by one who has a swap disk. */
#ifndef BALLAST_GUEST_SWAPS_H
#define BALLAST_GUEST_SWAPS_H

#include <ballast/units.h>

struct guest_swaps {
        bool on; /* ours is among them; else the next three are 0 */
        int priority;
        uint64_t size, used;
        uint64_t used_all; /* of all areas */
        uint64_t ahead; /* size of the others that are filled no later than ours */
        int highest; /* priority of the others; -1 where none has one above that */
};

/* `disk` is the name of a block device, without its directory; "": none is ours.  The text is cut up. */
void guest_parse_swaps(char *text, const char *disk, struct guest_swaps *ret);

/* The same from the file.  Negative errno. */
int guest_read_swaps(int fd, const char *disk, struct guest_swaps *ret);
int guest_open_swaps(const char *root);

#endif
