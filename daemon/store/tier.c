// SPDX-License-Identifier: LGPL-2.1-or-later
/* Room: what goes down to the disk, in which order, and who waits for it. */
#include "daemon/store/internal.h"

#include <string.h>
#include <time.h>

#include "daemon/util/clock.h"

#define RANKS    256U
#define RETRY    (10 * BL_MSEC) /* of who waits for room */
#define AGES     64U
#define RESERVED 8U /* pages that compaction works with */

usec_t bl_tier_patience = 30 * BL_SEC;

static uint64_t available(const struct bl_store *s)
{
        return s->free_pages + (uint64_t)(s->n_pages - s->ready_pages);
}

/* Demotion begins below this, and who has more than its share waits below half of it. */
static uint64_t low_mark(const struct bl_store *s)
{
        return bl_max(s->n_pages / 16, 4U * RESERVED);
}

bool bl_tier_allows(const struct bl_export *e)
{
        const struct bl_store *s = e->store;
        uint64_t left = available(s), share = (uint64_t)s->n_pages * BL_STORE_PAGE / (s->n_exports ? s->n_exports : 1);

        if (left <= RESERVED)
                return false;
        return !s->disk || __atomic_load_n(&s->disk_failed, __ATOMIC_RELAXED) || left > low_mark(s) / 2 ||
               e->charge <= share;
}

static void timed_wait(struct bl_store *s, pthread_cond_t *c, usec_t time)
{
        usec_t until = bl_now() + time;
        struct timespec ts = {.tv_sec = (time_t)(until / BL_SEC), .tv_nsec = (long)(until % BL_SEC * 1000)};

        (void)pthread_cond_timedwait(c, &s->lock, &ts);
}

int bl_tier_wait(struct bl_export *e, usec_t since)
{
        struct bl_store *s = e->store;
        uint64_t before = available(s);
        bool tell = false;
        int r;

        pthread_mutex_unlock(&s->lock);
        r = bl_pages_grow(s);
        if (r < 0 && !s->disk)
                (void)bl_store_compact(s, BL_SEC);
        pthread_mutex_lock(&s->lock);
        if (r >= 0 || available(s) > before)
                return 0;
        if (bl_now() - since > bl_tier_patience)
                return -EIO;
        if (!s->full) {
                s->full = true;
                tell = true;
        }
        s->waiting++;
        pthread_cond_signal(&s->work);
        if (tell) {
                pthread_mutex_unlock(&s->lock);
                bl_store_tell(s, BL_STORE_FULL, e->record->uuid, 0);
                pthread_mutex_lock(&s->lock);
        }
        timed_wait(s, &s->room, RETRY);
        s->waiting--;
        return 0;
}

void bl_tier_roomy(struct bl_store *s)
{
        if (!s->full || s->waiting > 0)
                return;
        s->full = false;
        pthread_mutex_unlock(&s->lock);
        bl_store_tell(s, BL_STORE_ROOM, NULL, 0);
        pthread_mutex_lock(&s->lock);
}

/* --- going down ----------------------------------------------------------------------------------------------- */

/* What goes down first ranks highest; 0: it stays. */
static uint32_t rank(const struct bl_store *s, const struct bl_entry *e, const struct bl_meta *m)
{
        const struct bl_export *x = m->owner < BL_EXPORTS ? s->exports[m->owner] : NULL;
        uint32_t age = s->clock - e->age, log = age ? 32 - (uint32_t)__builtin_clz(age) : 0, class = 1;

        if (m->refs == 0 || m->pins > 0 || e->location & BL_LOCATION_DISK)
                return 0;
        if (x && x->record->limit != BL_UNSET && x->charge > x->record->limit)
                class = 3;
        else if (e->size > BL_STORE_PAGE / 2)
                class = 2;
        return class * AGES + log;
}

/* A walk looks for so much: little of the pool, so that the order counts, and not so little that it walks all the
 * time. */
static uint64_t at_once(const struct bl_store *s)
{
        return bl_clamp((uint64_t)s->n_pages * BL_STORE_PAGE / 16, BL_DISK_SEGMENT / 4, 16 * BL_DISK_SEGMENT);
}

/* With the lock held, given up on the way: how high must one rank so that so much goes down? */
static uint32_t find_cut(struct bl_store *s)
{
        uint64_t bytes[RANKS] = {0}, sum = 0;
        uint32_t cut = RANKS;

        for (uint32_t i = 0; i < s->n_entry_pages; i++) {
                for (uint32_t j = 0; s->entry_pages[i] && j < BL_ENTRIES; j++) {
                        struct bl_meta *m;
                        const struct bl_entry *e = bl_entry_at(s, i * BL_ENTRIES + j, &m);

                        bytes[rank(s, e, m)] += e->size;
                }
                if (i % 4 == 3)
                        bl_lock_breathe(s);
        }
        /* of a lower class only if there is next to nothing of the one above */
        while (cut > AGES && sum < at_once(s) && (cut % AGES != 0 || sum < BL_DISK_SEGMENT / 4))
                sum += bytes[--cut];
        s->cut_left = at_once(s);
        return sum > 0 ? cut : 0;
}

/* Pins what goes into one segment. */
static size_t collect(struct bl_store *s)
{
        size_t n = 0, bytes = 0;
        uint32_t pages = s->n_entry_pages;

        for (uint32_t k = 0; k < pages && s->cut_left > 0; k++) {
                uint32_t i = s->hand < s->n_entry_pages ? s->hand : 0;

                for (uint32_t j = 0; s->entry_pages[i] && j < BL_ENTRIES; j++) {
                        uint32_t number = i * BL_ENTRIES + j;
                        struct bl_meta *m;
                        const struct bl_entry *e = bl_entry_at(s, number, &m);

                        if (rank(s, e, m) < s->cut || !bl_location_ok(e->location, number, e))
                                continue;
                        if (n == s->n_blobs || bytes + e->size + BL_DISK_GRAIN > BL_DISK_SEGMENT)
                                return n;
                        m->pins++;
                        s->old_places[n] = e->location;
                        s->blobs[n++] =
                                (struct bl_disk_blob){.entry = number, .size = e->size, .data = s->segment + bytes};
                        bytes += (e->size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN;
                        s->cut_left = bl_sub_sat(s->cut_left, e->size);
                }
                s->hand = i + 1;
                if (s->hand >= s->n_entry_pages) {
                        /* once around: what is old has changed */
                        s->hand = 0;
                        s->cut = 0;
                        return n;
                }
                if (k % 4 == 3)
                        bl_lock_breathe(s);
        }
        return n;
}

/* What is nobody else's now is at its new place. */
static int settle(struct bl_store *s, size_t n, bool written)
{
        int moved = 0;

        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < n; i++) {
                const struct bl_disk_blob *b = &s->blobs[i];
                struct bl_meta *m;
                const struct bl_entry *e = bl_entry_at(s, b->entry, &m);

                if (written && m->pins == 1 && m->refs > 0 && e->location == s->old_places[i]) {
                        if (!(e->location & BL_LOCATION_DISK))
                                s->demoted += b->size;
                        bl_entry_flip(s, b->entry, b->place, true);
                        moved++;
                } else if (written) {
                        bl_disk_free(s->disk, b->place, b->size);
                }
                bl_entry_unpin(s, b->entry);
                if (i % 16 == 15)
                        bl_lock_breathe(s);
        }
        pthread_mutex_unlock(&s->lock);
        return moved;
}

void bl_tier_disk_did(struct bl_store *s, int r)
{
        bool failed = r < 0 && r != -ENOSPC;

        if (__atomic_exchange_n(&s->disk_failed, failed, __ATOMIC_RELAXED) != failed)
                bl_store_tell(s, failed ? BL_STORE_DISK_FAILED : BL_STORE_DISK_BACK, NULL, 0);
}

int bl_tier_demote(struct bl_store *s)
{
        size_t n;
        int r;

        pthread_mutex_lock(&s->clean);
        pthread_mutex_lock(&s->lock);
        if (s->cut == 0)
                s->cut = find_cut(s);
        n = s->cut == 0 ? 0 : collect(s);
        /* what there is has changed since it was found */
        if (s->cut_left == 0)
                s->cut = 0;
        pthread_mutex_unlock(&s->lock);
        if (n == 0) {
                pthread_mutex_unlock(&s->clean);
                return 0;
        }
        for (size_t i = 0; i < n; i++) {
                const struct bl_disk_blob *b = &s->blobs[i];

                memcpy((void *)(uintptr_t)b->data, s->arena->base + (s->old_places[i] & BL_PLACE_MASK) * 16, b->size);
        }
        r = bl_disk_append(s->disk, s->blobs, n);
        bl_tier_disk_did(s, r);
        n = (size_t)settle(s, n, r >= 0);
        pthread_mutex_unlock(&s->clean);
        return r < 0 ? r : (int)n;
}

/* --- the log's cleaning ------------------------------------------------------------------------------------------- */

/* Of the blobs picked, those that still are where they were, pinned. */
static size_t still_there(struct bl_store *s, size_t n)
{
        size_t kept = 0, bytes = 0;

        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < n; i++) {
                struct bl_disk_blob b = s->blobs[i];
                struct bl_meta *m;
                const struct bl_entry *e = bl_entry_at(s, b.entry, &m);

                if (!e || m->refs == 0 || e->size != b.size || !bl_location_ok(e->location, b.entry, e) ||
                    !(e->location & BL_LOCATION_DISK) || (e->location & BL_PLACE_MASK) != b.place ||
                    bytes + b.size > BL_DISK_SEGMENT)
                        continue;
                m->pins++;
                s->old_places[kept] = e->location;
                b.data = s->segment + bytes;
                bytes += (b.size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN;
                s->blobs[kept++] = b;
        }
        pthread_mutex_unlock(&s->lock);
        return kept;
}

int bl_tier_clean(struct bl_store *s)
{
        size_t n;
        int r = 0;

        pthread_mutex_lock(&s->clean);
        n = bl_disk_pick(s->disk, s->blobs, s->n_blobs);
        if (n == 0) {
                pthread_mutex_unlock(&s->clean);
                return 0;
        }
        n = still_there(s, n);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = bl_disk_read(s->disk, s->blobs[i].place, s->blobs[i].size, (void *)(uintptr_t)s->blobs[i].data);
        if (r >= 0 && n > 0)
                r = bl_disk_append(s->disk, s->blobs, n);
        bl_tier_disk_did(s, r);
        n = (size_t)settle(s, n, r >= 0);
        pthread_mutex_unlock(&s->clean);
        return r < 0 ? r : (int)n;
}

/* --- the thread ------------------------------------------------------------------------------------------------------
 */

/* A disk that hung and does not any more. */
static void look_at_disk(struct bl_store *s)
{
        struct bl_disk_figures f;

        if (!__atomic_load_n(&s->disk_failed, __ATOMIC_RELAXED))
                return;
        bl_disk_figures(s->disk, &f);
        if (!f.hangs && !f.failed)
                bl_tier_disk_did(s, 0);
}

static void *run(void *arg)
{
        struct bl_store *s = arg;

        pthread_mutex_lock(&s->lock);
        while (!s->stop) {
                bool low = available(s) < low_mark(s) || s->waiting > 0;
                int r = 0, cleaned;

                /* what was to go down then need not be what is now */
                if (!low)
                        s->cut = 0;
                pthread_mutex_unlock(&s->lock);
                look_at_disk(s);
                if (low)
                        r = bl_tier_demote(s);
                cleaned = bl_tier_clean(s);
                if (low && r <= 0)
                        (void)bl_store_compact(s, BL_SEC);
                pthread_mutex_lock(&s->lock);
                if (!s->stop && r <= 0 && cleaned <= 0)
                        timed_wait(s, &s->work, low ? 10 * RETRY : BL_SEC / 4);
        }
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

int bl_tier_start(struct bl_store *s)
{
        int r;

        if (!s->disk)
                return 0;
        s->n_blobs = bl_disk_most_blobs(s->disk);
        s->segment = malloc(BL_DISK_SEGMENT);
        s->blobs = calloc(s->n_blobs, sizeof(*s->blobs));
        s->old_places = calloc(s->n_blobs, sizeof(*s->old_places));
        if (!s->segment || !s->blobs || !s->old_places)
                return -ENOMEM;
        r = -pthread_create(&s->tier, NULL, run, s);
        s->tier_runs = r == 0;
        return r;
}

void bl_tier_stop_thread(struct bl_store *s)
{
        if (!s->tier_runs)
                return;
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_broadcast(&s->work);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->tier, NULL);
        s->tier_runs = false;
}

void bl_tier_stop(struct bl_store *s)
{
        bl_tier_stop_thread(s);
        free(s->segment);
        free(s->blobs);
        free(s->old_places);
}
