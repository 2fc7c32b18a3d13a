/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The shipped settings, each with its reason. */
#include <ballast/config.h>
#include <ballast/wire.h>

void bl_policy_config_default(struct bl_policy_config *ret)
{
        *ret = (struct bl_policy_config){
                /* ESX's sliding scale: a part of the budget that shrinks as hosts grow. */
                .min_free = BL_UNSET,

                /* Waldspurger 2002, section 5.3: an idle page costs four times an active one.
                 * High enough that idle memory goes first, low enough that an idle guest keeps
                 * a part of what its shares entitle it to, for when it wakes. */
                .idle_tax = 7500,

                /* Linux guests of 512 MiB died of their OOM killer when squeezed to the last (DESIGN
                 * section 4); MemAvailable is an estimate, and one report is up to a period old.
                 * 64 MiB is what a busy small guest allocates between two reports. */
                .guest_margin = 64 * BL_MIB,

                /* Larger guests err by larger amounts; Hyper-V ships 20 % of commit as its buffer,
                 * ours stands above the working set and can be smaller. */
                .guest_margin_ratio = 1000,

                /* The virtio balloon moves 1 MiB per request; four of them are the least that is
                 * worth waking a guest, a worker and a record on disk. */
                .dead_band = 4 * BL_MIB,

                /* ChromeOS concierge calls a balloon stalled after 4 s. */
                .stuck_after = 4 * BL_SEC,

                /* Long enough not to nag, short enough that a guest that was only busy (boot, a
                 * long stop of its vCPUs) takes part again soon. */
                .retry_first = 20 * BL_SEC,
                .retry_max = 600 * BL_SEC,

                /* Two report periods of 5 s: the figures after a command are in before the next
                 * command may say the opposite. */
                .settle = 10 * BL_SEC,

                /* Optimistic on purpose: the first command moves all that is needed at once (512 MiB
                 * in one step), and what does not come is soon known. Bare-metal guests give 1-4 GiB/s. */
                .first_speed = BL_GIB,

                /* What a guest cannot give in two seconds is asked from others meanwhile. */
                .horizon = 2 * BL_SEC,

                /* No sensing is finer than a tenth of a second (PSI looks ten times a window), and
                 * growth seen for a moment says nothing about the time beyond a few seconds. */
                .lead_min = 100 * BL_MSEC,
                .lead_max = 5 * BL_SEC,

                /* RSS follows MADV_DONTNEED at once; three seconds cover late readings of it. */
                .lying_after = 3 * BL_SEC,

                /* Agents count on it, so it is a part of the protocol. */
                .request_life = BL_WIRE_REQUEST_LIFE,

                /* The next request or report of one that hardly runs may come late. */
                .stop_hold = 3 * BL_SEC,

                /* Longer than granted memory is kept for it (PROMISE_KEPT in learn.c): who needs memory
                 * touches it within moments. */
                .idle_asker_after = 5 * BL_SEC,

                /* Twice the time of the try, so that one that only wants to be spared is not, most of the
                 * time; up to ten minutes as for one that does not follow. */
                .deaf_first = 10 * BL_SEC,

                /* 10000 / 1.3: three pages of four would be needed to gain one, and reading them back costs the
                 * guest as much as those that shrink well (4 KiB of random bytes do not shrink at all). */
                .worth_ratio = 7692,

                /* Longer than what comes round every few minutes by itself (timers, cron, monitoring). */
                .idle_after = 600 * BL_SEC,

                /* On a nested test machine ksmd frees 84 MB per CPU-second of guests of one image, and 3 to 8 of VMs
                 * that have nothing in common with others but their kernel, 3 % of them, as far as samples tell: in a
                 * mixed herd such VMs hold a tenth of all that can be saved.  This is below both, and above what is
                 * left when a pass finds nothing.  A gigabyte of RAM then costs six minutes of a core at worst, once;
                 * ksmd by itself takes a tenth of one for ever. */
                .share_pays = 3 * BL_MIB,

                /* Two passes over VMs of 1 GiB cost ksmd about two CPU-seconds there: at twice what has to come
                 * of them. */
                .share_wake = 32 * BL_MIB,

                /* Real guests rewrite merged pages slowly; a tenth of them at once is a burst (an update of the
                 * image's programs in all of them), and covers the second or two that a balloon takes. */
                .share_reserve = 1000,
        };
}
