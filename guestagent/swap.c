/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/child.h"
#include "guestagent/swap.h"
#include "guestagent/swaps.h"

#define REAP_TIME (10 * BL_MSEC)

/* --- the child ---------------------------------------------------------------- */

static _Noreturn void work(const struct guest_swap *s, enum swap_job_kind kind, int out)
{
        const struct swap_job job = {.kind = kind, .root = s->root, .system = s->system, .out = out};

        /* one that is not being obeyed any more ends, but not between off and on */
        guest_child_begin(out, SIGTERM);
        _exit(swap_job_run(&job));
}

static int start(struct guest_swap *s, enum swap_job_kind kind)
{
        _cleanup_close_ int in = -1, out = -1;
        int fds[2];
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        in = fds[0];
        out = fds[1];
        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0)
                work(s, kind, out);
        s->child = pid;
        s->pipe = bl_take_fd(&in);
        s->kind = kind;
        s->error = 0;
        s->off = false;
        s->changed = true;
        return 0;
}

static bool stat_disk(const struct guest_swap *s, uint64_t *ret)
{
        char path[PATH_MAX];
        struct stat st;

        if ((size_t)snprintf(path, sizeof path, "%s/sys/block/%s", s->root, s->disk) >= sizeof path ||
            stat(path, &st) < 0)
                return false;
        *ret = st.st_ino;
        return true;
}

static void forget_disk(struct guest_swap *s)
{
        s->disk[0] = '\0';
        s->error = 0;
        s->off = false;
}

/* The name of the disk comes in one piece; then the end. */
static void read_pipe(struct guest_swap *s)
{
        char name[SWAP_DISK_NAME];
        ssize_t n = read(s->pipe, name, sizeof name);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n == (ssize_t)sizeof name && memchr(name, '\0', sizeof name)) {
                memcpy(s->disk, name, sizeof s->disk);
                if (!stat_disk(s, &s->disk_inode))
                        s->disk[0] = '\0';
                return;
        }
        bl_closep(&s->pipe);
        s->pipe = -1;
}

static void ended(struct guest_swap *s, int status)
{
        /* SIGTERM: we interrupted it, which is no failure; else it was the OOM killer */
        int error = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) == SIGTERM ? 0 : ENOMEM;

        s->child = 0;
        s->changed = true;
        s->known = error == ENODEV || s->disk[0];
        if (error == ENODEV)
                forget_disk(s);
        /* no disk is a failure only where there had to be one */
        s->error = error == ENODEV && s->kind != SWAP_JOB_ON ? 0 : error;
        s->off = error == 0 && s->kind == SWAP_JOB_OFF && WIFEXITED(status);
}

void guest_swap_step(struct guest_swap *s)
{
        int status;

        if (s->pipe >= 0)
                read_pipe(s);
        if (s->child > 0 && s->pipe < 0 && waitpid(s->child, &status, WNOHANG) > 0)
                ended(s, status);
}

usec_t guest_swap_poll(const struct guest_swap *s, struct pollfd *ret)
{
        *ret = (struct pollfd){.fd = s->pipe, .events = POLLIN};
        return s->child > 0 && s->pipe < 0 ? REAP_TIME : BL_UNSET;
}

/* --- what the host asks for ----------------------------------------------------- */

/* Would what is only there fit into memory?  False, and the figures. */
static bool fits(const struct guest_swaps *swaps, const struct bl_wire_stats *memory, struct bl_wire_result *ret)
{
        uint64_t part = swaps->used_all > 0 ? bl_mul_sat(swaps->used, BL_WHOLE) / swaps->used_all : 0;
        uint64_t cached = bl_part(bl_or_zero(memory->v[BL_STAT_SWAP_CACHED]), (permyriad_t)part);
        uint64_t margin = swap_job_margin(bl_or_zero(memory->v[BL_STAT_MEM_TOTAL]));
        uint64_t need = bl_sub_sat(swaps->used, cached);
        uint64_t have = bl_sub_sat(bl_or_zero(memory->v[BL_STAT_MEM_AVAILABLE]), margin);

        if (need <= have)
                return true;
        ret->status = BL_RESULT_NO_ROOM;
        ret->need = need;
        ret->have = have;
        return false;
}

/* Something is under way.  What is wanted more interrupts it, and is asked for again. */
static enum bl_wire_status meanwhile(const struct guest_swap *s, uint64_t kind)
{
        static const enum swap_job_kind same[] = {
                [BL_ACTION_SWAP_ON] = SWAP_JOB_ON,
                [BL_ACTION_SWAP_OFF] = SWAP_JOB_OFF,
                [BL_ACTION_SWAP_GIVE] = SWAP_JOB_GIVE,
        };

        if (s->kind == same[kind])
                return BL_RESULT_DONE;
        if ((kind == BL_ACTION_SWAP_ON && s->kind == SWAP_JOB_OFF) ||
            (kind == BL_ACTION_SWAP_OFF && s->kind == SWAP_JOB_GIVE))
                (void)kill(s->child, SIGTERM);
        return BL_RESULT_BUSY;
}

void guest_swap_begin(struct guest_swap *s, const struct bl_wire_action *action, const struct bl_wire_stats *memory,
                      struct bl_wire_result *ret)
{
        struct guest_swaps swaps;
        enum swap_job_kind kind = SWAP_JOB_ON;

        *ret = (struct bl_wire_result){
                .id = action->id,
                .status = BL_RESULT_DONE,
                .bytes = BL_UNSET,
                .took = BL_UNSET,
                .need = BL_UNSET,
                .have = BL_UNSET,
        };
        if (s->swaps < 0 || guest_read_swaps(s->swaps, s->disk, &swaps) < 0) {
                ret->status = BL_RESULT_UNKNOWN;
                return;
        }
        if (s->child > 0) {
                ret->status = meanwhile(s, action->kind);
                return;
        }
        if (action->kind == BL_ACTION_SWAP_ON && swaps.on)
                return;
        if (action->kind == BL_ACTION_SWAP_GIVE && !swaps.on)
                return;
        if (action->kind != BL_ACTION_SWAP_ON) {
                kind = action->kind == BL_ACTION_SWAP_OFF ? SWAP_JOB_OFF : SWAP_JOB_GIVE;
                if (!fits(&swaps, memory, ret))
                        return;
        }
        if (start(s, kind) < 0)
                ret->status = BL_RESULT_FAILED;
}

/* --- how it stands --------------------------------------------------------------- */

static enum bl_wire_store_state state_of(const struct guest_swap *s, const struct guest_swaps *swaps)
{
        if (s->child > 0 && s->kind == SWAP_JOB_OFF)
                return BL_STORE_SWAP_LEAVING;
        if (swaps->on)
                return BL_STORE_SWAP_ON;
        if (s->child > 0)
                return BL_STORE_SWAP_PREPARING;
        if (!s->disk[0])
                return BL_STORE_SWAP_NONE;
        if (s->error)
                return BL_STORE_SWAP_FAILED;
        return s->off ? BL_STORE_SWAP_OFF : BL_STORE_SWAP_NONE;
}

/* Is it still there, and the same? */
static void look_for_disk(struct guest_swap *s)
{
        uint64_t inode;

        if (!stat_disk(s, &inode)) {
                forget_disk(s);
        } else if (inode != s->disk_inode) {
                s->known = false;
                (void)start(s, SWAP_JOB_FIND);
        }
}

void guest_swap_report(struct guest_swap *s, struct bl_wire_stats *stats)
{
        struct guest_swaps swaps;

        if (s->swaps < 0)
                return;
        if (s->disk[0] && s->child == 0)
                look_for_disk(s);
        if (guest_read_swaps(s->swaps, s->disk, &swaps) < 0)
                return;
        /* "none" is a promise: what is not known is not said */
        if (s->known)
                stats->v[BL_STAT_STORE_STATE] = state_of(s, &swaps);
        if (s->error)
                stats->v[BL_STAT_STORE_ERROR] = (uint64_t)s->error;
        if (!swaps.on)
                return;
        stats->v[BL_STAT_STORE_SIZE] = swaps.size;
        stats->v[BL_STAT_STORE_USED] = swaps.used;
        stats->v[BL_STAT_SWAP_AHEAD] = swaps.ahead;
}

uint64_t guest_swap_features(const struct guest_swap *s)
{
        return s->swaps >= 0 && (geteuid() == 0 || s->root[0]) ? BL_WIRE_FEATURE_SWAP : 0;
}

void guest_swap_init(struct guest_swap *s, const char *root)
{
        *s = (struct guest_swap){.root = root, .swaps = guest_open_swaps(root), .pipe = -1};
        if (s->swaps >= 0)
                (void)start(s, SWAP_JOB_FIND); /* without it the disk is found when the host asks for something */
}

void guest_swap_end(struct guest_swap *s)
{
        if (s->child > 0)
                (void)kill(s->child, SIGTERM);
        bl_closep(&s->pipe);
        bl_closep(&s->swaps);
        s->pipe = s->swaps = -1;
}
