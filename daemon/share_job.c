// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Looking at memory, in workers: jobs that sample it, look a second time, lay it out anew, or send zero pages out.
 *
 * Each is short.  One that blocks (a VM whose memory map is locked) keeps the others waiting, and nobody else.
 */
#include "daemon/act/zero_pages.h"
#include "daemon/share_private.h"
#include "daemon/util/clock.h"

/* So many pages that are seen to have a copy are worth a tick at once: a MiB of the sample. */
#define WORTH_A_LOOK 256U

/* Zero pages go out at this pace: 32 MiB a second at most, on a twentieth of a core. */
#define ZERO_PAGES  UINT64_C(8192)
#define ZERO_TIME   (500 * BL_MSEC)
#define ZERO_PACE   (1 * BL_SEC)
#define ZERO_CPU    500U /* permyriad */
#define ZERO_SETTLE (100 * BL_MSEC)

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
                (void)bl_share_source_unref(j->sources[i]);
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
                bl_zero_pages_out(s->source, j->first, ZERO_PAGES, j->bytes, ZERO_TIME, ZERO_CPU, ZERO_SETTLE, &s->stop,
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
                        bl_share_source_close(g);
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
        bl_share_source_close(g);
        if (j->r > 0)
                g->share.scan_id = ++g->m->share.last_id;
        else
                bl_share_source_put_off(g);
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
                bl_share_source_close(g);
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
                bl_share_work(m);
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

bool bl_share_job_sample(struct bl_guest *g, size_t pages, bool burst)
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

bool bl_share_job_refresh(struct bl_guest *g)
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

int bl_share_job_confirm(struct bl_manager *m, usec_t now, bool burst)
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
        r = bl_evidence_confirm_new(m->share.evidence, vms, n, now, BL_SHARE_JOB_PAGES, &j->evidence);
        if (r < 0 || !j->evidence)
                goto out;
        m->share.confirming = submit(BL_TAKE(j));
        return m->share.confirming;
out:
        if (j)
                job_free(j);
        return r;
}

void bl_share_job_again(struct bl_guest *g)
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
