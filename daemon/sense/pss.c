/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/pss.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include <ballast/cleanup.h>

#include "daemon/sense/resident.h"
#include "daemon/util/clock.h"
#include "daemon/util/fields.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

#define ROLLUP_MAX 4096
#define SOONEST    (10 * BL_SEC)
#define UNCHANGED  (300 * BL_SEC)

/* 0.2 % of one CPU: after a measurement that cost c, rest for 500 c */
#define REST 500

static const struct bl_field fields[] = {
        BL_FIELD(struct bl_pss, rss, "Rss"),           BL_FIELD(struct bl_pss, pss, "Pss"),
        BL_FIELD(struct bl_pss, pss_anon, "Pss_Anon"), BL_FIELD(struct bl_pss, anon, "Anonymous"),
        BL_FIELD(struct bl_pss, ksm, "KSM"),
};

int bl_pss_parse(const char *text, struct bl_pss *ret)
{
        struct bl_pss p = {0};
        int r;

        r = bl_fields_parse(text, fields, sizeof fields / sizeof *fields, &p);
        if (r < 0 || p.rss == BL_UNSET || p.pss == BL_UNSET || p.anon == BL_UNSET)
                return -EBADMSG;
        *ret = p;
        return 0;
}

int bl_pss_measure(const char *root, pid_t pid, uint64_t start, struct bl_pss *ret)
{
        _cleanup_(bl_resident_freep) struct bl_resident *process = NULL;
        char buf[ROLLUP_MAX];
        struct bl_pss p;
        usec_t begin;
        ssize_t n;
        int r;

        r = bl_resident_open(root, pid, start, &process);
        if (r < 0)
                return r;

        begin = bl_now_thread_cpu();
        n = bl_fs_read_at(bl_resident_dirfd(process), "smaps_rollup", buf, sizeof buf);
        if (n < 0)
                return n == -ENOENT ? -ESRCH : (int)n;
        r = bl_pss_parse(buf, &p);
        if (r < 0)
                /* nothing at all: it has ended between the two */
                return n == 0 ? -ESRCH : r;
        p.cost = bl_now_thread_cpu() - begin;

        *ret = p;
        return 0;
}

static bool is_about(uint64_t a, uint64_t b)
{
        return bl_distance(a, b) <= bl_max(a, b) / 50;
}

bool bl_pss_due(const struct bl_pss_pace *p, uint64_t anon, uint64_t bound, usec_t now)
{
        if (p->busy || now < p->next)
                return false;
        return p->at == 0 || p->doubted || now >= bl_add_sat(p->at, UNCHANGED) || bound == BL_UNSET ||
               !is_about(anon, p->anon) || !is_about(bound, p->merged);
}

void bl_pss_note(struct bl_pss_pace *p, const struct bl_pss *m, uint64_t bound, size_t n_vms, usec_t now)
{
        const usec_t rest = bl_mul_sat(bl_mul_sat(m->cost, REST), bl_max(n_vms, 1));

        *p = (struct bl_pss_pace){
                .savings = bl_pss_saved(m),
                .anon = m->anon,
                .merged = bound,
                .at = now,
                .cost = m->cost,
                .next = bl_add_sat(now, bl_max(rest, SOONEST)),
        };
}

void bl_pss_failed(struct bl_pss_pace *p, usec_t now)
{
        p->busy = false;
        p->next = bl_max(p->next, bl_add_sat(now, SOONEST));
}

uint64_t bl_pss_savings(const struct bl_pss_pace *p, uint64_t anon, uint64_t bound)
{
        uint64_t savings = p->savings;

        /* which pages the balloon took nobody knows: merged ones as likely as others */
        if (p->anon && anon < p->anon)
                savings = bl_part(savings, (permyriad_t)(bl_mul_sat(anon, BL_WHOLE) / p->anon));
        return bl_min(bl_min(savings, bound), anon);
}

int bl_pss_bound(int dirfd, uint64_t *ret)
{
        char buf[32];
        uint64_t pages;
        ssize_t n;

        n = bl_fs_read_at(dirfd, "ksm_merging_pages", buf, sizeof buf);
        if (n < 0)
                return n == -EFBIG ? -EBADMSG : (int)n;
        if (n == 0 || buf[n - 1] != '\n')
                return -EBADMSG;
        buf[n - 1] = '\0';
        if (bl_uint_parse(buf, &pages) < 0)
                return -EBADMSG;
        *ret = bl_mul_sat(pages, (uint64_t)sysconf(_SC_PAGESIZE));
        return 0;
}
