/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"
#include "daemon/util/size.h"

#define DEFAULT_RUN_DIR  "/run/libvirt/qemu"
#define DEFAULT_PROC_DIR "/proc"

static int no_process(ssize_t r)
{
        return r == -ENOENT || r == -ESRCH ? -ESRCH : (int)r;
}

static int read_stat(const char *proc_dir, pid_t pid, char *ret_state, uint64_t *ret_start)
{
        char path[32], buf[2048];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/%d/stat", (int)pid);
        n = bl_fs_read(proc_dir ?: DEFAULT_PROC_DIR, path, buf, sizeof(buf));
        if (n < 0)
                return no_process(n);
        return bl_proc_stat_parse(buf, ret_state, ret_start) < 0 ? -ESRCH : 0;
}

/* Is the UUID one of QEMU's arguments, a whole one?  libvirt passes it as "-uuid
 * UUID"; each stands between NULs, the first one's is put there.  They are long,
 * so the file is read in pieces that overlap. */
static int cmdline_has(const char *proc_dir, pid_t pid, const char uuid[37])
{
        char path[4096], buf[8192 + 64], word[39] = "";
        const size_t len = 1 + strlen(uuid) + 1;
        size_t keep = 1;
        _cleanup_close_ int fd = -1;

        if (snprintf(path, sizeof(path), "%s/%d/cmdline", proc_dir ?: DEFAULT_PROC_DIR, (int)pid) >= (int)sizeof(path))
                return -ENAMETOOLONG;
        memcpy(word + 1, uuid, len - 1);
        buf[0] = '\0';
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return no_process(-errno);
        for (;;) {
                ssize_t n = read(fd, buf + keep, sizeof(buf) - keep);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return no_process(-errno);
                if (n == 0)
                        return 0;
                n += (ssize_t)keep;
                if (memmem(buf, (size_t)n, word, len))
                        return 1;
                keep = (size_t)n < len - 1 ? (size_t)n : len - 1;
                memmove(buf, buf + n - keep, keep);
        }
}

int bl_instance_find(const char *run_dir, const char *proc_dir, const char *name, const uint8_t uuid[BL_UUID_LEN],
                     struct bl_instance *ret)
{
        char path[4096], buf[64], text[37], state;
        struct bl_instance i;
        ssize_t n;
        uint64_t pid;
        int r;

        /* a name is one component: libvirt refuses others, and so do we */
        if (!*name || strchr(name, '/'))
                return -EINVAL;
        if (snprintf(path, sizeof(path), "%s/%s.pid", run_dir ?: DEFAULT_RUN_DIR, name) >= (int)sizeof(path))
                return -ENAMETOOLONG;
        n = bl_fs_read(NULL, path, buf, sizeof(buf));
        if (n < 0)
                return n == -EFBIG ? -EINVAL : (int)n;
        buf[strcspn(buf, "\n")] = '\0';
        if (bl_uint_parse(buf, &pid) < 0 || pid <= 1 || pid > INT32_MAX)
                return -EINVAL;

        i.pid = (pid_t)pid;
        r = read_stat(proc_dir, i.pid, &state, &i.start);
        if (r < 0)
                return r;
        bl_uuid_to_string(uuid, text);
        r = cmdline_has(proc_dir, i.pid, text);
        if (r < 0)
                return r;
        if (r == 0)
                return -ESRCH;
        *ret = i;
        return 0;
}

int bl_instance_state(const char *proc_dir, const struct bl_instance *i, char *ret)
{
        uint64_t start;
        char state;
        int r;

        r = read_stat(proc_dir, i->pid, &state, &start);
        if (r < 0)
                return r;
        if (start != i->start)
                return -ESRCH;
        *ret = state;
        return 0;
}

usec_t bl_instance_started_at(const struct bl_instance *i)
{
        long hz = sysconf(_SC_CLK_TCK);
        uint64_t since_boot = bl_mul_sat(i->start, BL_SEC / (uint64_t)(hz > 0 ? hz : 100));
        usec_t boot = bl_now_boot(), mono = bl_now();

        /* suspended time counts in the one and not in the other */
        return bl_sub_sat(since_boot, bl_sub_sat(boot, mono));
}
