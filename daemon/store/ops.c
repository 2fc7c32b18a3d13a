// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Reading, writing, trimming.
 *
 * A write of a part of a page reads it, changes it and commits the whole, only
 * if the slot still says what it said: the entry that was read is pinned, so the
 * word cannot mean something else meanwhile.  No lock is held over a slot.
 */
#include "daemon/store/internal.h"

#include <string.h>

#include "daemon/util/clock.h"

/* --- what a request needs ----------------------------------------------------------------- */

static struct bl_work *work_new(struct bl_store *s)
{
        struct bl_work *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        w->all = s->all;
        s->all = w;
        s->n_work++;
        return w;
}

int bl_work_init(struct bl_store *s)
{
        s->idle = work_new(s);
        return s->idle ? 0 : -ENOMEM;
}

void bl_work_free(struct bl_store *s)
{
        while (s->all) {
                struct bl_work *w = s->all;

                s->all = w->all;
                free(w);
        }
}

/* Where there is no memory for one more, one that is in use is waited for. */
static struct bl_work *work_take(struct bl_store *s)
{
        struct bl_work *w = NULL;
        usec_t now = bl_now();

        bl_lock(s);
        while (!w) {
                w = s->idle;
                if (w)
                        s->idle = w->next;
                else
                        w = work_new(s);
                if (!w)
                        pthread_cond_wait(&s->spare, &s->lock);
        }
        w->started = now;
        /* who waited for the lock comes with an older time */
        if ((uint32_t)(now / BL_SEC) > s->clock)
                s->clock = (uint32_t)(now / BL_SEC);
        pthread_mutex_unlock(&s->lock);
        return w;
}

static void work_give(struct bl_store *s, struct bl_work *w, struct bl_latency *l)
{
        usec_t now = bl_now();

        bl_lock(s);
        bl_latency_add(l, now, now - w->started);
        w->started = 0;
        w->next = s->idle;
        s->idle = w;
        pthread_cond_signal(&s->spare);
        pthread_mutex_unlock(&s->lock);
}

static bool in_range(const struct bl_export *e, uint64_t size, uint64_t offset)
{
        return offset <= e->size && size <= e->size - offset;
}

/* Counts and tells what a reader could not get, without the lock; what the caller is told. */
static int failed(struct bl_export *e, int r, uint64_t offset)
{
        struct bl_store *s = e->store;

        /* it may come back; that the disk hangs was told once (bl_tier_disk_did) */
        if (r == -ETIMEDOUT)
                return -EIO;
        bl_lock(s);
        e->errors++;
        s->errors++;
        pthread_mutex_unlock(&s->lock);
        bl_store_tell(s, r == -EBADMSG ? BL_STORE_DAMAGED : BL_STORE_LOST, e->record->uuid, offset);
        return -EIO;
}

/* --- reading -------------------------------------------------------------------------------- */

/* Looks at a slot under the lock and pins what is there. 0: *ret_entry, BL_NONE for zeros. */
static int look(struct bl_export *e, uint64_t slot, uint64_t *ret_word, uint32_t *ret_entry)
{
        uint64_t word = bl_slots_get(e, slot);

        *ret_word = word;
        *ret_entry = BL_NONE;
        if (word == BL_SLOT_HOLE || bl_slot_kind(word) == BL_SLOT_ZERO)
                return 0;
        if (bl_slot_kind(word) == BL_SLOT_LOST)
                return -EIO;
        if (bl_slot_kind(word) != BL_SLOT_DATA || !bl_entry_is(e->store, word))
                return -EBADMSG;
        *ret_entry = bl_slot_entry(word);
        bl_entry_pin(e->store, *ret_entry);
        return 0;
}

static int read_batch(struct bl_export *e, struct bl_work *w, uint8_t *buf, size_t size, uint64_t offset)
{
        struct bl_store *s = e->store;
        uint64_t first = offset / BL_STORE_PAGE;
        uint32_t n = (uint32_t)((offset + size - 1) / BL_STORE_PAGE - first + 1), seen;
        int r = 0;

        bl_lock(s);
        if (e->gone) {
                pthread_mutex_unlock(&s->lock);
                return -EIO;
        }
        /* what all of them need is under way before the first is waited for */
        for (uint32_t i = 0; n > 1 && i < n; i++)
                bl_entry_expect(s, bl_slots_get(e, first + i));
        for (seen = 0; seen < n && r == 0; seen++) {
                uint64_t word;

                r = look(e, first + seen, &word, &w->ops[seen].entry);
        }
        e->reads += n;
        s->reads += n;
        pthread_mutex_unlock(&s->lock);
        if (r < 0)
                r = failed(e, r, (first + seen - 1) * BL_STORE_PAGE);
        if (r == 0 && w->ops[0].entry != BL_NONE)
                bl_entry_expect_load(s, w->ops[0].entry);
        for (uint32_t i = 0; i < n && r == 0; i++) {
                uint64_t at = (first + i) * BL_STORE_PAGE;
                uint64_t from = bl_max(at, offset), to = bl_min(at + BL_STORE_PAGE, offset + size);
                bool whole = to - from == BL_STORE_PAGE;
                uint8_t *out = buf + (from - offset);

                if (i + 1 < n && w->ops[i + 1].entry != BL_NONE)
                        bl_entry_expect_load(s, w->ops[i + 1].entry);
                if (w->ops[i].entry == BL_NONE) {
                        memset(out, 0, to - from);
                        continue;
                }
                r = bl_entry_load(s, w->ops[i].entry, whole ? out : w->page, w->blob);
                if (r < 0)
                        r = failed(e, r, at);
                else if (!whole)
                        memcpy(out, w->page + (from - at), to - from);
        }
        bl_lock(s);
        for (uint32_t i = 0; i < seen; i++)
                if (w->ops[i].entry != BL_NONE)
                        bl_entry_unpin(s, w->ops[i].entry);
        pthread_mutex_unlock(&s->lock);
        return r;
}

int bl_export_read(struct bl_export *e, void *buf, size_t size, uint64_t offset)
{
        uint8_t *p = buf;
        struct bl_work *w;
        int r = 0;

        if (!in_range(e, size, offset))
                return -EINVAL;
        w = work_take(e->store);
        while (size > 0 && r == 0) {
                size_t part = bl_min(size, BL_BATCH * BL_STORE_PAGE - offset % BL_STORE_PAGE);

                r = read_batch(e, w, p, part, offset);
                p += part;
                offset += part;
                size -= part;
        }
        work_give(e->store, w, &e->store->read_latency);
        return r;
}

/* --- writing: what is to be stored ------------------------------------------------------------ */

static void classify(struct bl_work *w, uint32_t n, const uint8_t *data, uint64_t seed)
{
        for (uint32_t i = 0; i < n; i++) {
                struct bl_op *op = &w->ops[i];

                *op = (struct bl_op){.data = data + (size_t)i * BL_STORE_PAGE, .entry = BL_NONE, .same = BL_NONE};
                op->zero = bl_codec_is_zero(op->data);
                if (op->zero)
                        continue;
                op->hash = bl_codec_hash(op->data, seed);
                for (uint32_t j = 0; j < i && op->same == BL_NONE; j++)
                        if (!w->ops[j].zero && w->ops[j].same == BL_NONE && w->ops[j].hash == op->hash &&
                            memcmp(w->ops[j].data, op->data, BL_STORE_PAGE) == 0)
                                op->same = j;
        }
}

/* Compares with what was found, compresses what is new. */
static void compare(struct bl_store *s, struct bl_work *w, uint32_t n, bool *strange)
{
        for (uint32_t i = 0; i < n; i++) {
                struct bl_op *op = &w->ops[i];

                strange[i] = false;
                if (op->zero || op->same != BL_NONE)
                        continue;
                if (op->entry != BL_NONE) {
                        if (bl_entry_load(s, op->entry, w->page, w->blob) == 0 &&
                            memcmp(w->page, op->data, BL_STORE_PAGE) == 0) {
                                op->filled = true;
                                continue;
                        }
                        strange[i] = true;
                }
                op->size = bl_codec_compress(w->lz4, op->data, w->out[i]);
        }
}

/* --- writing: the commit ---------------------------------------------------------------------- */

/* Takes what page i needs; false: there is no room. */
static bool take(struct bl_export *e, struct bl_op *op, uint64_t slot)
{
        struct bl_store *s = e->store;

        if (!bl_slots_at(e, slot, true))
                return false;
        if (op->size == 0 || op->place != 0)
                return true;
        op->entry = bl_entry_take(s);
        if (op->entry == BL_NONE)
                return false;
        op->place = bl_spans_take(s, op->size);
        if (op->place == 0) {
                bl_entry_unpin(s, op->entry);
                op->entry = BL_NONE;
                return false;
        }
        return true;
}

static void remember_ratio(struct bl_export *e, uint32_t size)
{
        if (e->n_recent == BL_RECENT)
                e->sum_recent -= e->recent[e->at_recent];
        else
                e->n_recent++;
        e->recent[e->at_recent] = (uint16_t)size;
        e->sum_recent += size;
        e->at_recent = (e->at_recent + 1) % BL_RECENT;
}

/* Somebody else has written the same since it was looked for: theirs is kept.  The same compressed bytes are the
 * same page. */
static bool join(struct bl_store *s, struct bl_op *op, const uint8_t *bytes, uint16_t group)
{
        uint32_t n = bl_entry_find(s, op->hash, group);

        if (n == BL_NONE || !bl_entry_holds(s, n, bytes, op->size))
                return false;
        bl_entry_pin(s, n);
        bl_entry_unpin(s, op->entry);
        bl_spans_give(s, op->place);
        op->entry = n;
        op->place = 0;
        op->size = 0;
        op->filled = true;
        return true;
}

/* The slot has a table. */
static void publish(struct bl_export *e, struct bl_work *w, uint32_t i, uint64_t slot, uint16_t group)
{
        struct bl_store *s = e->store;
        struct bl_op *op = &w->ops[i];
        uint32_t n;

        if (op->zero) {
                bl_slots_set(e, slot, bl_slot_word(BL_SLOT_ZERO, 0, 0));
        } else {
                if (op->filled || op->same != BL_NONE ||
                    join(s, op, op->size == BL_STORE_PAGE ? op->data : w->out[i], group)) {
                        s->hits++;
                } else {
                        bl_entry_fill(s, op->entry, op->place, op->hash, op->size, group);
                        op->filled = true;
                        (void)bl_fault(BL_FAULT_STORE_FILLED);
                }
                n = op->same == BL_NONE ? op->entry : w->ops[op->same].entry;
                bl_slots_set(e, slot, bl_slot_word(BL_SLOT_DATA, n, op->hash));
        }
        remember_ratio(e, op->size);
        e->writes++;
        s->writes++;
}

/* The new ones' bytes to where nobody looks yet. */
static void copy(struct bl_store *s, const struct bl_work *w, uint32_t from, uint32_t to)
{
        for (uint32_t i = from; i < to; i++) {
                const struct bl_op *op = &w->ops[i];

                if (op->place != 0)
                        memcpy(s->arena->base + op->place * 16, op->size == BL_STORE_PAGE ? op->data : w->out[i],
                               op->size);
        }
}

/* With the lock held: commits pages from *done on as far as there is room for them at once. */
static int commit_some(struct bl_export *e, struct bl_work *w, uint64_t slot, uint32_t n, const uint64_t *expect,
                       uint16_t group, uint32_t *done)
{
        struct bl_store *s = e->store;
        uint32_t m = *done;
        bool late;

        while (m < n && take(e, &w->ops[m], slot + m))
                m++;
        if (m == *done)
                return 0;
        pthread_mutex_unlock(&s->lock);
        /* "fail" is the wrong order, which the tests have to notice: the bytes come after the commit */
        late = bl_fault(BL_FAULT_STORE_TAKEN) < 0;
        if (!late)
                copy(s, w, *done, m);
        (void)bl_fault(BL_FAULT_STORE_COPIED);
        bl_lock(s);
        if (e->gone)
                return -EIO;
        if (e->record->group != group || (expect && bl_slots_get(e, slot) != *expect))
                return -EAGAIN;
        __atomic_store_n(&e->record->stamp, e->record->stamp + 1, __ATOMIC_RELEASE);
        /* a table may be gone that was there: a TRIM emptied it */
        for (; *done < m && bl_slots_at(e, slot + *done, true); (*done)++)
                publish(e, w, *done, slot + *done, group);
        if (late)
                copy(s, w, 0, m);
        return 0;
}

static int commit(struct bl_export *e, struct bl_work *w, uint64_t slot, uint32_t n, const uint64_t *expect,
                  uint16_t group)
{
        struct bl_store *s = e->store;
        uint32_t done = 0;
        usec_t since = 0;
        int r = 0;

        while (done < n && r == 0) {
                uint32_t before = done;

                if (e->gone)
                        r = -EIO;
                else if (bl_tier_allows(e))
                        r = commit_some(e, w, slot, n, expect, group, &done);
                if (r < 0 || done > before)
                        continue;
                if (since == 0)
                        since = bl_now();
                r = bl_tier_wait(e, since);
        }
        if (since != 0 && r >= 0)
                bl_tier_roomy(s);
        for (uint32_t i = 0; i < n; i++) {
                struct bl_op *op = &w->ops[i];

                if (op->place != 0 && !op->filled)
                        bl_spans_give(s, op->place);
                if (op->entry != BL_NONE)
                        bl_entry_unpin(s, op->entry);
        }
        return r;
}

/* Whole pages, at most BL_BATCH.  `expect` (of one page): the slot's word, else -EAGAIN. */
static int write_once(struct bl_export *e, struct bl_work *w, uint64_t slot, uint32_t n, const uint8_t *data,
                      const uint64_t *expect)
{
        struct bl_store *s = e->store;
        bool strange[BL_BATCH];
        uint16_t group;
        int r;

        /* the registration may change it */
        group = __atomic_load_n(&e->record->group, __ATOMIC_ACQUIRE);
        classify(w, n, data, s->groups[group].seed);
        bl_lock(s);
        for (uint32_t i = 0; i < n; i++)
                bl_entry_expect_head(s, w->ops[i].hash);
        for (uint32_t i = 0; i < n; i++)
                bl_entry_expect_find(s, w->ops[i].hash);
        for (uint32_t i = 0; i < n; i++) {
                struct bl_op *op = &w->ops[i];

                if (op->zero || op->same != BL_NONE)
                        continue;
                op->entry = bl_entry_find(s, op->hash, group);
                if (op->entry != BL_NONE)
                        bl_entry_pin(s, op->entry);
        }
        pthread_mutex_unlock(&s->lock);
        compare(s, w, n, strange);
        bl_lock(s);
        for (uint32_t i = 0; i < n; i++)
                if (strange[i]) {
                        bl_entry_unpin(s, w->ops[i].entry);
                        w->ops[i].entry = BL_NONE;
                }
        r = commit(e, w, slot, n, expect, group);
        pthread_mutex_unlock(&s->lock);
        return r;
}

static int write_pages(struct bl_export *e, struct bl_work *w, uint64_t slot, uint32_t n, const uint8_t *data)
{
        int r;

        do
                r = write_once(e, w, slot, n, data, NULL);
        while (r == -EAGAIN);
        return r;
}

/* A part of a page; without `data`, zeros. */
static int write_part(struct bl_export *e, struct bl_work *w, uint64_t offset, size_t size, const uint8_t *data)
{
        struct bl_store *s = e->store;
        uint64_t slot = offset / BL_STORE_PAGE, word;
        uint32_t entry;
        int r;

        do {
                bl_lock(s);
                r = -ENODEV;
                if (!e->gone)
                        r = look(e, slot, &word, &entry);
                pthread_mutex_unlock(&s->lock);
                if (r == -ENODEV)
                        return -EIO;
                if (r < 0)
                        return failed(e, r, slot * BL_STORE_PAGE);
                if (entry == BL_NONE && !data)
                        return 0;
                memset(w->whole, 0, sizeof(w->whole));
                if (entry != BL_NONE)
                        r = bl_entry_load(s, entry, w->whole, w->blob);
                if (r < 0) {
                        r = failed(e, r, slot * BL_STORE_PAGE);
                } else {
                        if (data)
                                memcpy(w->whole + offset % BL_STORE_PAGE, data, size);
                        else
                                memset(w->whole + offset % BL_STORE_PAGE, 0, size);
                        r = write_once(e, w, slot, 1, w->whole, &word);
                }
                if (entry != BL_NONE) {
                        bl_lock(s);
                        bl_entry_unpin(s, entry);
                        pthread_mutex_unlock(&s->lock);
                }
        } while (r == -EAGAIN);
        return r;
}

int bl_export_write(struct bl_export *e, const void *buf, size_t size, uint64_t offset)
{
        const uint8_t *p = buf;
        struct bl_work *w;
        int r = 0;

        if (!in_range(e, size, offset))
                return -EINVAL;
        w = work_take(e->store);
        while (size > 0 && r == 0) {
                size_t part = bl_min(size, BL_STORE_PAGE - offset % BL_STORE_PAGE);

                if (part < BL_STORE_PAGE) {
                        r = write_part(e, w, offset, part, p);
                } else {
                        part = bl_min(size, BL_BATCH * BL_STORE_PAGE) / BL_STORE_PAGE * BL_STORE_PAGE;
                        r = write_pages(e, w, offset / BL_STORE_PAGE, (uint32_t)(part / BL_STORE_PAGE), p);
                }
                p += part;
                offset += part;
                size -= part;
        }
        work_give(e->store, w, &e->store->write_latency);
        return r;
}

/* --- trimming ---------------------------------------------------------------------------------- */

/* Slots of one table, with the lock held.  Holes of a lost export are not zeros, so they are written. */
static bool zero_run(struct bl_export *e, uint64_t slot, uint64_t n)
{
        uint64_t to = e->record->lost ? bl_slot_word(BL_SLOT_ZERO, 0, 0) : BL_SLOT_HOLE;
        const uint64_t *words = bl_slots_at(e, slot, e->record->lost != 0);

        if (!words)
                return !e->record->lost;
        for (uint64_t i = 0; i < n; i++)
                if (words[i] != to)
                        bl_slots_set(e, slot + i, to);
        bl_slots_tidy(e, slot);
        return true;
}

static int zero_pages(struct bl_export *e, uint64_t slot, uint64_t n)
{
        struct bl_store *s = e->store;
        usec_t since = 0;
        int r = 0;

        bl_lock(s);
        s->trims += n;
        while (n > 0 && r == 0) {
                uint64_t run = bl_min(n, BL_TABLE - slot % BL_TABLE);

                if (e->gone) {
                        r = -EIO;
                        break;
                }
                __atomic_store_n(&e->record->stamp, e->record->stamp + 1, __ATOMIC_RELEASE);
                if (!zero_run(e, slot, run)) {
                        if (since == 0)
                                since = bl_now();
                        r = bl_tier_wait(e, since);
                        continue;
                }
                slot += run;
                n -= run;
                /* others' turn */
                pthread_mutex_unlock(&s->lock);
                bl_lock(s);
        }
        pthread_mutex_unlock(&s->lock);
        return r;
}

int bl_export_zero(struct bl_export *e, uint64_t size, uint64_t offset)
{
        struct bl_work *w;
        int r = 0;

        if (!in_range(e, size, offset))
                return -EINVAL;
        w = work_take(e->store);
        while (size > 0 && r == 0) {
                uint64_t part = bl_min(size, BL_STORE_PAGE - offset % BL_STORE_PAGE);

                if (part < BL_STORE_PAGE) {
                        r = write_part(e, w, offset, part, NULL);
                } else {
                        part = size / BL_STORE_PAGE * BL_STORE_PAGE;
                        r = zero_pages(e, offset / BL_STORE_PAGE, part / BL_STORE_PAGE);
                }
                offset += part;
                size -= part;
        }
        work_give(e->store, w, &e->store->write_latency);
        return r;
}

/* --- what is there --------------------------------------------------------------------------------- */

/* 1: data, or an error for who reads it; 0: reads as zeros. *run: for so many slots of this table it says the
 * same. */
static int extent_run(struct bl_export *e, uint64_t slot, uint64_t n, uint64_t *run)
{
        int kind = -1;

        for (*run = 0; *run < n; (*run)++) {
                uint64_t word = bl_slots_get(e, slot + *run);
                int k = word != BL_SLOT_HOLE && bl_slot_kind(word) != BL_SLOT_ZERO;

                if (kind >= 0 && k != kind)
                        break;
                kind = k;
        }
        return kind;
}

int bl_export_extent(struct bl_export *e, uint64_t offset, uint64_t *size)
{
        struct bl_store *s = e->store;
        uint64_t slot = offset / BL_STORE_PAGE, end, to;
        int kind = -1;

        if (*size == 0 || !in_range(e, *size, offset))
                return -EINVAL;
        end = (offset + *size + BL_STORE_PAGE - 1) / BL_STORE_PAGE;
        while (slot < end) {
                uint64_t n = bl_min(end - slot, BL_TABLE - slot % BL_TABLE), run = 0;
                int k;

                bl_lock(s);
                k = e->gone ? -EIO : extent_run(e, slot, n, &run);
                pthread_mutex_unlock(&s->lock);
                if (k < 0)
                        return k;
                if (kind >= 0 && k != kind)
                        break;
                kind = k;
                slot += run;
                if (run < n)
                        break;
        }
        to = bl_min(slot * BL_STORE_PAGE, offset + *size);
        *size = to - offset;
        return kind;
}
