// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What merging would gain: samples of the VMs' memory, taken by jobs in workers (share_job.c), and when.
 *
 * A VM that comes is sampled at once (a burst of 1/8 of its pages, in jobs of 16 MiB, two at a time), and anew when
 * it has grown (share_growth.c): samples that say of the new memory that it is absent, or what it was, would make
 * little of it.  Then all are gone through at the pace of ScanCpu=.  What matched is read a second time by a job that
 * has the memory of all VMs of the group, so nothing else runs beside it.
 *
 * VMs in mode zero are sampled too, each by itself: what it has in common with others is nobody's business.
 */
#include "daemon/share_private.h"
#include "daemon/util/clock.h"

#define REST_PAGES 4096U /* at rest: seldom, since each job wakes a worker and the loop */
#define AT_ONCE    2U
#define BURST_PART 8U /* of its pages, when it comes */
#define WORK_AGAIN (100 * BL_MSEC)
/* After a burst all that matched has had its second look once by then; content with hundreds of copies is compared in
 * several rounds, and what of it was not yet counts as unmatched meanwhile. */
#define SECOND_LOOKS (200 * BL_MSEC)

/* --- what is next ------------------------------------------------------------------- */

static void wake_at(struct bl_manager *m, usec_t at)
{
        (void)sd_event_source_set_time(m->share.timer, at);
        (void)sd_event_source_set_enabled(m->share.timer, at == BL_UNSET ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

uint64_t bl_share_burst_pages(const struct bl_guest_share *s)
{
        return bl_max(s->source->source->n_pages / BURST_PART, BL_EVIDENCE_PIECE);
}

void bl_share_burst_begin(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        s->burst = bl_share_burst_pages(s);
        s->grown_from = bl_shadow_resident(g);
        s->used_from = 0;
        s->burst_at = g->m->share.burst_at = bl_now();
        /* its figures count again when what matches has had its second look, which is then not paced */
        s->met = false;
}

bool bl_share_can_sample(const struct bl_guest *g)
{
        const struct bl_share_source *s = g->share.source;

        return s && s->jobs == 0 && (s->alone || g->m->share.evidence);
}

/* All that was sampled at the start was looked at twice, where it matched: the figures say something. */
static void meet(struct bl_manager *m)
{
        bool news = false;

        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest_share *s = &m->guests[i]->share;

                if (s->met || s->renew || !s->source || s->burst > 0 || s->source->jobs > 0)
                        continue;
                s->met = news = true;
        }
        if (!news)
                return;
        m->share.figures_at = 0;
        bl_tick_soon(m, 0);
}

/* One job of the burst of some VM; false: there is none to begin. */
static bool burst_on(struct bl_manager *m)
{
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];
                uint64_t pages = bl_min(g->share.burst, BL_SHARE_JOB_PAGES);

                if (g->share.burst == 0 || !bl_share_can_sample(g))
                        continue;
                g->share.burst -= pages;
                return bl_share_job_sample(g, pages, true);
        }
        return false;
}

/* The VM after the one that was sampled last. */
static struct bl_guest *next_guest(struct bl_manager *m)
{
        for (size_t k = 0; k < m->n_guests; k++) {
                struct bl_guest *g = m->guests[(m->share.turn + k) % m->n_guests];

                if (bl_share_can_sample(g)) {
                        m->share.turn = (m->share.turn + k + 1) % m->n_guests;
                        return g;
                }
        }
        return NULL;
}

static size_t sources(const struct bl_manager *m)
{
        size_t n = 0;

        for (size_t i = 0; i < m->n_guests; i++)
                n += m->guests[i]->share.source != NULL;
        return n;
}

static bool unmet(const struct bl_manager *m)
{
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.source && !m->guests[i]->share.met)
                        return true;
        return false;
}

/* Second looks, when they are due; those of a burst are not paced.  True: one was begun, or is to be waited for. */
static bool confirm_on(struct bl_manager *m, usec_t now)
{
        usec_t at = m->share.evidence ? bl_evidence_confirm_at(m->share.evidence) : BL_UNSET;
        bool new = unmet(m);

        if (!new)
                m->share.unmet_at = 0;
        else if (m->share.unmet_at == 0)
                m->share.unmet_at = now;
        if (at != BL_UNSET && at <= now && (new || now >= m->share.next_at) && bl_share_job_confirm(m, now, new) > 0)
                return true;
        if (!new)
                return false;
        if (at == BL_UNSET || at <= now || now - m->share.unmet_at >= SECOND_LOOKS) {
                m->share.unmet_at = 0;
                meet(m);
                return false;
        }
        wake_at(m, at);
        return true;
}

void bl_share_work(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        usec_t now = bl_now();
        struct bl_guest *g;

        if (s->confirming || !s->timer)
                return;
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.again && bl_share_can_sample(m->guests[i]))
                        bl_share_job_again(m->guests[i]);
        for (size_t i = 0; i < m->n_guests && s->jobs < AT_ONCE; i++)
                if (m->guests[i]->share.renew && bl_share_can_sample(m->guests[i]))
                        (void)bl_share_job_refresh(m->guests[i]);
        while (s->jobs < AT_ONCE && burst_on(m))
                ;
        /* a confirmation has all to itself, and its end comes back here */
        if (s->jobs > 0 || confirm_on(m, now))
                return;
        g = now >= s->next_at ? next_guest(m) : NULL;
        if (g && bl_share_job_sample(g, REST_PAGES, false))
                return;
        wake_at(m, sources(m) > 0 ? bl_max(s->next_at, now + WORK_AGAIN) : BL_UNSET);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        bl_share_work(userdata);
        return 0;
}

/* --- who ---------------------------------------------------------------------------- */

static bool wanted(const struct bl_guest *g)
{
        const struct bl_manager *m = g->m;

        if (!g->desc || !g->desc->has_instance || !g->resident || g->share.mode == BL_SHARE_OFF)
                return false;
        return g->share.mode == BL_SHARE_GROUP ? m->conf->share_mode == BL_SHARE_GROUP : g->share.zero_possible;
}

static void sample_anew(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        bl_evidence_forget(s->source->alone ? s->source->alone : g->m->share.evidence, s->scan_id);
        /* what a job under way brings is of the old one */
        s->scan_id = ++g->m->share.last_id;
        bl_share_hints_again(g);
        bl_share_burst_begin(g);
}

static void check_one(struct bl_guest *g, usec_t now)
{
        struct bl_guest_share *s = &g->share;

        if (!wanted(g) || (s->source && (s->source->alone != NULL) != (s->mode == BL_SHARE_ZERO)))
                bl_share_evidence_forget(g);
        if (!wanted(g))
                return;
        if (!s->source) {
                if (!s->opening && now >= s->open_at)
                        bl_share_source_open(g);
                return;
        }
        bl_share_hints_ask(g, now);
        bl_share_hints_apply(g, now);
        if (bl_share_has_grown(g, now))
                sample_anew(g);
}

void bl_share_evidence_check(struct bl_manager *m, usec_t now)
{
        bool group = m->conf->share_mode == BL_SHARE_GROUP, due = false;

        if (group && !m->share.evidence)
                (void)bl_evidence_new(NULL, &m->share.evidence);
        for (size_t i = 0; i < m->n_guests; i++) {
                const struct bl_guest_share *s = &m->guests[i]->share;

                check_one(m->guests[i], now);
                due = due || s->burst > 0 || s->again;
        }
        if (!group && m->share.jobs == 0)
                m->share.evidence = bl_evidence_free(m->share.evidence);
        if (due)
                bl_share_work(m);
}

void bl_share_evidence_renew(struct bl_manager *m)
{
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest_share *s = &m->guests[i]->share;

                if (!s->source || s->source->alone || !m->share.evidence)
                        continue;
                s->renew = true;
                s->met = false;
        }
        bl_share_work(m);
}

void bl_share_evidence_forget(struct bl_guest *g)
{
        /* one that is being opened is closed when it comes */
        if (g->share.source || g->share.opening) {
                bl_share_source_close(g);
                g->share.scan_id = ++g->m->share.last_id;
                g->share.opening = false;
        }
}

void bl_share_evidence_figures(struct bl_manager *m)
{
        _cleanup_free_ uint64_t *ids = calloc(m->n_guests ? m->n_guests : 1, sizeof *ids);
        _cleanup_free_ struct bl_evidence_figures *f = calloc(m->n_guests ? m->n_guests : 1, sizeof *f);
        usec_t begin = bl_now_thread_cpu();
        size_t n = 0;

        if (!ids || !f)
                return;
        m->share.fresh = false;
        m->share.figures_at = bl_now();
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest_share *s = &m->guests[i]->share;

                if (s->source && s->source->alone)
                        bl_evidence_figures(s->source->alone, &s->scan_id, 1, &s->figures);
                else if (s->source)
                        ids[n++] = s->scan_id;
        }
        if (n == 0 || !m->share.evidence)
                return;
        bl_evidence_figures(m->share.evidence, ids, n, f);
        m->share.loop_cpu += bl_now_thread_cpu() - begin;
        for (size_t i = n = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.source && !m->guests[i]->share.source->alone)
                        m->guests[i]->share.figures = f[n++];
}

/* --- life --------------------------------------------------------------------------- */

int bl_share_evidence_start(struct bl_manager *m)
{
        int r = sd_event_add_time(m->event, &m->share.timer, CLOCK_MONOTONIC, 0, 50 * BL_MSEC, on_timer, m);

        return r < 0 ? r : sd_event_source_set_enabled(m->share.timer, SD_EVENT_OFF);
}

void bl_share_evidence_stop(struct bl_manager *m)
{
        m->share.timer = sd_event_source_disable_unref(m->share.timer);
        m->share.evidence = bl_evidence_free(m->share.evidence);
}
