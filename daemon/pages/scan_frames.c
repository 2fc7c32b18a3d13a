/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan_frames.h"

#include <errno.h>
#include <string.h>

#define HOLDERS     4U
#define HOLDER_BITS 16U
#define HOLDER_MASK UINT64_C(0xffff)

/* one more than are kept: there is always room to put one in */
#define SAMPLE_ROOM (BL_SCAN_FRAMES_SAMPLE + 1)
#define HASH_BITS   63U

/* Sources count from 1 in it, so that 0 is nobody. */
uint64_t bl_scan_holders_with(uint64_t holders, size_t source)
{
        for (unsigned i = 0; i < HOLDERS; i++) {
                const uint64_t h = holders >> i * HOLDER_BITS & HOLDER_MASK;

                if (h == source + 1)
                        return holders;
                if (h == 0)
                        return holders | (uint64_t)(source + 1) << i * HOLDER_BITS;
        }
        return holders;
}

/* The finaliser of MurmurHash3, a bijection. */
static uint64_t mix(uint64_t x)
{
        x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
        x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
        return x ^ x >> 33;
}

/* The slot of a set, or the free one where it belongs; half of them always are free. */
static struct bl_scan_frames_pair *slot_of(const struct bl_scan_frames *f, uint64_t holders)
{
        size_t i = mix(holders) % f->set_slots;

        while (f->set[i].key != 0 && f->set[i].key != holders)
                i = (i + 1) % f->set_slots;
        return &f->set[i];
}

int bl_scan_frames_init(struct bl_scan_frames *f, struct bl_scan_memory *m, size_t n_sources)
{
        if (f->set || f->sample)
                return 0;
        f->set_slots = 2 * (n_sources + BL_SCAN_FRAMES_SETS);
        f->set = bl_scan_alloc(m, f->set_slots, sizeof(*f->set));
        return f->set ? 0 : -ENOMEM;
}

int bl_scan_frames_init_sample(struct bl_scan_frames *f, struct bl_scan_memory *m)
{
        if (f->sample)
                return 0;
        f->sample = bl_scan_alloc(m, SAMPLE_ROOM, sizeof(*f->sample));
        return f->sample ? 0 : -ENOMEM;
}

void bl_scan_frames_free(struct bl_scan_frames *f, struct bl_scan_memory *m)
{
        f->set = bl_scan_release(m, f->set, f->set_slots, sizeof(*f->set));
        f->sample = bl_scan_release(m, f->sample, SAMPLE_ROOM, sizeof(*f->sample));
}

static void add_set(struct bl_scan_frames *f, uint64_t holders)
{
        struct bl_scan_frames_pair *p = slot_of(f, holders);

        if (p->key == 0 && holders > HOLDER_MASK) {
                if (f->sets >= BL_SCAN_FRAMES_SETS) {
                        holders &= HOLDER_MASK;
                        p = slot_of(f, holders);
                } else
                        f->sets++;
        }
        p->key = holders;
        p->value++;
}

static bool sampled(const struct bl_scan_frames *f, uint64_t mixed)
{
        return (mixed & ((UINT64_C(1) << f->shift) - 1)) == 0;
}

/* Half of the frames go. */
static void thin(struct bl_scan_frames *f)
{
        size_t kept = 0;

        f->shift++;
        for (size_t i = 0; i < f->samples; i++)
                if (sampled(f, f->sample[i].key))
                        f->sample[kept++] = f->sample[i];
        f->samples = kept;
}

/* The sample is in order of its keys. */
static void add_sample(struct bl_scan_frames *f, uint64_t mixed, uint64_t holders)
{
        size_t low = 0, high = f->samples;

        if (!sampled(f, mixed))
                return;
        while (low < high) {
                const size_t mid = (low + high) / 2;

                if (f->sample[mid].key < mixed)
                        low = mid + 1;
                else
                        high = mid;
        }
        if (low == f->samples || f->sample[low].key != mixed) {
                memmove(&f->sample[low + 1], &f->sample[low], (f->samples - low) * sizeof(*f->sample));
                f->sample[low] = (struct bl_scan_frames_pair){.key = mixed};
                f->samples++;
        }
        for (unsigned i = 0; i < HOLDERS; i++)
                if (holders >> i * HOLDER_BITS & HOLDER_MASK)
                        f->sample[low].value = bl_scan_holders_with(f->sample[low].value,
                                                                    (holders >> i * HOLDER_BITS & HOLDER_MASK) - 1);
        while (f->samples > BL_SCAN_FRAMES_SAMPLE && f->shift < HASH_BITS)
                thin(f);
}

void bl_scan_frames_add(struct bl_scan_frames *f, uint64_t frame, uint64_t seed, uint64_t holders)
{
        if (holders == 0)
                return;
        if (f->sample)
                add_sample(f, mix(frame ^ seed), holders);
        else
                add_set(f, holders);
}

static void count(struct bl_scan_source *source, uint64_t holders, uint64_t frames)
{
        for (unsigned i = 0; i < HOLDERS; i++) {
                const uint64_t h = holders >> i * HOLDER_BITS & HOLDER_MASK;

                if (h != 0 && source[h - 1].error == 0) {
                        source[h - 1].f.merged_frames += frames;
                        return;
                }
        }
}

void bl_scan_frames_count(const struct bl_scan_frames *f, struct bl_scan_source *source)
{
        for (size_t i = 0; f->set && i < f->set_slots; i++)
                count(source, f->set[i].key, f->set[i].value);
        for (size_t i = 0; i < f->samples; i++)
                count(source, f->sample[i].value, UINT64_C(1) << f->shift);
}
