/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/ksm.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "daemon/sense/vmstat.h"
#include "daemon/util/fields.h"
#include "daemon/util/fs.h"
#include "daemon/util/size.h"

#define KSM    "/sys/kernel/mm/ksm/"
#define NUMBER 32
/* A host with more processes than that is looked at in part; the kernel's threads come first. */
#define PROCESSES_MAX 65536
/* include/linux/sched.h: a thread of the kernel, whatever a program calls itself */
#define PF_KTHREAD 0x00200000U

static const struct {
        const char *path;
        size_t offset;
} files[] = {
        {KSM "full_scans", offsetof(struct bl_ksm_figures, full_scans)},
        {KSM "pages_shared", offsetof(struct bl_ksm_figures, pages_shared)},
        {KSM "pages_sharing", offsetof(struct bl_ksm_figures, pages_sharing)},
        {KSM "pages_unshared", offsetof(struct bl_ksm_figures, pages_unshared)},
        {KSM "pages_volatile", offsetof(struct bl_ksm_figures, pages_volatile)},
        {KSM "ksm_zero_pages", offsetof(struct bl_ksm_figures, zero_pages)},
        {KSM "pages_scanned", offsetof(struct bl_ksm_figures, pages_scanned)},
        {KSM "pages_skipped", offsetof(struct bl_ksm_figures, pages_skipped)},
        {"/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed", offsetof(struct bl_ksm_figures, collapsed)},
};
#define N_FILES (sizeof files / sizeof *files)

enum thread { KSMD, KHUGEPAGED, _THREAD_MAX };

struct bl_ksm_sensor {
        struct bl_reader run, vmstat, file[N_FILES], thread[_THREAD_MAX];
};

/* --- its threads ----------------------------------------------------------- */

/* "36 (ksmd) S 2 0 0 0 -1 2097216 ..." (proc(5)): the flags are the 9th. */
static int thread_of(const char *stat)
{
        static const char *const names[_THREAD_MAX] = {"(ksmd) ", "(khugepaged) "};
        const char *name = strchr(stat, '(');
        unsigned flags;

        for (int i = 0; name && i < _THREAD_MAX; i++)
                if (strncmp(name, names[i], strlen(names[i])) == 0 &&
                    sscanf(name + strlen(names[i]), "%*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & PF_KTHREAD))
                        return i;
        return -1;
}

static void find_threads(struct bl_ksm_sensor *s, const char *root)
{
        _cleanup_closedir_ DIR *proc = NULL;
        char path[PATH_MAX], stat[512];
        int left = _THREAD_MAX;

        if (bl_path_join(path, sizeof path, root, "/proc") < 0)
                return;
        proc = opendir(path);
        for (int i = 0; proc && left > 0 && i < PROCESSES_MAX; i++) {
                const struct dirent *e = readdir(proc);
                ssize_t n;
                int t;

                if (!e)
                        break;
                if (e->d_name[0] < '1' || e->d_name[0] > '9')
                        continue;
                (void)snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
                n = bl_fs_read(root, path, stat, sizeof stat);
                if (n < 0 && n != -EFBIG)
                        continue;
                t = thread_of(stat);
                if (t < 0 || s->thread[t].fd >= 0)
                        continue;
                (void)snprintf(path, sizeof path, "/proc/%s/schedstat", e->d_name);
                (void)bl_reader_open(&s->thread[t], root, path);
                left--;
        }
}

/* Nanoseconds on a CPU, waited for one, and how often (Documentation/scheduler/sched-stats.rst). */
static usec_t thread_cpu(const struct bl_reader *r)
{
        char buf[96];
        uint64_t ns;

        if (bl_reader_read_once(r, buf, sizeof buf) <= 0)
                return BL_UNSET;
        buf[strcspn(buf, " \n")] = '\0';
        return bl_uint_parse(buf, &ns) < 0 ? BL_UNSET : ns / 1000;
}

/* --- the host's ------------------------------------------------------------- */

int bl_ksm_sensor_new(const char *root, struct bl_ksm_sensor **ret)
{
        struct bl_ksm_sensor *s = calloc(1, sizeof *s);

        if (!s)
                return -ENOMEM;
        s->run.fd = s->vmstat.fd = -1;
        for (size_t i = 0; i < N_FILES; i++)
                s->file[i].fd = -1;
        for (int i = 0; i < _THREAD_MAX; i++)
                s->thread[i].fd = -1;
        /* what this kernel does not have is BL_UNSET in every reading */
        if (bl_reader_open(&s->run, root, KSM "run") >= 0) {
                (void)bl_vmstat_open(&s->vmstat, root);
                for (size_t i = 0; i < N_FILES; i++)
                        (void)bl_reader_open(&s->file[i], root, files[i].path);
                find_threads(s, root);
        }
        *ret = s;
        return 0;
}

struct bl_ksm_sensor *bl_ksm_sensor_free(struct bl_ksm_sensor *s)
{
        if (!s)
                return NULL;
        bl_reader_close(&s->run);
        bl_reader_close(&s->vmstat);
        for (size_t i = 0; i < N_FILES; i++)
                bl_reader_close(&s->file[i]);
        for (int i = 0; i < _THREAD_MAX; i++)
                bl_reader_close(&s->thread[i]);
        free(s);
        return NULL;
}

/* A file that is one number. */
static uint64_t read_number(const struct bl_reader *r)
{
        char buf[NUMBER];
        uint64_t v;
        ssize_t n = bl_reader_read_once(r, buf, sizeof buf);

        if (n <= 0)
                return BL_UNSET;
        buf[strcspn(buf, "\n")] = '\0';
        return bl_uint_parse(buf, &v) < 0 ? BL_UNSET : v;
}

int bl_ksm_sensor_read(struct bl_ksm_sensor *s, struct bl_ksm_figures *ret)
{
        struct bl_ksm_figures f = {0};
        struct bl_vmstat v;
        uint64_t run = read_number(&s->run);

        if (run > UINT_MAX) {
                *ret = f;
                return -ENODEV;
        }
        f.there = true;
        f.run = (unsigned)run;
        for (size_t i = 0; i < N_FILES; i++)
                *(uint64_t *)(void *)((char *)&f + files[i].offset) = read_number(&s->file[i]);
        f.cow = bl_vmstat_read(&s->vmstat, &v) < 0 ? BL_UNSET : v.cow_ksm;
        f.ksmd_cpu = thread_cpu(&s->thread[KSMD]);
        f.khugepaged_cpu = thread_cpu(&s->thread[KHUGEPAGED]);
        *ret = f;
        return 0;
}

/* --- of one process ------------------------------------------------------------- */

/* "ksm_mergeable: yes" (fs/proc/base.c, 6.15) */
static int mergeable(const char *text)
{
        const char *p = strstr(text, "ksm_mergeable:");

        if (!p)
                return -1;
        p += strlen("ksm_mergeable:");
        p += strspn(p, " \t");
        return strncmp(p, "yes", 3) == 0;
}

int bl_ksm_process_read(int dirfd, struct bl_ksm_process *ret)
{
        /* "ksm_process_profit" may be negative, so it is not among them */
        static const struct bl_field fields[] = {
                BL_FIELD(struct bl_ksm_process, rmap_items, "ksm_rmap_items"),
                BL_FIELD(struct bl_ksm_process, zero, "ksm_zero_pages"),
                BL_FIELD(struct bl_ksm_process, merging, "ksm_merging_pages"),
        };
        struct bl_ksm_process p = {.zero = BL_UNSET, .rmap_items = BL_UNSET, .mergeable = -1};
        char buf[512];
        ssize_t n;

        n = bl_fs_read_at(dirfd, "ksm_merging_pages", buf, sizeof buf);
        /* of a process that has ended nothing is there */
        if (n == 0 || (n == -ENOENT && faccessat(dirfd, "stat", F_OK, 0) < 0))
                return -ESRCH;
        if (n < 0)
                return (int)n;
        buf[strcspn(buf, "\n")] = '\0';
        if (bl_uint_parse(buf, &p.merging) < 0)
                return -EBADMSG;
        n = bl_fs_read_at(dirfd, "ksm_stat", buf, sizeof buf);
        if (n > 0) {
                const uint64_t merging = p.merging;

                if (bl_fields_parse(buf, fields, sizeof fields / sizeof *fields, &p) < 0)
                        return -EBADMSG;
                if (p.merging == BL_UNSET)
                        p.merging = merging;
                p.mergeable = mergeable(buf);
        }
        *ret = p;
        return 0;
}
