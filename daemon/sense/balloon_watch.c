/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/balloon_watch.h"

#include <string.h>

/* Longer than QEMU withholds BALLOON_CHANGE (1 s): libvirt answers with the
 * last one, so that a value may look at rest for that long while it moves. */
/* A judgement comes with the second look, 1.3 s after the first. */
#define UNEXPLAINED (5 * BL_SEC)

#define REST_DEFAULT (1300 * BL_MSEC)

/* A guest's page may be 64 KiB: it rounds the balloon up to whole pages
 * (towards_target), and so comes to rest that much below a target. */
#define BELOW_SLACK (64 * BL_KIB)

/* A command that a newer one has replaced may still be on its way to the guest. */
#define SUPERSEDED_GRACE (10 * BL_SEC)

/* A restored guest runs at once, and libvirt sets the size that was saved. */
#define RESTORE_WINDOW (20 * BL_SEC)

/* After a start or a reset: until the guest's driver is there and has done
 * what the device asks.  Slow guests boot for minutes. */
#define BOOT_WINDOW (180 * BL_SEC)

/* A driver does what the device asks at once; so long at rest, and it has. */
#define RESET_OVER (5 * BL_SEC)

/* More than this available, and a guest neither stops short nor needs its OOM killer. */
#define AMPLE (64 * BL_MIB)

/* Major faults across a move that say nothing. */
#define CALM_FAULTS 64

/* So long a report of the guest is waited for where it decides. */
#define STATS_WAIT (15 * BL_SEC)

void bl_watch_init(struct bl_watch *w, const struct bl_watch_traits *t, usec_t rest)
{
        *w = (struct bl_watch){.traits = *t,
                               .rest = rest ? rest : REST_DEFAULT,
                               .stats_counter = BL_UNSET,
                               .available = BL_UNSET,
                               .available_before = BL_UNSET};
}

void bl_watch_traits_set(struct bl_watch *w, const struct bl_watch_traits *t)
{
        w->traits = *t;
}

/* --- our commands -------------------------------------------------------------- */

static struct bl_watch_command *newest(struct bl_watch *w)
{
        return w->n_cmd > 0 ? &w->cmd[w->n_cmd - 1] : NULL;
}

static void forget_commands(struct bl_watch *w)
{
        w->n_cmd = 0;
}

static void drop_command(struct bl_watch *w, size_t i)
{
        memmove(&w->cmd[i], &w->cmd[i + 1], (w->n_cmd - i - 1) * sizeof(w->cmd[0]));
        w->n_cmd--;
}

/* What it was seen at counts as rest from now on only. */
static void begin_rest(struct bl_watch *w, usec_t at)
{
        if (w->has_seen)
                w->seen_since = w->seen_at = bl_max(w->seen_at, at);
}

void bl_watch_command(struct bl_watch *w, uint64_t from, uint64_t to, usec_t at)
{
        struct bl_watch_command *last = newest(w);

        if (last && last->superseded_at == 0)
                last->superseded_at = at;
        if (w->n_cmd == BL_WATCH_COMMANDS)
                drop_command(w, 0);
        w->cmd[w->n_cmd++] = (struct bl_watch_command){.from = from, .to = to, .at = at};
        /* the same value again is a new rest, to be judged by this command */
        begin_rest(w, at);
}

void bl_watch_answered(struct bl_watch *w, uint64_t to, enum bl_watch_answer a, usec_t at)
{
        for (size_t i = w->n_cmd; i-- > 0;) {
                struct bl_watch_command *c = &w->cmd[i];

                if (c->to != to || c->answered)
                        continue;
                switch (a) {
                case BL_WATCH_ANSWER_DONE:
                        c->answered = c->certain = true;
                        break;
                case BL_WATCH_ANSWER_UNKNOWN:
                        c->answered = true;
                        break;
                case BL_WATCH_ANSWER_REFUSED:
                        drop_command(w, i);
                        /* the one before it is in force again */
                        if (newest(w) && i == w->n_cmd)
                                newest(w)->superseded_at = 0;
                        break;
                }
                break;
        }
        /* it may take effect until now, so rest begins now */
        begin_rest(w, at);
}

void bl_watch_life(struct bl_watch *w, enum bl_watch_life l, usec_t at)
{
        switch (l) {
        case BL_WATCH_LIFE_BOOTED:
        case BL_WATCH_LIFE_RESTORED:
                /* after a restore the ledger says which targets live on: commands are
                 * kept, a boot voids them */
                if (l == BL_WATCH_LIFE_BOOTED) {
                        forget_commands(w);
                        w->booted_at = at;
                } else {
                        w->restored_at = at;
                }
                w->has_judged = w->has_seen = false;
                w->paused = false;
                w->stats_at = 0;
                w->stats_counter = w->available = w->available_before = BL_UNSET;
                w->stats_restarted = false;
                break;
        case BL_WATCH_LIFE_RESET:
                w->reset_at = at;
                break;
        case BL_WATCH_LIFE_PAUSED:
                w->paused = true;
                break;
        case BL_WATCH_LIFE_RESUMED:
                w->paused = false;
                begin_rest(w, at);
                break;
        }
}

/* --- judging --------------------------------------------------------------------- */

static bool congruent(uint64_t a, uint64_t b)
{
        return a % BL_BALLOON_GRAIN == b % BL_BALLOON_GRAIN;
}

static bool at_target(uint64_t actual, uint64_t target)
{
        return actual <= target && target - actual < BELOW_SLACK;
}

static bool between(uint64_t x, uint64_t a, uint64_t b)
{
        return x >= bl_min(a, b) && x <= bl_max(a, b);
}

static bool within(usec_t since, usec_t now, usec_t window)
{
        return since != 0 && now >= since && now - since < window;
}

/* Is it the newest, or was it until a moment ago? */
static bool in_force(const struct bl_watch_command *c, usec_t now)
{
        return c->superseded_at == 0 || now < bl_add_sat(c->superseded_at, SUPERSEDED_GRACE);
}

/* May this command still take effect, or be about to? */
static bool live(const struct bl_watch_command *c, usec_t now)
{
        return !c->certain || in_force(c, now);
}

/* May it be on its way there just now?  Of one whose answer was lost only the
 * target itself is believed. */
static bool under_way(const struct bl_watch_command *c, usec_t now)
{
        return !c->answered || in_force(c, now);
}

/* The lowest that our own commands can explain. */
static uint64_t lowest_ours(const struct bl_watch *w, usec_t now)
{
        uint64_t low = BL_UNSET;

        for (size_t i = 0; i < w->n_cmd; i++)
                if (live(&w->cmd[i], now))
                        low = bl_min(low, w->cmd[i].to);
        return low;
}

/* The newest command that explains this value exactly.  One of long ago does
 * not: from one of our targets to another is a whole number of steps, which
 * the guest may have taken by itself. */
static struct bl_watch_command *matching(struct bl_watch *w, uint64_t actual, usec_t now)
{
        for (size_t i = w->n_cmd; i-- > 0;)
                if (at_target(actual, w->cmd[i].to) && (i + 1 == w->n_cmd || live(&w->cmd[i], now)))
                        return &w->cmd[i];
        return NULL;
}

/* The guest's kernel started anew: its driver begins with a full balloon. */
static bool reset_lately(const struct bl_watch *w, usec_t now)
{
        return within(w->reset_at, now, BOOT_WINDOW) || w->stats_restarted;
}

static bool restored_lately(const struct bl_watch *w, usec_t now)
{
        return within(w->restored_at, now, RESTORE_WINDOW);
}

/* What the guest's statistics say of a move that they alone can explain. */
enum mood {
        MOOD_UNKNOWN, /* there never were statistics */
        MOOD_WAIT, /* none since it came to rest; they may come yet */
        MOOD_SILENT, /* they have stopped */
        MOOD_CALM, /* memory to spare before and after, and hardly a fault: it had no reason to move */
        MOOD_PRESSED,
};

static enum mood mood_of(const struct bl_watch *w, const struct bl_watch_observation *o)
{
        if (w->stats_at == 0)
                return MOOD_UNKNOWN;
        if (w->stats_at <= w->seen_since)
                return o->at - w->seen_since < STATS_WAIT ? MOOD_WAIT : MOOD_SILENT;
        if (w->available == BL_UNSET || w->available < AMPLE)
                return MOOD_PRESSED;
        if (w->available_before != BL_UNSET && w->available_before < AMPLE)
                return MOOD_PRESSED;
        return w->faults > CALM_FAULTS ? MOOD_PRESSED : MOOD_CALM;
}

/* Full balloon: nothing ballooned, whatever the reason. */
static enum bl_watch_verdict judge_full(const struct bl_watch *w, const struct bl_watch_observation *o)
{
        if (reset_lately(w, o->at))
                return BL_WATCH_REBOOT;
        switch (mood_of(w, o)) {
        case MOOD_WAIT:
                return BL_WATCH_MOVING;
        case MOOD_SILENT:
                return BL_WATCH_RELOAD;
        case MOOD_PRESSED:
                /* all of it given back to the OOM killer */
                return w->traits.autodeflate ? BL_WATCH_OOM : BL_WATCH_HAND;
        case MOOD_UNKNOWN:
        case MOOD_CALM:
                break;
        }
        return BL_WATCH_HAND;
}

/* Above where it should be at rest, which is `target`. */
static enum bl_watch_verdict judge_above(const struct bl_watch *w, const struct bl_watch_observation *o,
                                         uint64_t target)
{
        bool stepped = congruent(o->actual, target) || (w->has_judged && congruent(o->actual, w->judged));

        if (o->actual >= w->traits.max)
                return judge_full(w, o);
        /* on its way back to the target, from full */
        if (reset_lately(w, o->at))
                return BL_WATCH_REBOOT;
        if (!w->traits.autodeflate || !stepped)
                return BL_WATCH_HAND;
        if (!congruent(o->actual, 0))
                return BL_WATCH_OOM;
        /* whole MiB, before and after: a person may have set it, and only the guest can tell */
        switch (mood_of(w, o)) {
        case MOOD_WAIT:
                return BL_WATCH_MOVING;
        case MOOD_CALM:
                return BL_WATCH_HAND;
        case MOOD_UNKNOWN:
        case MOOD_SILENT:
        case MOOD_PRESSED:
                break;
        }
        return BL_WATCH_OOM;
}

/*
 * Short of the target, at a whole MiB, and not reached by steps, which keep
 * the phase of `from`.  A guest out of puff stops at any page, one in 256 of
 * them so; one with memory to spare would go on.
 */
static bool set_on_the_way(const struct bl_watch *w, const struct bl_watch_observation *o,
                           const struct bl_watch_command *c)
{
        return congruent(o->actual, 0) && !congruent(c->from, 0) && !congruent(c->to, 0) && mood_of(w, o) == MOOD_CALM;
}

/* Between where it was and our target, which it has not reached yet. */
static enum bl_watch_verdict judge_between(const struct bl_watch *w, const struct bl_watch_observation *o,
                                           const struct bl_watch_command *c)
{
        bool shrink = c->to < c->from;

        /* further from the target than it was: it took some back, or somebody gave it */
        if (w->has_judged && shrink && o->actual > w->judged && between(w->judged, c->from, c->to))
                return judge_above(w, o, c->to);
        if (w->has_judged && !shrink && o->actual < w->judged && between(w->judged, c->from, c->to))
                return BL_WATCH_HAND;
        return set_on_the_way(w, o, c) ? BL_WATCH_HAND : BL_WATCH_INCOMPLETE;
}

/* Nothing of ours is in force, and it moved. */
static enum bl_watch_verdict judge_foreign(const struct bl_watch *w, const struct bl_watch_observation *o)
{
        uint64_t boot = w->traits.boot_size;

        if (restored_lately(w, o->at))
                return BL_WATCH_BASELINE;
        /* libvirt sets <currentMemory> at a start, and the driver follows when it is there */
        if (within(w->booted_at, o->at, BOOT_WINDOW) && (boot == BL_UNSET || between(o->actual, boot, w->traits.max)))
                return BL_WATCH_BASELINE;
        if (reset_lately(w, o->at) && o->actual >= w->judged)
                return BL_WATCH_BASELINE;
        return o->actual < w->judged ? BL_WATCH_HAND : judge_above(w, o, w->judged);
}

/* It moved, and none of our targets is where it is. */
static enum bl_watch_verdict judge_moved(const struct bl_watch *w, const struct bl_watch_observation *o)
{
        const struct bl_watch_command *last = &w->cmd[w->n_cmd - 1];
        bool over = false;

        if (restored_lately(w, o->at))
                return BL_WATCH_BASELINE;
        if (o->actual < lowest_ours(w, o->at))
                return BL_WATCH_HAND;
        if (!last->reached && between(o->actual, last->from, last->to))
                return judge_between(w, o, last);
        if (o->actual >= last->to)
                return judge_above(w, o, last->to);
        /* below the newest target: an older one may still be at work, unless it was
         * carried out and one of its time or later was reached */
        for (size_t i = w->n_cmd; i-- > 0;) {
                const struct bl_watch_command *c = &w->cmd[i];

                over = over || c->reached;
                if (c != last && !(over && c->certain) && under_way(c, o->at) && between(o->actual, c->from, c->to))
                        return BL_WATCH_INCOMPLETE;
        }
        return BL_WATCH_HAND;
}

static enum bl_watch_verdict judge(struct bl_watch *w, const struct bl_watch_observation *o)
{
        struct bl_watch_command *last = newest(w), *match = matching(w, o->actual, o->at);

        if (match)
                match->reached = true;
        if (w->has_judged && w->judged == o->actual) {
                /* the guest's statistics may tell only now that it would have gone on */
                if (last && !last->reached && o->actual != last->from && between(o->actual, last->from, last->to) &&
                    set_on_the_way(w, o, last))
                        return BL_WATCH_HAND;
                return BL_WATCH_UNCHANGED;
        }
        if (match)
                return match == last ? BL_WATCH_SETTLED : BL_WATCH_LATE;
        if (last)
                return judge_moved(w, o);
        return w->has_judged ? judge_foreign(w, o) : BL_WATCH_BASELINE;
}

/* Exactly at the newest target, for the first time: a guest does not pass there
 * by accident, and need not rest to be believed. */
static bool arrived(struct bl_watch *w, uint64_t actual)
{
        struct bl_watch_command *last = newest(w);

        if (!last || last->reached || actual != last->to || actual == last->from)
                return false;
        last->reached = true;
        return true;
}

/* --- observing ---------------------------------------------------------------------- */

static void note_stats(struct bl_watch *w, const struct bl_watch_observation *o)
{
        if (o->stats_at == 0 || o->stats_at == BL_UNSET || o->stats_at <= w->stats_at)
                return;
        /* "before" is the last report of the time before it came to rest */
        if (w->stats_at != 0 && w->stats_at <= w->seen_since) {
                w->available_before = w->available;
                w->faults = 0;
        }
        w->stats_at = o->stats_at;
        w->available = o->available;
        if (o->major_faults == BL_UNSET)
                return;
        if (w->stats_counter != BL_UNSET) {
                if (o->major_faults < w->stats_counter)
                        w->stats_restarted = true;
                else
                        w->faults = bl_add_sat(w->faults, o->major_faults - w->stats_counter);
        }
        w->stats_counter = o->major_faults;
}

/* A rest was judged: it is where the next judgement begins. */
static void conclude(struct bl_watch *w, enum bl_watch_verdict v, uint64_t actual)
{
        /* the new driver is there, has reported, and does not move: the reset is over */
        if (w->reset_at != 0 && w->stats_at > w->reset_at && w->seen_at - w->seen_since >= RESET_OVER)
                w->reset_at = 0;
        if (v == BL_WATCH_HAND || v == BL_WATCH_BASELINE)
                forget_commands(w);
        /* a new driver starts from full, and goes to the target once more */
        if ((v == BL_WATCH_REBOOT || v == BL_WATCH_RELOAD) && newest(w)) {
                newest(w)->from = w->traits.max;
                newest(w)->reached = false;
        }
        if (v != BL_WATCH_UNCHANGED)
                w->stats_restarted = false;
        w->has_judged = true;
        w->judged = actual;
}

void bl_watch_observe(struct bl_watch *w, const struct bl_watch_observation *o, struct bl_watch_report *ret)
{
        const struct bl_watch_command *last = newest(w);
        struct bl_watch_report r = {
                .verdict = BL_WATCH_MOVING,
                .was = w->has_judged ? w->judged : BL_UNSET,
                .now = o->actual,
                .target = last ? last->to : BL_UNSET,
        };

        if (w->has_seen && o->at < w->seen_at) {
                *ret = r;
                return;
        }
        if (!w->has_seen || o->actual != w->seen)
                w->seen_since = o->at;
        w->has_seen = true;
        w->seen = o->actual;
        w->seen_at = o->at;
        note_stats(w, o);

        if (w->paused) {
                *ret = r;
                return;
        }
        if (o->at - w->seen_since >= w->rest)
                r.verdict = judge(w, o);
        else if (arrived(w, o->actual))
                r.verdict = BL_WATCH_SETTLED;
        if (r.verdict != BL_WATCH_MOVING)
                conclude(w, r.verdict, o->actual);
        else
                r.look_again = bl_add_sat(o->at - w->seen_since >= w->rest ? o->at : w->seen_since, w->rest);
        *ret = r;
}

bool bl_watch_is_unexplained(const struct bl_watch *w, usec_t now)
{
        const struct bl_watch_command *last = w->n_cmd > 0 ? &w->cmd[w->n_cmd - 1] : NULL;

        if (!w->has_judged || !w->has_seen || w->seen >= w->judged || bl_sub_sat(now, w->seen_since) > UNEXPLAINED)
                return false;
        return !last || (last->reached && w->seen != last->to);
}

const char *bl_watch_verdict_to_string(enum bl_watch_verdict v)
{
        switch (v) {
        case BL_WATCH_MOVING:
                return "moving";
        case BL_WATCH_UNCHANGED:
                return "unchanged";
        case BL_WATCH_BASELINE:
                return "baseline";
        case BL_WATCH_SETTLED:
                return "settled";
        case BL_WATCH_INCOMPLETE:
                return "incomplete";
        case BL_WATCH_LATE:
                return "late";
        case BL_WATCH_OOM:
                return "oom-deflate";
        case BL_WATCH_REBOOT:
                return "reboot";
        case BL_WATCH_RELOAD:
                return "driver-reload";
        case BL_WATCH_HAND:
                return "by-hand";
        case _BL_WATCH_MAX:
                break;
        }
        return NULL;
}
