/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the policy share; nobody else includes this. */
#ifndef BALLAST_POLICY_INTERNAL_H
#define BALLAST_POLICY_INTERNAL_H

#include <stddef.h>

#include <ballast/policy.h>

/* Below this a balloon has not moved: the driver works in requests of 256 pages. */
#define BL_STEP BL_MIB

/* --- what is learned over time --------------------------------------------------------------- */

/* The range that a balloon was in from `since` to the `since` of the next. */
struct bl_past {
        usec_t since;
        uint64_t low;
        uint64_t high;
};

#define BL_PAST_MAX 8

/* What is known over time of a VM's equal pages (share*.c). */
struct bl_vm_sharing {
        bool registered; /* in the last snapshot */
        bool chosen; /* it is to be merged in the round under way */
        bool entered; /* and was seen registered in it */
        bool merged; /* ksmd has been over it often enough to have merged what there is */
        bool leaving; /* told to leave */
        usec_t chosen_at;
        usec_t unsure_at; /* its evidence does not say whether it pays, since then; 0: it does */
        uint64_t gain_then; /* when it was chosen: what it promised */
        uint64_t merged_then; /* and what was merged of it when it entered */
        uint64_t stale; /* until `stale_until` so much of its gain is no news: the last drive left it behind */
        usec_t stale_until;
        unsigned int failures; /* rounds in a row in which it did not keep what it promised */
        usec_t retry_at; /* it is not merged again before */
        uint64_t breaks; /* the host's memory that un-merging it would take, in the last snapshot */
};

struct bl_vm_state {
        uint8_t uuid[BL_UUID_LEN];
        usec_t seen_at;
        usec_t booted_at;

        /* the last snapshot's figures */
        uint64_t actual;
        uint64_t held; /* resident - overhead */

        /* the command under way, or the last one */
        uint64_t cmd_target;
        usec_t cmd_at;
        int dir; /* -1: shrinking, 1: growing, 0: at its target */
        int last_dir; /* of the last command, kept when it is done */
        uint64_t best; /* furthest that the balloon got */
        uint64_t best_held;
        usec_t progress_at; /* of the balloon or the resident size */
        usec_t actual_at; /* of the balloon */
        bool moved;

        uint64_t speed;
        bool speed_known;

        /* not following */
        bool stuck; /* gave nothing at all */
        bool wont_grow; /* does not take memory back */
        bool park; /* its target is to be put back to where it stopped */
        uint64_t bottom; /* where it stopped: nothing below is expected of it until it gets there; 0: none */
        unsigned int failures;
        usec_t retry_at;

        /* lying */
        bool lying;
        uint64_t peak; /* highest balloon before it said that it gave */
        usec_t suspect_at; /* 0: not suspected */

        /* where the balloon was, so that a report can be read against it */
        struct bl_past past[BL_PAST_MAX];
        unsigned int n_past;

        /* the last report */
        usec_t report_at;
        uint64_t report_low; /* range of the balloon when it was made */
        uint64_t report_high;
        usec_t pressed_at; /* what the report of then told */
        uint64_t swap_in;
        uint64_t psi_some;
        unsigned int pressed; /* reports in a row that told of memory pressure */
        bool thrashes; /* the last one told that it reads back what was pressed out of it */
        bool squeezed; /* told to be smaller than it needs, into its swap on the store, and not back yet */
        uint64_t thrash_to; /* balloon that it showed to need then; 0: it did not. Falls slowly */
        usec_t used_at; /* what the report of then told */
        uint64_t total; /* 0: there was none */
        uint64_t used; /* balloon or MemTotal, less available */
        bool used_exact; /* by the balloon size that the report itself tells */
        bool used_steady; /* the balloon has stood still since */
        bool follows; /* its MemTotal follows the balloon */
        uint64_t own; /* balloon - MemTotal at rest; BL_UNSET: not known */
        uint64_t need_rate; /* bytes/s by which what it uses has been growing */

        uint64_t swap_room; /* of this snapshot: bytes that its swap can take, and that have something behind them */
        uint64_t report_held; /* held on the host when it made its last report */
        uint64_t held_rate; /* bytes/s by which that has been growing */

        uint64_t credit; /* granted and not used yet */
        uint64_t spent; /* of it, used since the last snapshot */
        uint64_t asked; /* target decided on and not seen as told yet; 0: none */
        usec_t asked_at;

        /* what its agent asks for (request.c) */
        usec_t request_at; /* of the last request; it tells one from the other; 0: none yet */
        usec_t deaf_until; /* it is not heard until then */
        bool asks; /* it has asked for memory, and is heard */
        bool stops; /* it was near its OOM killer, and is heard */
        bool deaf; /* it has asked, and is not heard */
        unsigned int idly; /* how often it was found to ask for what it does not use */

        /* and what only those need that ask: last, so that the others do not wait for it to come from memory */
        uint64_t request_to; /* balloon that it asked for; 0: none */
        usec_t stop_until;
        struct bl_asking {
                usec_t since; /* its requests are judged from here on; 0: there were none */
                uint64_t actual; /* balloon then */
                uint64_t held; /* on the host then */
                uint64_t peak; /* most held since */
                uint64_t given; /* granted on request since */
                usec_t time; /* that it asked since; pauses are shortened */
                bool was_short; /* by its own figures, when it asked */
        } asking;

        uint64_t thrash_due; /* bytes that it is to have back as it thrashes, and was not granted yet */
        usec_t thrash_at; /* it was seen to thrash last */

        struct bl_vm_sharing sharing;
};

/*
 * A round: some VMs are registered, or enough has grown in those that are, and ksmd is driven over all of
 * them until that is merged.
 */
struct bl_sharing {
        bool driving; /* a round is under way */
        bool new_vms; /* some of it have just come */
        bool ended; /* there was one */
        usec_t ended_at;
        uint64_t since; /* full_scans when it began, or when the last VM came */
        uint64_t merged_then; /* merged when it began */
        uint64_t promise; /* bytes that were to come of it */
        uint64_t best; /* bytes per CPU-second of the best VM of it */
        /* the window: the time of ksmd in which what it merges is compared with what it costs */
        usec_t window_cpu;
        uint64_t window_merged;
        uint64_t window_scans;
        bool window_pays; /* the last complete one */
        usec_t seen_cpu; /* of ksmd, when it was last seen to do something */
        usec_t busy_at;
        unsigned int failures; /* rounds in a row that did not bring what was promised */
        usec_t retry_at; /* what is said to have grown is not believed before */
        uint64_t passes; /* of late, in 1/BL_SHARING_PASS */
        uint64_t scans; /* of the last snapshot */
        bool scans_known;
        uint64_t broken; /* of the last snapshot */
        bool broken_known;
        uint64_t broken_rate; /* bytes/s of merged pages that are copied on write */
};

struct bl_pick;

struct bl_policy {
        bool started;
        enum bl_host_state state;
        usec_t last_at;
        usec_t interval; /* between snapshots */
        usec_t latency; /* from a command to the first drop seen */
        uint64_t spending; /* bytes/s of granted memory that came into use lately */
        bool pressing; /* in the last tick more was needed than can be had above what guests need */
        uint64_t pool_ready; /* of the store, in the last tick */
        usec_t pool_idle_at; /* nobody could be pressed into the store since then; 0: somebody can */
        struct bl_sharing sharing;

        struct bl_vm_state *vms;
        size_t n;
        size_t allocated;
        uint32_t *slots; /* hash table: index + 1 into vms, 0: free */
        size_t n_slots; /* power of two */
};

/* table.c: room for `n` more, so that bl_table_get cannot fail. -ENOMEM, then nothing has changed. */
int bl_table_reserve(struct bl_policy *p, size_t n);
/* The VM's state, a new one if it was not known; `hint` is where it is likely to be. */
struct bl_vm_state *bl_table_get(struct bl_policy *p, const struct bl_vm *vm, const struct bl_policy_config *c,
                                 size_t hint);
/* Forgets VMs that have been gone for a while. */
void bl_table_purge(struct bl_policy *p, usec_t now);

/* learn.c */
void bl_learn_reset(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c);
void bl_learn(struct bl_policy *p, struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c,
              usec_t at);

/* request.c: takes in what its agent asks for, after all else was learned but the last snapshot's figures. */
void bl_learn_request(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at);
/* Its request is granted `bytes`. */
void bl_request_granted(struct bl_vm_state *st, uint64_t bytes);

/* thrash.c: after a report that is judged for pressure: `swap_in` bytes/s, `stall` permyriad of the time. */
void bl_learn_thrash(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, uint64_t swap_in,
                     uint64_t stall);
/* What it showed to need is believed less and less. */
void bl_thrash_fade(struct bl_vm_state *st, usec_t at);

/* The range that the balloon was in at `at`, a time that is known to `blur`. */
void bl_past_at(const struct bl_vm_state *st, usec_t at, usec_t blur, uint64_t *ret_low, uint64_t *ret_high);

/* Granted memory that has not come into use by then is idle, as memory that was never taken may be: it
 * is overcommitted again, or squeezed guests would stay squeezed on a host with plenty. */
#define BL_PROMISE_KEPT (3 * BL_SEC)

/* resident memory that is the guest's: what ballooning can free */
uint64_t bl_held(const struct bl_vm *vm);

/* balloon that it has, or is growing to */
uint64_t bl_has_or_gets(const struct bl_vm_state *st, const struct bl_vm *vm);

/* --- one tick --------------------------------------------------------------------------------- */

struct bl_need {
        uint64_t need; /* what it uses itself, swapped out or not */
        uint64_t within; /* of it, what is in its memory */
        uint64_t pinned; /* of that, what cannot be swapped out */
        uint64_t margin;
        uint64_t floor; /* their sum */
};

/* floor.c: `actual` is the balloon size that the report belongs to, `swap_room` what its swap can take. */
void bl_guest_need(const struct bl_vm *vm, const struct bl_policy_config *c, uint64_t actual, uint64_t swap_room,
                   bool hard, struct bl_need *ret);

/* MemAvailable, or the best guess at it. */
uint64_t bl_guest_available(const struct bl_guest_stats *s);

/* One VM's part in the tick. */
struct bl_work {
        const struct bl_vm *vm;
        struct bl_vm_state *st;

        enum bl_reason skip; /* why it is left alone; BL_WHY_NOTHING: it is not */
        enum bl_reason grant_why;
        enum bl_reason turn_why : 8; /* of `turn_back` */
        enum bl_reason press_skip : 8; /* why it is not pressed further; BL_WHY_NOTHING: it may be, or has no store */
        enum bl_reason pageout_why : 8;
        bool hands_off : 1; /* nothing can be told to it, not even to stay where it is */
        bool may_take : 1;
        bool may_grant : 1;
        bool given_up : 1; /* does not follow: gets nothing while others are squeezed for its sake */
        bool settling : 1; /* was told the opposite a moment ago */
        bool moving : 1; /* on its way down, and believed to be */
        bool spared : 1; /* nothing more is taken from it, at its request */
        bool turn_back : 1; /* and what it was told to give it may keep */
        bool due_reserved : 1; /* what it is due is due by its reservation */
        bool due_pressed : 1; /* because it reports pressure, not because it has no memory available */
        bool due_asked : 1; /* because its agent asks for it */
        bool due_thrash : 1; /* because it reads back what was pressed out of it */

        struct bl_need need; /* all 0 where its figures are not good */
        uint64_t floor; /* balloon that it may be told to have at least */
        uint64_t lowest; /* and that it is expected to follow to */
        uint64_t highest; /* and at most */
        uint64_t holds; /* memory of the host behind what the balloon leaves to it */
        uint64_t base_up; /* balloon that it has or was promised */

        /* what the market looks at again and again, in one line of the processor's cache */
        uint64_t base; /* `holds` after commands under way and what is decided */
        uint64_t stored; /* memory of the host behind what the store holds of it */
        uint64_t active; /* what it uses */
        uint64_t shares;
        uint64_t paying; /* with `merged_part`: the shares that it pays by for what it really holds */
        uint64_t room; /* bytes that may be taken from it in this round */
        uint64_t due; /* bytes it is short of */
        uint32_t merged_part; /* part of what it holds that is merged, of BL_MERGED_WHOLE */

        uint64_t called_for; /* balloon that its figures call for; 0: they do not */
        uint64_t forced; /* above its limit: gives in any case, down to here; 0: not */
        uint64_t take; /* bytes of the host's memory, decided so far */
        uint64_t grant; /* bytes, decided so far */

        /* for bl_in_steps: one round's part, the most that it can be, and its place in the queue */
        uint64_t part;
        uint64_t part_max;
        uint64_t order; /* small ones come first */

        /* pressing it into its swap on the store; all 0 where it has none (store.c) */
        uint64_t swaps_below; /* a balloon below this makes it swap */
        uint64_t pressed_to; /* balloon that it may be pressed to; `lowest` where it may not */

        uint64_t pageout; /* bytes that the host's kernel is to page out of it */
};

/* What one tick is about. */
struct bl_tick {
        const struct bl_snapshot *s;
        const struct bl_policy_config *c;
        usec_t now;
        usec_t dt; /* since the last snapshot; 0: this is the first */
        struct bl_policy *p;
        enum bl_host_state state;
        struct bl_work *w;
        size_t n;

        size_t n_store; /* VMs whose guests swap on the store */
        permyriad_t backed; /* part of their free slots that the store has room for */
        uint64_t pressing; /* bytes that guests were told to swap out, and have not yet */
        bool press_wanted; /* what guests need has to be touched */

        bool share_blocked; /* a VM that must not be merged is registered, or that is not known */
        bool unmerging; /* one is being taken apart */
        size_t leaver; /* the one that is to be; `n`: none */
        uint64_t share_aside; /* bytes of free memory that this takes */
        uint64_t share_lacks; /* bytes that the host is short of to take the next one apart */
};

/* prepare.c: learns from the snapshot and fills w[]; needs t->state. */
void bl_prepare(struct bl_tick *t);

/* Is w->need known? */
bool bl_has_need(const struct bl_work *w);

/* What part of `b` is `a`, which is not more; without overflow, and without a division that needs a library. */
static inline permyriad_t bl_ratio(uint64_t a, uint64_t b)
{
        while (b > UINT64_MAX / BL_WHOLE) {
                a /= 2;
                b /= 2;
        }
        return b == 0 ? 0 : (permyriad_t)(a * BL_WHOLE / b);
}

/* marks.c: so much more is kept free, in all states. */
void bl_marks_raise(struct bl_marks *m, uint64_t reserve);

/* How far a VM may be asked at once, so that it can deliver within the horizon. */
uint64_t bl_reach(const struct bl_work *w, const struct bl_policy_config *c);

/* An administrator's limit on its balloon: what the store holds of it counts, too. */
uint64_t bl_vm_limit(const struct bl_vm *vm);

/* --- swap on the store (store.c) ---------------------------------------------------------------- */

/* Slots that a guest can still fill, in bytes. */
uint64_t bl_store_slots(const struct bl_vm *vm);
/* Counts those that swap on the store, and what it has for them; before all else. */
void bl_store_survey(struct bl_tick *t);
/* For st->swap_room. */
uint64_t bl_swap_room(const struct bl_tick *t, const struct bl_vm *vm);
/* How far a VM may be pressed; after all else about it is known. */
void bl_store_prepare(struct bl_tick *t, struct bl_work *w);
/* What `bytes` less in the balloon of such a VM bring to the host, from `from` down. */
uint64_t bl_store_gain(const struct bl_work *w, uint64_t from, uint64_t bytes);
/* Presses guests into the store for `missing` bytes; returns what it brings. */
uint64_t bl_store_press(struct bl_tick *t, uint64_t missing, struct bl_pick *picks);
/* What the store's pool is to have ready; 0: as it is. `keep` stays free on the host. */
uint64_t bl_store_pool(struct bl_tick *t, const struct bl_marks *m, uint64_t goal, uint64_t keep);

/* --- the host kernel's tiers (pageout.c) ---------------------------------------------------------- */

/* Pages out of VMs that the balloon cannot take from, for `missing` bytes; returns what it brings. */
uint64_t bl_pageout_need(struct bl_tick *t, uint64_t missing, struct bl_pick *picks);
/* And a little of those that are proven idle, ahead of need. */
void bl_pageout_idle(struct bl_tick *t, const struct bl_marks *m);

/* --- page sharing --------------------------------------------------------------------------------- */

/* share_room.c: bytes kept free for merged pages that break apart. */
uint64_t bl_sharing_reserve(const struct bl_snapshot *s, const struct bl_policy_config *c);
/* What merging a VM saves of the host's memory, and what taking it apart would cost at once. */
uint64_t bl_sharing_saves(const struct bl_vm *vm);
uint64_t bl_sharing_breaks(const struct bl_vm *vm);
/* Sees what became of registrations since the last snapshot; returns the bytes that un-merging has taken since. */
uint64_t bl_sharing_learn(struct bl_tick *t);
/* It must not be merged with anybody, by its settings or the host's. */
bool bl_sharing_must_not(const struct bl_snapshot *s, const struct bl_vm *vm);
/* The same, and it is registered, or that is not known: ksmd may not be driven. */
bool bl_sharing_in_the_way(const struct bl_snapshot *s, const struct bl_vm *vm);
/* May the host take VMs out of merging at all?  May this one be told anything? */
bool bl_sharing_takes_out(const struct bl_share_state *s);
bool bl_sharing_can_tell(const struct bl_vm *vm);
/* Finds out who keeps ksmd from being driven, and who of them is to leave when `room` bytes may be used for it. */
void bl_sharing_leavers(struct bl_tick *t, uint64_t room);

/* A page is merged at its second pass at the earliest: the first one notes its checksum (mm/ksm.c,
 * cmp_and_merge_page). */
#define BL_SHARING_PASSES 2
/* Where it is not known which pages those are: the pass under way is not a whole one (share_drive.c). */
#define BL_SHARING_PASSES_GROWN (BL_SHARING_PASSES + 1)

/* share_worth.c: CPU time of ksmd for `passes` over `bytes` of memory in which it merges `gain`. */
usec_t bl_sharing_cost(const struct bl_share_state *s, uint64_t bytes, unsigned int passes, uint64_t gain);
/* Present memory of a VM, and what the kernel keeps for so much that is registered. */
uint64_t bl_sharing_present(const struct bl_vm *vm);
/* Of that, what a pass over it costs as much as: bytes that are not merged, mostly. */
uint64_t bl_sharing_effort(const struct bl_vm *vm);
uint64_t bl_sharing_metadata(uint64_t present);
bool bl_sharing_pays(const struct bl_policy_config *c, uint64_t gain, usec_t cost);

enum bl_sharing_verdict { BL_WORTH_NO, BL_WORTH_YES, BL_WORTH_UNSURE };
/* Is a VM worth registering, when it gives `going` bytes away? `ret_value`: bytes per CPU-second. */
enum bl_sharing_verdict bl_sharing_worth(const struct bl_share_state *s, const struct bl_policy_config *c,
                                         const struct bl_vm *vm, uint64_t going, uint64_t *ret_value);
/* The same by the estimate alone. */
bool bl_sharing_estimate_pays(const struct bl_share_state *s, const struct bl_policy_config *c, const struct bl_vm *vm,
                              uint64_t going);
/* Does it cost more than it brings, twice over, with `credible` bytes to be merged still and `passes` of late? */
#define BL_SHARING_PASS 256 /* one pass */
bool bl_sharing_pays_no_more(const struct bl_share_state *s, const struct bl_policy_config *c, const struct bl_vm *vm,
                             uint64_t credible, uint64_t passes);

/* share_drive.c: what has been merged, and whether the round is over. Before anybody is chosen. */
void bl_sharing_look(struct bl_tick *t);
/* May ksmd be driven, as far as VMs and knobs go? */
bool bl_sharing_may_drive(const struct bl_tick *t);
/* A round begins, or goes on with more: `promise` bytes of VMs of which the best brings `best` per CPU-second. */
void bl_sharing_begin(struct bl_tick *t, uint64_t promise, uint64_t best, bool new_vms);
/* It ends without a verdict. */
void bl_sharing_stop(struct bl_tick *t);
/* What is to be merged still in the round under way. */
uint64_t bl_sharing_left(const struct bl_tick *t);
/* Gain of a registered VM that is believed. */
uint64_t bl_sharing_credible(const struct bl_tick *t, const struct bl_vm *vm, const struct bl_vm_sharing *h);
/* How long the `n`-th failure in a row is remembered. */
usec_t bl_sharing_back_off(unsigned int n);

/* share.c: what is done about equal pages, when all else is decided; `room` bytes may be used for taking apart. */
void bl_sharing_decide(struct bl_tick *t, struct bl_plan *plan, uint64_t room);

#define BL_MERGED_BITS  16
#define BL_MERGED_WHOLE (1U << BL_MERGED_BITS)

/* What the host gets when a VM gives `bytes`: what is merged others hold, too. */
static inline uint64_t bl_comes_back(const struct bl_work *w, uint64_t bytes)
{
        uint64_t frees = BL_MERGED_WHOLE - w->merged_part;

        if (w->merged_part == 0)
                return bytes;
        return (bytes >> BL_MERGED_BITS) * frees + ((bytes & (BL_MERGED_WHOLE - 1)) * frees >> BL_MERGED_BITS);
}

static inline uint64_t bl_paying_shares(const struct bl_work *w)
{
        return w->merged_part == 0 ? w->shares : w->paying;
}

/* --- the market: levels, revocation, grants ---------------------------------------------------- */

/* Bytes per share, idle memory counted for more; see revoke.c. */
typedef uint64_t bl_level;

/* What a VM pays for with `x` in its balloon: what the store holds of it, too. */
static inline uint64_t bl_pays_for(const struct bl_work *w, uint64_t x)
{
        return x + w->stored; /* of which prepare.c makes sure that it is small enough */
}

/* Size at which a VM pays at `level`; its inverse. */
uint64_t bl_level_size(bl_level level, uint64_t shares, uint64_t active, permyriad_t idle_tax);
bl_level bl_level_of(uint64_t size, uint64_t shares, uint64_t active, permyriad_t idle_tax);

/* What a market of all VMs must come to at a level; rises or falls with it, see bl_level_find. */
typedef bool (*bl_level_test)(const struct bl_work *w, size_t n, bl_level level, const void *arg);

/* The highest level up to `high` at which `test` holds; it holds at all levels below, and 0 is
 * returned when it holds nowhere. */
bl_level bl_level_find(const struct bl_work *w, size_t n, bl_level high, bl_level_test test, const void *arg);

struct bl_pick {
        uint64_t order;
        size_t index;
};

/* Puts parts that are smaller than a step together (steps.c). `picks` has room for n. */
void bl_in_steps(struct bl_work *w, size_t n, uint64_t step, struct bl_pick *picks);

/*
 * Takes from the VMs that pay least: `fixed` bytes, and (for_due) as much of what others are due as
 * their shares let them have from those; `coming` bytes of that need not be taken again.  Bounded by
 * w->room, which is used up; returns the bytes.
 */
uint64_t bl_revoke(struct bl_work *w, size_t n, uint64_t fixed, uint64_t coming, bool for_due,
                   const struct bl_policy_config *c, struct bl_pick *picks);

/* The level at which `pool` bytes are divided by shares alone, within reservations and limits; and
 * what a VM is entitled to then. */
bl_level bl_fair_level(const struct bl_work *w, size_t n, uint64_t pool);
uint64_t bl_fair_size(const struct bl_work *w, bl_level fair);

/* Bounds what is due to each by what it is entitled to: by its shares, and by what others do not use. */
void bl_entitle(struct bl_work *w, size_t n, bl_level fair, const struct bl_policy_config *c);

/* Gives at most `amount` bytes to those that have least for their shares: to bring them to their
 * reservation, for what else they are due, or at rest up to w->highest.  `why` says which.  Returns
 * the bytes. */
uint64_t bl_grant(struct bl_work *w, size_t n, uint64_t amount, enum bl_reason why, const struct bl_policy_config *c,
                  struct bl_pick *picks);

#endif
