// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What merging would gain: samples of the VMs' memory, taken by workers.
 *
 * A VM that comes is sampled at once (a burst of 1/8 of its pages, in jobs of JOB_PAGES, two at a time), and anew when
 * it has grown, on the host or by its own statistics: samples that say of the new memory that it is absent, or what it
 * was, would make little of it.  Then all are gone through at the pace of ScanCpu=.  What matched is read a second time
 * by a job that has the memory of all VMs of the group, so nothing else runs beside it.  Each job is short; one that
 * blocks (a VM whose memory map is locked) keeps the others waiting, and nobody else: it is in a worker.
 *
 * VMs in mode zero are sampled too, each by itself: what it has in common with others is nobody's business.
 */
#include <string.h>

#include "daemon/act/zero_pages.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"

#define JOB_PAGES  4096U /* 16 MiB: some 6 ms */
#define REST_PAGES 4096U /* at rest: seldom, since each job wakes a worker and the loop */
#define AT_ONCE    2U
#define BURST_PART 8U /* of its pages, when it comes */
/* So much more than before, and more than that part of it, is worth sampling it anew. */
#define GROWTH      (16 * BL_MIB)
#define GROWTH_PART 16U
#define GROWTH_PACE (2 * BL_SEC)
/* It uses more of what it has from the host already, as it says: that may go up and down all day, and is the guest's
 * word.  So not soon again, and all of them together for no more than so many times ScanCpu=. */
#define REUSE_PACE  (30 * BL_SEC)
#define REUSE_CPU   10U
#define PAGES_A_SEC UINT64_C(1000000) /* sampled, or so (measured: 0.8 us each) */
/* So many pages that are seen to have a copy are worth a tick at once: a MiB of the sample. */
#define WORTH_A_LOOK 256U
#define OPEN_AGAIN   (10 * BL_SEC)
#define WORK_AGAIN   (100 * BL_MSEC)
#define SETTLE       (100 * BL_MSEC)
/* After a burst all that matched has had its second look once by then; content with hundreds of copies is compared in
 * several rounds, and what of it was not yet counts as unmatched meanwhile. */
#define SECOND_LOOKS (2 * SETTLE)
/* Of one VM by itself: 10,000 samples of zero pages are within 1 %. */
#define ALONE_MEMORY ((size_t)BL_MIB)

/* Zero pages go out at this pace: 32 MiB a second at most, on a twentieth of a core. */
#define ZERO_PAGES UINT64_C(8192)
#define ZERO_TIME  (500 * BL_MSEC)
#define ZERO_PACE  (1 * BL_SEC)
#define ZERO_CPU   500U /* permyriad */

static void work(struct bl_manager *m);

/* --- sources ---------------------------------------------------------------------- */

static struct bl_share_source *unref(struct bl_share_source *s)
{
        if (s && --s->users == 0) {
                (void)bl_source_free(s->source);
                (void)bl_evidence_free(s->alone);
                free(s);
        }
        return NULL;
}

struct opening {
        struct bl_call call;
        struct bl_manager *m;
        uint64_t id;
        pid_t pid;
        uint64_t start, guest_ram;
        char *name;
        struct bl_source *source;
        char *message;
        int r;
};

static void opening_free(struct opening *o)
{
        (void)bl_source_free(o->source);
        free(o->message);
        free(o->name);
        free(o);
}

static void run_open(void *arg)
{
        struct opening *o = arg;

        o->r = bl_source_process(o->pid, o->start, o->guest_ram, o->name, &o->source, &o->message);
}

static void begin_burst(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        s->burst = bl_max(s->source->source->n_pages / BURST_PART, BL_EVIDENCE_PIECE);
        s->grown_from = bl_shadow_resident(g);
        s->used_from = 0;
        s->burst_at = g->m->share.burst_at = bl_now();
        /* its figures count again when what matches has had its second look, which is then not paced */
        s->met = false;
}

/* Shared memory and the like is said by the groups already; what cannot be read is not. */
static void cannot_open(struct bl_guest *g, const struct opening *o)
{
        g->share.open_at = bl_now() + OPEN_AGAIN;
        if (o->r == -ESRCH || o->r == -ECANCELED || g->share.open_said == o->r)
                return;
        g->share.open_said = o->r;
        bl_log(LOG_WARNING, BL_EV_PLAIN, g->name, "share.unreadable", "the memory of %s is not looked at: %s", g->name,
               o->message ? o->message : strerror(-o->r));
}

static struct bl_share_source *source_new(struct opening *o, bool alone)
{
        const struct bl_evidence_options options = {.memory_max = ALONE_MEMORY};
        struct bl_share_source *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        if (alone && bl_evidence_new(&options, &s->alone) < 0) {
                free(s);
                return NULL;
        }
        s->source = BL_TAKE(o->source);
        s->users = 1;
        return s;
}

static void done_open(void *arg, int r)
{
        struct opening *o = arg;
        struct bl_guest *g = bl_call_guest(&o->call);
        struct bl_manager *m = o->m;

        m->share.jobs--;
        if (g && g->share.scan_id == o->id) {
                g->share.opening = false;
                if (r < 0)
                        o->r = r;
                if (o->r >= 0)
                        g->share.source = source_new(o, g->share.mode == BL_SHARE_ZERO);
                if (g->share.source) {
                        g->share.open_said = 0;
                        begin_burst(g);
                        bl_share_hints_again(g);
                        bl_share_hints_apply(g, bl_now());
                } else {
                        cannot_open(g, o);
                }
        }
        opening_free(o);
        if (r >= 0)
                work(m);
}

/* Reading its memory map may wait for a lock of the process: in a worker. */
static void open_source(struct bl_guest *g)
{
        const struct bl_instance *i = &g->desc->instance;
        struct opening *o = calloc(1, sizeof *o);

        if (!o)
                return;
        bl_call_init(&o->call, g);
        o->m = g->m;
        o->id = g->share.scan_id;
        o->pid = i->pid;
        o->start = i->start;
        o->guest_ram = bl_guest_max(g);
        o->name = strdup(g->name);
        if (!o->name || bl_pool_submit(g->m->pool, NULL, run_open, done_open, o) < 0) {
                opening_free(o);
                g->share.open_at = bl_now() + OPEN_AGAIN;
                return;
        }
        g->share.opening = true;
        g->m->share.jobs++;
}

/* --- jobs --------------------------------------------------------------------------- */

enum kind { FRESH, REFRESH, CONFIRM, AGAIN, ZERO };

struct job {
        struct bl_manager *m;
        enum kind kind;
        struct bl_evidence_job *evidence;
        bool burst;
        usec_t begun;
        /* FRESH, REFRESH, AGAIN, ZERO */
        struct bl_call call;
        uint64_t id;
        int r; /* AGAIN */
        uint64_t first, bytes; /* ZERO */
        struct bl_zero_result zero;
        /* all that it uses */
        size_t n;
        struct bl_share_source *sources[];
};

static void job_free(struct job *j)
{
        (void)bl_evidence_job_free(j->evidence);
        for (size_t i = 0; i < j->n; i++)
                (void)unref(j->sources[i]);
        free(j);
}

static struct job *job_new(struct bl_manager *m, enum kind kind, size_t sources)
{
        struct job *j = calloc(1, sizeof *j + sources * sizeof j->sources[0]);

        if (j) {
                j->m = m;
                j->kind = kind;
        }
        return j;
}

static void job_uses(struct job *j, struct bl_share_source *s)
{
        s->users++;
        j->sources[j->n++] = s;
}

static void run(void *arg)
{
        struct job *j = arg;
        struct bl_share_source *s = j->sources[0];

        switch (j->kind) {
        case FRESH:
        case REFRESH:
        case CONFIRM:
                bl_evidence_job_run(j->evidence);
                break;
        case AGAIN:
                j->r = s->source->ops->again ? s->source->ops->again(s->source) : 0;
                break;
        case ZERO:
                bl_zero_pages_out(s->source, j->first, ZERO_PAGES, j->bytes, ZERO_TIME, ZERO_CPU, SETTLE, &s->stop,
                                  &j->zero);
                break;
        }
}

/* The VM that it was about, if it is the same process still and uses the same source. */
static struct bl_guest *guest_of(const struct job *j)
{
        struct bl_guest *g = bl_call_guest(&j->call);

        return g && g->share.scan_id == j->id && g->share.source == j->sources[0] ? g : NULL;
}

static void close_source(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        if (s->source) {
                atomic_store(&s->source->stop, true);
                if (!s->source->alone && g->m->share.evidence)
                        bl_evidence_forget(g->m->share.evidence, s->scan_id);
        }
        s->source = unref(s->source);
        s->burst = 0;
        s->met = s->again = s->renew = s->zero_busy = false;
        s->figures = (struct bl_evidence_figures){0};
        g->m->share.fresh = true;
}

/* `cpu`: of the worker; what the loop itself had to do with it is paid for, too. */
static usec_t pay(struct bl_manager *m, const struct job *j, usec_t cpu)
{
        cpu += m->share.loop_cpu;
        m->share.loop_cpu = 0;
        m->share.scan_cpu += cpu;
        /* a burst is what it is */
        if (!j->burst)
                m->share.next_at = j->begun + bl_mul_sat(cpu, BL_WHOLE) / bl_max(m->conf->share_scan_cpu, 1);
        return cpu;
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

static void took_evidence(struct job *j)
{
        struct bl_manager *m = j->m;
        struct bl_evidence *e = j->kind == FRESH && j->sources[0]->alone ? j->sources[0]->alone : m->share.evidence;
        struct bl_guest *g = j->kind != CONFIRM ? guest_of(j) : NULL;
        usec_t begin = bl_now_thread_cpu(), cpu;
        struct bl_evidence_done d;

        /* of one that went meanwhile nothing is kept */
        if (!e || (j->kind != CONFIRM && !g))
                return;
        bl_evidence_job_take(e, BL_TAKE(j->evidence), bl_now(), &d);
        m->share.loop_cpu += bl_now_thread_cpu() - begin;
        cpu = pay(m, j, d.cpu);
        m->share.fresh = true;
        if (g) {
                g->share.scan_cpu += cpu;
                /* it ended, or its memory is laid out anew: opened again with the next check, if it is there */
                if (d.error == -ESRCH || d.error == -ESTALE)
                        close_source(g);
                return;
        }
        for (size_t i = 0; i < m->n_guests && j->n > 0; i++)
                if (m->guests[i]->share.source && !m->guests[i]->share.source->alone)
                        m->guests[i]->share.scan_cpu += cpu / j->n;
        /* while it rests, what was confirmed may wake it */
        if (d.confirmed >= WORTH_A_LOOK && !bl_share_busy(m)) {
                m->share.figures_at = 0;
                bl_tick_soon(m, 0);
        }
}

static void took_again(struct job *j)
{
        struct bl_guest *g = guest_of(j);

        if (!g || j->r == 0)
                return;
        /* pages have other numbers now: all is sampled anew */
        close_source(g);
        if (j->r > 0)
                g->share.scan_id = ++g->m->share.last_id;
        else
                g->share.open_at = bl_now() + OPEN_AGAIN;
}

static void took_zero(struct job *j)
{
        struct bl_guest *g = guest_of(j);

        j->m->share.scan_cpu += j->zero.cpu;
        if (!g)
                return;
        g->share.zero_busy = false;
        g->share.zero_at = bl_now();
        g->share.zero_next = j->zero.round ? 0 : j->zero.next;
        g->share.zero_out = bl_add_sat(g->share.zero_out, bl_mul_sat(j->zero.out, BL_PAGE_SIZE));
        g->share.scan_cpu += j->zero.cpu;
        if (j->zero.error == -ESRCH)
                close_source(g);
}

static void done(void *arg, int r)
{
        struct job *j = arg;
        struct bl_manager *m = j->m;

        m->share.jobs--;
        for (size_t i = 0; i < j->n; i++)
                j->sources[i]->jobs--;
        if (j->kind == CONFIRM)
                m->share.confirming = false;
        if (r >= 0) {
                switch (j->kind) {
                case FRESH:
                case REFRESH:
                case CONFIRM:
                        took_evidence(j);
                        break;
                case AGAIN:
                        took_again(j);
                        break;
                case ZERO:
                        took_zero(j);
                        break;
                }
        }
        job_free(j);
        if (r >= 0)
                work(m);
}

static bool submit(struct job *j)
{
        struct bl_manager *m = j->m;

        j->begun = bl_now();
        if (bl_pool_submit(m->pool, NULL, run, done, j) < 0) {
                job_free(j);
                return false;
        }
        for (size_t i = 0; i < j->n; i++)
                j->sources[i]->jobs++;
        m->share.jobs++;
        return true;
}

static struct job *job_for(struct bl_guest *g, enum kind kind)
{
        struct job *j = job_new(g->m, kind, 1);

        if (!j)
                return NULL;
        bl_call_init(&j->call, g);
        j->id = g->share.scan_id;
        job_uses(j, g->share.source);
        return j;
}

static bool sample(struct bl_guest *g, size_t pages, bool burst)
{
        struct bl_share_source *s = g->share.source;
        struct bl_evidence *e = s->alone ? s->alone : g->m->share.evidence;
        const struct bl_evidence_vm vm = {.id = g->share.scan_id, .source = s->source};
        struct job *j = job_for(g, FRESH);
        usec_t begin = bl_now_thread_cpu();
        int r;

        if (!j)
                return false;
        j->burst = burst;
        r = bl_evidence_fresh_new(e, vm, pages, &j->evidence);
        g->m->share.loop_cpu += bl_now_thread_cpu() - begin;
        if (r < 0) {
                job_free(j);
                return false;
        }
        return submit(j);
}

/* False: there is nothing to look at. */
static bool refresh(struct bl_guest *g)
{
        const struct bl_evidence_vm vm = {.id = g->share.scan_id, .source = g->share.source->source};
        struct job *j = job_for(g, REFRESH);

        g->share.renew = false;
        if (!j)
                return false;
        j->burst = true;
        if (bl_evidence_refresh_new(g->m->share.evidence, vm, &j->evidence) < 0 || !j->evidence) {
                job_free(j);
                return false;
        }
        return submit(j);
}

/* 1: begun, 0: nothing is due. */
static int confirm(struct bl_manager *m, usec_t now, bool burst)
{
        _cleanup_free_ struct bl_evidence_vm *vms = calloc(m->n_guests ? m->n_guests : 1, sizeof *vms);
        struct job *j = job_new(m, CONFIRM, m->n_guests);
        size_t n = 0;
        int r = -ENOMEM;

        if (!vms || !j)
                goto out;
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_share_source *s = m->guests[i]->share.source;

                if (!s || s->alone)
                        continue;
                vms[n++] = (struct bl_evidence_vm){.id = m->guests[i]->share.scan_id, .source = s->source};
                job_uses(j, s);
        }
        j->burst = burst;
        r = bl_evidence_confirm_new(m->share.evidence, vms, n, now, JOB_PAGES, &j->evidence);
        if (r < 0 || !j->evidence)
                goto out;
        m->share.confirming = submit(BL_TAKE(j));
        return m->share.confirming;
out:
        if (j)
                job_free(j);
        return r;
}

static void lay_out_again(struct bl_guest *g)
{
        struct job *j = job_for(g, AGAIN);

        g->share.again = false;
        if (j)
                (void)submit(j);
}

void bl_share_zero(struct bl_guest *g, uint64_t bytes, usec_t now)
{
        struct bl_guest_share *s = &g->share;
        struct job *j;

        if (!s->source || s->source->jobs > 0 || s->zero_busy || now < s->zero_at + ZERO_PACE)
                return;
        j = job_for(g, ZERO);
        if (!j)
                return;
        j->first = s->zero_next;
        j->bytes = bytes;
        s->zero_busy = submit(j);
}

/* --- what is next ------------------------------------------------------------------- */

static void wake_at(struct bl_manager *m, usec_t at)
{
        (void)sd_event_source_set_time(m->share.timer, at);
        (void)sd_event_source_set_enabled(m->share.timer, at == BL_UNSET ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

static bool can_sample(const struct bl_guest *g)
{
        const struct bl_share_source *s = g->share.source;

        return s && s->jobs == 0 && (s->alone || g->m->share.evidence);
}

/* One job of the burst of some VM; false: there is none to begin. */
static bool burst_on(struct bl_manager *m)
{
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];
                uint64_t pages = bl_min(g->share.burst, JOB_PAGES);

                if (g->share.burst == 0 || !can_sample(g))
                        continue;
                g->share.burst -= pages;
                return sample(g, pages, true);
        }
        return false;
}

/* The VM after the one that was sampled last. */
static struct bl_guest *next_guest(struct bl_manager *m)
{
        for (size_t k = 0; k < m->n_guests; k++) {
                struct bl_guest *g = m->guests[(m->share.turn + k) % m->n_guests];

                if (can_sample(g)) {
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
        if (at != BL_UNSET && at <= now && (new || now >= m->share.next_at) && confirm(m, now, new) > 0)
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

static void work(struct bl_manager *m)
{
        struct bl_share *s = &m->share;
        usec_t now = bl_now();
        struct bl_guest *g;

        if (s->confirming || !s->timer)
                return;
        for (size_t i = 0; i < m->n_guests; i++)
                if (m->guests[i]->share.again && can_sample(m->guests[i]))
                        lay_out_again(m->guests[i]);
        for (size_t i = 0; i < m->n_guests && s->jobs < AT_ONCE; i++)
                if (m->guests[i]->share.renew && can_sample(m->guests[i]))
                        (void)refresh(m->guests[i]);
        while (s->jobs < AT_ONCE && burst_on(m))
                ;
        /* a confirmation has all to itself, and its end comes back here */
        if (s->jobs > 0 || confirm_on(m, now))
                return;
        g = now >= s->next_at ? next_guest(m) : NULL;
        if (g && sample(g, REST_PAGES, false))
                return;
        wake_at(m, sources(m) > 0 ? bl_max(s->next_at, now + WORK_AGAIN) : BL_UNSET);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        work(userdata);
        return 0;
}

/* --- who ---------------------------------------------------------------------------- */

static bool wanted(const struct bl_guest *g)
{
        const struct bl_manager *m = g->m;

        if (!g->desc || !g->desc->has_instance || !g->resident || g->share.mode == BL_SHARE_OFF)
                return false;
        if (g->share.mode == BL_SHARE_GROUP)
                return m->conf->share_mode == BL_SHARE_GROUP;
        switch (g->share.no_share) {
        case BL_NO_SHARE_OK:
                return true;
        /* it asked for more, and has zero pages all the same */
        case BL_NO_SHARE_HOST:
        case BL_NO_SHARE_NO_GROUP:
        case BL_NO_SHARE_OTHER_GROUP:
        case BL_NO_SHARE_TWO_GROUPS:
        case BL_NO_SHARE_BACKEND:
                return m->host.swap_total > 0;
        case BL_NO_SHARE_XML:
        case BL_NO_SHARE_SHARED:
        case BL_NO_SHARE_HUGEPAGES:
        case BL_NO_SHARE_PINNED:
        case BL_NO_SHARE_NO_SWAP:
        case _BL_NO_SHARE_MAX:
                break;
        }
        return false;
}

/* What the guest itself uses; 0: it does not say. */
static uint64_t in_use(const struct bl_guest *g, usec_t now)
{
        const struct bl_guest_stats *s = bl_guest_stats_best(g, now);

        if (!s || s->total == BL_UNSET || s->unused == BL_UNSET)
                return 0;
        return bl_sub_sat(s->total, s->unused);
}

static bool is_more(uint64_t now, uint64_t before)
{
        return now > bl_add_sat(before, bl_max(GROWTH, before / GROWTH_PART));
}

/* Has it, and is it time to look?  The least since the last burst is what it has grown from. */
static bool has_grown(struct bl_guest *g, usec_t now)
{
        struct bl_guest_share *s = &g->share;
        struct bl_share *all = &g->m->share;
        uint64_t resident = bl_shadow_resident(g), used = in_use(g, now);
        usec_t cost = s->source->source->n_pages / BURST_PART * BL_SEC / PAGES_A_SEC;

        s->grown_from = bl_min(s->grown_from, resident);
        if (used > 0)
                s->used_from = s->used_from > 0 ? bl_min(s->used_from, used) : used;
        if (s->burst > 0 || !can_sample(g))
                return false;
        if (is_more(resident, s->grown_from))
                return now >= s->burst_at + GROWTH_PACE;
        if (!is_more(used, s->used_from) || now < s->burst_at + REUSE_PACE || now < all->reuse_next)
                return false;
        all->reuse_next =
                bl_add_sat(now, bl_mul_sat(cost, BL_WHOLE) / (bl_max(g->m->conf->share_scan_cpu, 1) * REUSE_CPU));
        return true;
}

static void sample_anew(struct bl_guest *g)
{
        struct bl_guest_share *s = &g->share;

        bl_evidence_forget(s->source->alone ? s->source->alone : g->m->share.evidence, s->scan_id);
        /* what a job under way brings is of the old one */
        s->scan_id = ++g->m->share.last_id;
        bl_share_hints_again(g);
        begin_burst(g);
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
                        open_source(g);
                return;
        }
        bl_share_hints_ask(g, now);
        bl_share_hints_apply(g, now);
        if (has_grown(g, now))
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
                work(m);
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
        work(m);
}

void bl_share_evidence_forget(struct bl_guest *g)
{
        /* one that is being opened is closed when it comes */
        if (g->share.source || g->share.opening) {
                close_source(g);
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
