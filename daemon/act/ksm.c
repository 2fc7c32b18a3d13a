/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/act/ksm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/act/ksm_knobs.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"

/* ksm.h has the figures: without sleep a small batch costs nothing, and lets go of its mutex soon. */
#define BATCH "200"

/* Less than a whole core: ksmd sleeps after each batch; milliseconds.  The kernel's ticks are up to 10 of them, so a
 * batch is long enough to be half of the time beside one. */
#define BATCH_SLEEPING "2000"
#define BATCH_TAKES    UINT64_C(8) /* where little is merged; what it does take is seen */
#define SLEEP_MAX      1000U
#define ADJUST         (1 * BL_SEC)

/* A page may be mapped so often before it gets a second copy (a chain of duplicates, mm/ksm.c).  The default costs
 * 1/256 of what is merged; more makes the kernel's walks over all mappings of a page as long. */
#define SHARING_LEAST 256U
#define SHARING_MOST  1024U

struct bl_ksm {
        struct bl_ksm_options o;
        struct bl_knobs knobs;
        struct bl_ksm_sensor *sensor;
        bool driven, yielded;
        unsigned sleep; /* milliseconds; of the drive under way */
        usec_t seen_at, seen_cpu; /* when sleep was last judged */
        char reason[256], warning[512];
};

/* --- life ------------------------------------------------------------------------ */

int bl_ksm_new(const struct bl_ksm_options *o, struct bl_ksm **ret)
{
        _cleanup_(bl_ksm_freep) struct bl_ksm *k = calloc(1, sizeof *k);
        char run[BL_KNOB_TEXT];
        int r;

        if (!k)
                return -ENOMEM;
        k->o = *o;
        k->knobs = (struct bl_knobs){.root = o->root, .ledger = o->ledger, .save = o->save, .userdata = o->userdata};
        r = bl_ksm_sensor_new(o->root, &k->sensor);
        if (r < 0)
                return r;
        /* an earlier daemon was killed in the middle of it */
        k->driven = bl_knob_claimed(&k->knobs, BL_KNOB_RUN) && bl_knob_read(o->root, BL_KNOB_RUN, run) == 0 &&
                    strcmp(run, "1") == 0;
        *ret = BL_TAKE(k);
        return 0;
}

struct bl_ksm *bl_ksm_free(struct bl_ksm *k)
{
        if (!k)
                return NULL;
        k->sensor = bl_ksm_sensor_free(k->sensor);
        free(k);
        return NULL;
}

const char *bl_ksm_error(int r)
{
        switch (r) {
        case -ENODEV:
                return "this kernel has no KSM (CONFIG_KSM)";
        case -EROFS:
                return "/sys is mounted read-only here, as in a container or a service with ProtectKernelTunables=: "
                       "KSM "
                       "can only be set where /sys/kernel/mm/ksm can be written to (ReadWritePaths=)";
        case -EACCES:
        case -EPERM:
                return "only root may write to /sys/kernel/mm/ksm, and a security module may forbid it: see its log";
        case -EBUSY:
                return "somebody else sets KSM, or something is merged still";
        default:
                return strerror(-r);
        }
}

/* --- somebody else --------------------------------------------------------------- */

static int yield(struct bl_ksm *k, const struct bl_knob_change *c)
{
        const char *path = bl_knob_path(c->knob);

        (void)snprintf(k->reason, sizeof k->reason,
                       "somebody changed %s from %s to %s (ksmtuned, tuned, an administrator); KSM is left to them",
                       path, c->ours, c->now);
        k->yielded = true;
        k->driven = false;
        /* what cannot be put back now is put back with the next release */
        (void)bl_knobs_put_back_all(&k->knobs);
        if (k->o.handler.on_yield)
                k->o.handler.on_yield(k->o.userdata, path, c->ours, c->now);
        return -EBUSY;
}

void bl_ksm_take_again(struct bl_ksm *k)
{
        k->yielded = false;
        k->reason[0] = '\0';
}

bool bl_ksm_yielded(const struct bl_ksm *k)
{
        return k->yielded;
}

const char *bl_ksm_yield_reason(const struct bl_ksm *k)
{
        return k->yielded ? k->reason : NULL;
}

/* --- what it is to be like ---------------------------------------------------------- */

/* The word in brackets of "always [madvise] never". */
static bool is_chosen(const char *root, const char *path, const char *word)
{
        char text[128], wanted[32];

        (void)snprintf(wanted, sizeof wanted, "[%s]", word);
        return bl_fs_read(root, path, text, sizeof text) > 0 && strstr(text, wanted);
}

/* Does khugepaged make huge pages of 2 MiB?  Since 6.8 each size has a switch of its own, which may defer to the
 * common one (Documentation/admin-guide/mm/transhuge.rst). */
static bool thp_is_on(const char *root)
{
        static const char *const on[] = {"always", "madvise"};

        for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
                if (is_chosen(root, THP "hugepages-2048kB/enabled", on[i]))
                        return true;
                if (is_chosen(root, THP "enabled", on[i]) && !is_chosen(root, THP "hugepages-2048kB/enabled", "never"))
                        return true;
        }
        return false;
}

static uint64_t read_number(const char *root, enum bl_knob k, uint64_t otherwise)
{
        char text[BL_KNOB_TEXT];
        uint64_t v;

        return bl_knob_read(root, k, text) == 0 && bl_uint_parse(text, &v) == 0 ? v : otherwise;
}

static void warn_of_thp(struct bl_ksm *k, bool allowed)
{
        const uint64_t shared = read_number(k->o.root, BL_KNOB_MAX_PTES_SHARED, 511),
                       none = read_number(k->o.root, BL_KNOB_MAX_PTES_NONE, 511);

        k->warning[0] = '\0';
        if (allowed || !thp_is_on(k->o.root) || (shared == 0 && none == 0))
                return;
        (void)snprintf(k->warning, sizeof k->warning,
                       "khugepaged takes merged pages apart again: all of those in each 2 MiB with no more than %u of "
                       "512 pages merged (max_ptes_shared), and zero pages where there are no more than %u of 512 "
                       "(max_ptes_none).  Merging then costs without saving, and the guests get huge pages for it; "
                       "HostKnobs=yes lets Ballast set both to 0, for all programs of the host",
                       (unsigned)shared, (unsigned)none);
}

static const char *sharing_wants(const struct bl_ksm *k, const struct bl_ksm_figures *f, unsigned vms,
                                 char buf[BL_KNOB_TEXT])
{
        const uint64_t want = bl_clamp(2 * (uint64_t)vms, SHARING_LEAST, SHARING_MOST);

        if (f->pages_shared != 0 || read_number(k->o.root, BL_KNOB_MAX_PAGE_SHARING, UINT64_MAX) >= want)
                return NULL;
        (void)snprintf(buf, BL_KNOB_TEXT, "%u", (unsigned)want);
        return buf;
}

/*
 * A batch that takes t is followed by a sleep of s, so that ksmd takes t / (t + s).  t is between a millisecond and
 * 80, and s is rounded to the kernel's ticks; what came of it is seen, and s corrected by the ratio.
 */
static unsigned sleep_for(struct bl_ksm *k, permyriad_t cpu, const struct bl_ksm_figures *f)
{
        const usec_t now = bl_now();
        const uint64_t share = bl_max(cpu, 1);
        uint64_t used, s;

        if (cpu >= BL_WHOLE)
                return 0;
        if (!k->driven || k->sleep == 0 || f->ksmd_cpu == BL_UNSET) {
                k->seen_at = now;
                k->seen_cpu = f->ksmd_cpu;
                return (unsigned)bl_clamp(BATCH_TAKES * (BL_WHOLE - share) / share, 1, SLEEP_MAX);
        }
        if (now - k->seen_at < ADJUST)
                return k->sleep;
        used = bl_min(bl_sub_sat(f->ksmd_cpu, k->seen_cpu) * BL_WHOLE / (now - k->seen_at), BL_WHOLE - 1);
        k->seen_at = now;
        k->seen_cpu = f->ksmd_cpu;
        s = k->sleep * used / (BL_WHOLE - used) * (BL_WHOLE - share) / share;
        s = bl_clamp(s, 1, SLEEP_MAX);
        /* each change is written down first */
        return bl_distance(s, k->sleep) * 4 > k->sleep ? (unsigned)s : k->sleep;
}

/* --- drive and rest ------------------------------------------------------------------ */

static int may(struct bl_ksm *k, struct bl_ksm_figures *ret)
{
        return k->yielded ? -EBUSY : bl_ksm_sensor_read(k->sensor, ret);
}

static int set(struct bl_ksm *k, const char *const to[_BL_KNOB_MAX])
{
        struct bl_knob_change c;
        int r = bl_knobs_set(&k->knobs, to, &c);

        return r > 0 ? yield(k, &c) : r;
}

/* What is no longer wanted is as it was found. */
static int drop(struct bl_ksm *k, const char *const to[_BL_KNOB_MAX])
{
        static const enum bl_knob optional[] = {BL_KNOB_SMART_SCAN, BL_KNOB_USE_ZERO_PAGES, BL_KNOB_MAX_PTES_NONE,
                                                BL_KNOB_MAX_PTES_SHARED};

        for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
                int r = to[optional[i]] ? 0 : bl_knobs_put_back(&k->knobs, optional[i]);

                if (r < 0)
                        return r;
        }
        return 0;
}

int bl_ksm_drive(struct bl_ksm *k, const struct bl_ksm_drive *d)
{
        const char *to[_BL_KNOB_MAX] = {
                [BL_KNOB_ADVISOR_MODE] = "none",
                [BL_KNOB_PAGES_TO_SCAN] = d->cpu < BL_WHOLE ? BATCH_SLEEPING : BATCH,
                [BL_KNOB_RUN] = "1",
        };
        char sleep[BL_KNOB_TEXT], sharing[BL_KNOB_TEXT];
        struct bl_ksm_figures f;
        unsigned ms;
        bool thp;
        int r = may(k, &f);

        if (r < 0)
                return r;
        thp = thp_is_on(k->o.root);
        if (thp && d->host_knobs)
                to[BL_KNOB_MAX_PTES_SHARED] = to[BL_KNOB_MAX_PTES_NONE] = "0";
        if (!thp || d->host_knobs)
                to[BL_KNOB_USE_ZERO_PAGES] = "1";
        if (d->thorough)
                to[BL_KNOB_SMART_SCAN] = "0";
        to[BL_KNOB_MAX_PAGE_SHARING] = sharing_wants(k, &f, d->vms, sharing);
        ms = sleep_for(k, d->cpu, &f);
        (void)snprintf(sleep, sizeof sleep, "%u", ms);
        to[BL_KNOB_SLEEP_MILLISECS] = sleep;
        r = set(k, to);
        if (r == 0)
                r = drop(k, to);
        if (r < 0)
                return r;
        warn_of_thp(k, d->host_knobs);
        k->sleep = ms;
        k->driven = true;
        return 0;
}

int bl_ksm_rest(struct bl_ksm *k)
{
        const char *to[_BL_KNOB_MAX] = {[BL_KNOB_RUN] = "0"};
        struct bl_ksm_figures f;
        int r = may(k, &f);

        if (r == 0)
                r = set(k, to);
        if (r == 0)
                k->driven = false;
        return r;
}

int bl_ksm_release(struct bl_ksm *k)
{
        k->driven = false;
        return bl_knobs_put_back_all(&k->knobs);
}

bool bl_ksm_driven(const struct bl_ksm *k)
{
        return k->driven;
}

bool bl_ksm_holds(const struct bl_ksm *k)
{
        return bl_knobs_hold(&k->knobs);
}

const char *bl_ksm_thp_warning(const struct bl_ksm *k)
{
        return k->warning[0] ? k->warning : NULL;
}

int bl_ksm_look(struct bl_ksm *k, struct bl_ksm_figures *ret)
{
        struct bl_knob_change c;
        int r = bl_ksm_sensor_read(k->sensor, ret);

        if (r == 0 && !k->yielded && bl_knobs_look(&k->knobs, &c) > 0)
                (void)yield(k, &c);
        return r;
}

/* --- without a daemon ------------------------------------------------------------------- */

static int save_ledger(void *userdata)
{
        return bl_ledger_save(userdata, false);
}

int bl_ksm_restore_host(const char *root, const char *state_dir, char **ret_message)
{
        struct bl_knobs b = {.root = root, .save = save_ledger};
        struct bl_ledger *l = NULL;
        int r = bl_ledger_open(state_dir, NULL, &l, ret_message);

        if (r == -ENOENT) {
                free(*ret_message);
                *ret_message = NULL;
                return 0;
        }
        if (r < 0)
                return r;
        b.ledger = b.userdata = l;
        r = bl_knobs_put_back_all(&b);
        /* that a damaged ledger was put aside must not be forgotten: the next daemon is not to trust an empty one */
        if (r >= 0 && !bl_ledger_trusted(l) && bl_ledger_save(l, false) < 0)
                r = -EIO;
        (void)bl_ledger_free(l);
        return r;
}
