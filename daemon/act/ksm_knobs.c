/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/act/ksm_knobs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fault.h"
#include "daemon/util/fs.h"

#define MM         "/sys/kernel/mm/"
#define KHUGEPAGED "transparent_hugepage/khugepaged/"

static const char *const paths[_BL_KNOB_MAX] = {
        [BL_KNOB_MAX_PTES_SHARED] = KHUGEPAGED "max_ptes_shared",
        [BL_KNOB_MAX_PTES_NONE] = KHUGEPAGED "max_ptes_none",
        [BL_KNOB_ADVISOR_MODE] = "ksm/advisor_mode",
        [BL_KNOB_MAX_PAGE_SHARING] = "ksm/max_page_sharing",
        [BL_KNOB_USE_ZERO_PAGES] = "ksm/use_zero_pages",
        [BL_KNOB_SMART_SCAN] = "ksm/smart_scan",
        [BL_KNOB_SLEEP_MILLISECS] = "ksm/sleep_millisecs",
        [BL_KNOB_PAGES_TO_SCAN] = "ksm/pages_to_scan",
        [BL_KNOB_RUN] = "ksm/run",
};

const char *bl_knob_path(enum bl_knob k)
{
        return paths[k];
}

/* --- the files ---------------------------------------------------------------------- */

static int full_path(const char *root, enum bl_knob k, char *buf, size_t size)
{
        char below[128];

        (void)snprintf(below, sizeof below, MM "%s", paths[k]);
        return bl_path_join(buf, size, root, below);
}

int bl_knob_read(const char *root, enum bl_knob k, char ret[BL_KNOB_TEXT])
{
        char path[PATH_MAX], buf[128], *value, *end;
        ssize_t n;
        int r = full_path(root, k, path, sizeof path);

        if (r < 0)
                return r;
        n = bl_fs_read(NULL, path, buf, sizeof buf);
        if (n < 0)
                return n == -EFBIG ? -EMSGSIZE : (int)n;
        buf[strcspn(buf, "\n")] = '\0';
        value = strchr(buf, '[');
        end = value ? strchr(value, ']') : NULL;
        if (end)
                *end = '\0';
        value = end ? value + 1 : buf;
        if (strlen(value) >= BL_KNOB_TEXT)
                return -EMSGSIZE;
        (void)snprintf(ret, BL_KNOB_TEXT, "%s", value);
        return 0;
}

static int write_knob(const char *root, enum bl_knob k, const char *value)
{
        _cleanup_close_ int fd = -1;
        char path[PATH_MAX];
        int r = full_path(root, k, path, sizeof path);

        if (r < 0)
                return r;
        /* a file of sysfs takes a value with one write, and ignores O_TRUNC */
        fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

/* --- claims ------------------------------------------------------------------------------ */

static const struct bl_ledger_knob *claim(const struct bl_knobs *b, enum bl_knob k)
{
        return bl_ledger_find_knob(b->ledger, paths[k]);
}

bool bl_knob_claimed(const struct bl_knobs *b, enum bl_knob k)
{
        return claim(b, k) != NULL;
}

bool bl_knobs_hold(const struct bl_knobs *b)
{
        for (int k = 0; k < _BL_KNOB_MAX; k++)
                if (bl_knob_claimed(b, (enum bl_knob)k))
                        return true;
        return false;
}

/* A claim that is not through is one of a daemon that was killed, or of a write that failed: both values are ours. */
static bool is_ours(const struct bl_ledger_knob *c, const char *now)
{
        return strcmp(now, c->ours) == 0 || (c->before && strcmp(now, c->before) == 0);
}

/* 1: changed; 0: as it is to be, *ret is its value; -ENOENT. */
static int look_at(const struct bl_knobs *b, enum bl_knob k, char now[BL_KNOB_TEXT], struct bl_knob_change *ret)
{
        const struct bl_ledger_knob *c = claim(b, k);
        int r = bl_knob_read(b->root, k, now);

        if (r < 0 || !c || is_ours(c, now))
                return r;
        ret->knob = k;
        (void)snprintf(ret->ours, sizeof ret->ours, "%s", c->ours);
        (void)snprintf(ret->now, sizeof ret->now, "%s", now);
        return 1;
}

int bl_knobs_look(const struct bl_knobs *b, struct bl_knob_change *ret)
{
        char now[BL_KNOB_TEXT];

        for (int k = 0; k < _BL_KNOB_MAX; k++) {
                /* one that cannot be read says nothing */
                if (bl_knob_claimed(b, (enum bl_knob)k) && look_at(b, (enum bl_knob)k, now, ret) > 0)
                        return 1;
        }
        return 0;
}

/* --- setting them -------------------------------------------------------------------------- */

/* What is in sysfs is what it was before this write: so is the record. */
static void take_back(const struct bl_knobs *b, enum bl_knob k)
{
        char now[BL_KNOB_TEXT];
        const struct bl_ledger_knob *c = claim(b, k);

        if (!c || bl_knob_read(b->root, k, now) < 0 || !is_ours(c, now))
                return;
        if (strcmp(now, c->was) == 0) {
                (void)bl_ledger_forget_knob(b->ledger, paths[k]);
                return;
        }
        if (bl_ledger_begin_knob(b->ledger, paths[k], now, now) == 0)
                (void)bl_ledger_end_knob(b->ledger, paths[k]);
}

static int save(const struct bl_knobs *b)
{
        return b->save(b->userdata);
}

/* One that is still that of the look before. */
struct planned {
        bool claim, write;
        char now[BL_KNOB_TEXT];
};

static int plan(const struct bl_knobs *b, const char *const to[_BL_KNOB_MAX], struct planned *p,
                struct bl_knob_change *ret)
{
        for (int k = 0; k < _BL_KNOB_MAX; k++) {
                const struct bl_ledger_knob *c = claim(b, (enum bl_knob)k);
                int r;

                p[k] = (struct planned){0};
                if (!to[k] && !c)
                        continue;
                r = look_at(b, (enum bl_knob)k, p[k].now, ret);
                if (r == -ENOENT)
                        continue;
                if (r != 0)
                        return r;
                if (!to[k])
                        continue;
                p[k].write = strcmp(p[k].now, to[k]) != 0;
                p[k].claim = p[k].write || !c || strcmp(c->ours, to[k]) != 0;
        }
        return 0;
}

static int write_all(const struct bl_knobs *b, const char *const to[_BL_KNOB_MAX], const struct planned *p)
{
        int r = bl_fault(BL_FAULT_KNOB_BEFORE_WRITE);

        for (int k = 0; k < _BL_KNOB_MAX; k++) {
                const enum bl_knob knob = (enum bl_knob)k;

                if (!p[k].claim)
                        continue;
                if (r == 0 && p[k].write)
                        r = write_knob(b->root, knob, to[k]);
                if (r == 0 && p[k].write)
                        r = bl_fault(BL_FAULT_KNOB_WRITTEN);
                if (r == 0) {
                        (void)bl_ledger_end_knob(b->ledger, paths[k]);
                        continue;
                }
                take_back(b, knob);
                if (r == -EBUSY && knob == BL_KNOB_MAX_PAGE_SHARING)
                        r = 0;
        }
        return r;
}

int bl_knobs_set(const struct bl_knobs *b, const char *const to[_BL_KNOB_MAX], struct bl_knob_change *ret)
{
        struct planned p[_BL_KNOB_MAX];
        bool any = false;
        int r = plan(b, to, p, ret);

        for (int k = 0; k < _BL_KNOB_MAX && r == 0; k++) {
                if (!p[k].claim)
                        continue;
                any = true;
                r = bl_ledger_begin_knob(b->ledger, paths[k], p[k].now, to[k]);
        }
        if (r != 0 || !any) {
                for (int k = 0; k < _BL_KNOB_MAX && r < 0; k++)
                        take_back(b, (enum bl_knob)k);
                return r;
        }
        r = save(b);
        if (r < 0) {
                for (int k = 0; k < _BL_KNOB_MAX; k++)
                        if (p[k].claim)
                                take_back(b, (enum bl_knob)k);
                return r;
        }
        r = write_all(b, to, p);
        /* that they are through is only worth knowing: the ledger's next writer takes it along if this fails */
        (void)save(b);
        return r;
}

/* --- and back --------------------------------------------------------------------------------- */

/* What knob k is put back to: "stopped, and all un-merged" and "stopped" differ only in what writing them does. */
static const char *original(const struct bl_ledger_knob *c, enum bl_knob k)
{
        return k == BL_KNOB_RUN && strcmp(c->was, "2") == 0 ? "0" : c->was;
}

/* Is it to be written?  1, 0; -ENOENT: there is no such knob any more; errors of reading. */
static int needs_write(const struct bl_knobs *b, enum bl_knob k, char now[BL_KNOB_TEXT])
{
        const struct bl_ledger_knob *c = claim(b, k);
        int r = bl_knob_read(b->root, k, now);

        return r < 0 ? r : is_ours(c, now) && strcmp(now, original(c, k)) != 0;
}

/* 1: written; 0: there was nothing to write. */
static int put_back(const struct bl_knobs *b, enum bl_knob k)
{
        char now[BL_KNOB_TEXT];
        int r = needs_write(b, k, now);

        if (r > 0) {
                r = write_knob(b->root, k, original(claim(b, k), k));
                if (r == 0)
                        r = bl_fault(BL_FAULT_KNOB_PUT_BACK);
                if (r == 0)
                        r = 1;
        }
        if (r < 0 && r != -ENOENT) {
                take_back(b, k);
                return r;
        }
        (void)bl_ledger_forget_knob(b->ledger, paths[k]);
        return r > 0;
}

/*
 * The ledger is told before: else the next daemon would take what was put back by one that was killed in the middle for
 * somebody else's doing.  When it cannot be told the knobs go back all the same.
 */
static int put_back_some(const struct bl_knobs *b, const bool some[_BL_KNOB_MAX])
{
        char now[BL_KNOB_TEXT];
        int n = 0, error = 0, r;

        for (int k = 0; k < _BL_KNOB_MAX; k++)
                if (some[k] && needs_write(b, (enum bl_knob)k, now) > 0)
                        (void)bl_ledger_begin_knob(b->ledger, paths[k], now,
                                                   original(claim(b, (enum bl_knob)k), (enum bl_knob)k));
        (void)save(b);
        for (int k = _BL_KNOB_MAX; k-- > 0;) {
                int one = some[k] ? put_back(b, (enum bl_knob)k) : 0;

                n += one > 0;
                if (one < 0 && error == 0)
                        error = one;
        }
        r = save(b);
        if (error == 0 && r < 0)
                error = r;
        return error < 0 ? error : n;
}

int bl_knobs_put_back(const struct bl_knobs *b, enum bl_knob k)
{
        bool some[_BL_KNOB_MAX] = {false};

        some[k] = bl_knob_claimed(b, k);
        return some[k] ? put_back_some(b, some) : 0;
}

int bl_knobs_put_back_all(const struct bl_knobs *b)
{
        bool some[_BL_KNOB_MAX];

        for (int k = 0; k < _BL_KNOB_MAX; k++)
                some[k] = bl_knob_claimed(b, (enum bl_knob)k);
        return bl_knobs_hold(b) ? put_back_some(b, some) : 0;
}
