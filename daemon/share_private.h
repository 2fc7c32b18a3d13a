/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Between the files that find out what merging would gain:
 *
 *   share_evidence.c  when something is looked at, and whose memory at all
 *   share_growth.c    whose samples say little, since it has grown
 *   share_job.c       the jobs in workers that look
 *   share_source.c    the memory that they look at
 *
 * All run in the manager's loop, but for what a job or an opening does in its worker.
 */
#include "daemon/manager-private.h"

#define BL_SHARE_JOB_PAGES 4096U /* of a job: 16 MiB, some 6 ms */

/* share_evidence.c */
/* Begins whatever is due, and sets the timer for what will be. */
void bl_share_work(struct bl_manager *m);
/* Its memory is open, and no job has it. */
bool bl_share_can_sample(const struct bl_guest *g);
/* It has a source: how many pages of it a burst looks at. */
uint64_t bl_share_burst_pages(const struct bl_guest_share *s);
/* It has a source: its samples are taken all at once with the next bl_share_work(). */
void bl_share_burst_begin(struct bl_guest *g);

/* share_growth.c */
/* It has a source: has it grown, and is it time to look?  To be asked with each tick. */
bool bl_share_has_grown(struct bl_guest *g, usec_t now);

/* share_job.c: false where none was begun (no memory, or nothing to look at); its end calls bl_share_work(). */
bool bl_share_job_sample(struct bl_guest *g, size_t pages, bool burst);
/* Reads again what was sampled. */
bool bl_share_job_refresh(struct bl_guest *g);
/* Second looks that are due.  1: begun, 0: none is, < 0: -ENOMEM and the like. */
int bl_share_job_confirm(struct bl_manager *m, usec_t now, bool burst);
/* Finds out whether its memory is laid out as it was. */
void bl_share_job_again(struct bl_guest *g);

/* share_source.c */
/* In a worker; a burst begins when it is open.  Where it cannot be, it is tried again later. */
void bl_share_source_open(struct bl_guest *g);
/* It is tried again ten seconds from now. */
void bl_share_source_put_off(struct bl_guest *g);
/* And forgets what was sampled of it. */
void bl_share_source_close(struct bl_guest *g);
struct bl_share_source *bl_share_source_unref(struct bl_share_source *s);
