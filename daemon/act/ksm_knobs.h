/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The knobs of KSM and khugepaged as files: read, written after the ledger says so, put back, and watched.  What they
 * are to be is ksm.c's business.
 *
 * A knob that is set is claimed, also where it had that value already: so that a change by somebody else is seen.
 * Each claim is a record of the ledger: what the knob was, and what we made of it.
 *
 * The kernel's part (mm/ksm.c, mm/khugepaged.c, Linux 6.18): a write takes effect at once or with ksmd's next batch;
 * advisor_mode sets pages_to_scan to 100 when it changes to none, and while there is an advisor pages_to_scan cannot
 * be written (EINVAL); max_page_sharing answers EBUSY while anything is merged; run=2 un-merges all of the host.
 */
#ifndef BALLAST_ACT_KSM_KNOBS_H
#define BALLAST_ACT_KSM_KNOBS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/ledger.h"

/* In the order in which they are written; they are put back in the opposite one. */
enum bl_knob {
        BL_KNOB_MAX_PTES_SHARED, /* khugepaged: what is merged is left alone */
        BL_KNOB_MAX_PTES_NONE, /* khugepaged: zero pages likewise */
        BL_KNOB_ADVISOR_MODE, /* 6.8; before pages_to_scan, which it sets */
        BL_KNOB_MAX_PAGE_SHARING,
        BL_KNOB_USE_ZERO_PAGES,
        BL_KNOB_SMART_SCAN, /* 6.7 */
        BL_KNOB_SLEEP_MILLISECS,
        BL_KNOB_PAGES_TO_SCAN,
        BL_KNOB_RUN,
        _BL_KNOB_MAX,
};

#define BL_KNOB_TEXT 32 /* of a value, with its NUL */

struct bl_knobs {
        const char *root;
        struct bl_ledger *ledger;
        int (*save)(void *userdata);
        void *userdata;
};

/* Below /sys/kernel/mm: "ksm/run". */
const char *bl_knob_path(enum bl_knob k);

/* The value, without the line's end; of "[none] scan-time" what is in brackets.  -ENOENT: this kernel does not have it;
 * -EMSGSIZE, errors of reading. */
int bl_knob_read(const char *root, enum bl_knob k, char ret[BL_KNOB_TEXT]);

/* Somebody else's: not what we made of it. */
struct bl_knob_change {
        enum bl_knob knob;
        char ours[BL_KNOB_TEXT], now[BL_KNOB_TEXT];
};

/* Looks at what is claimed.  1: *ret was changed (the first one); 0: none, as far as they can be read. */
int bl_knobs_look(const struct bl_knobs *b, struct bl_knob_change *ret);

/*
 * to[k] is what knob k is to be; NULL: it is left as it is.  Knobs that this kernel does not have are passed by, and
 * max_page_sharing while something is merged.  1: *ret was changed by somebody else, and nothing was written; 0;
 * negative errno: of saving (nothing was written), or of the first write that failed (what was written before it stays,
 * and is recorded; nothing after it was).
 */
int bl_knobs_set(const struct bl_knobs *b, const char *const to[_BL_KNOB_MAX], struct bl_knob_change *ret);

/* Puts back knob k, or all that are claimed, and forgets them; those that somebody else has changed stay as they are
 * now and are forgotten too.  The ledger is saved.  How many were written; the first negative errno: those that could
 * not be written stay claimed, for another try. */
int bl_knobs_put_back(const struct bl_knobs *b, enum bl_knob k);
int bl_knobs_put_back_all(const struct bl_knobs *b);

bool bl_knob_claimed(const struct bl_knobs *b, enum bl_knob k);
/* Is any? */
bool bl_knobs_hold(const struct bl_knobs *b);

#endif
