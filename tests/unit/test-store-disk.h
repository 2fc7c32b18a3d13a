/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk of the test's own, in place of daemon/store/disk.c: shared memory, that can be told to fail. */
#ifndef BALLAST_TEST_STORE_DISK_H
#define BALLAST_TEST_STORE_DISK_H

#include "tests/unit/test-store-util.h"

#define FAKE_BLOBS 4096U

struct bl_disk {
        uint8_t *memory; /* outlives it */
        size_t size;
        pthread_mutex_t lock;
        uint64_t next; /* bytes */
        struct bl_disk_blob blobs[FAKE_BLOBS]; /* alive; size 0: unused */
        usec_t append_takes;
        int append_fails, read_fails; /* -errno, or 0 */
        bool pick; /* bl_disk_pick has something to say, once */
};

static inline struct bl_disk *fake_disk(uint8_t *memory, size_t size)
{
        struct bl_disk *d = calloc(1, sizeof(*d));

        if (!d)
                abort();
        pthread_mutex_init(&d->lock, NULL);
        d->memory = memory;
        d->size = size;
        return d;
}

struct bl_disk *bl_disk_close(struct bl_disk *d)
{
        free(d);
        return NULL;
}

static bool fake_add(struct bl_disk *d, bl_disk_place place, uint32_t size, uint32_t entry)
{
        uint64_t at = place * BL_DISK_GRAIN;
        struct bl_disk_blob *unused = NULL;

        if (at + size > d->size)
                return false;
        for (uint32_t i = 0; i < FAKE_BLOBS; i++) {
                const struct bl_disk_blob *b = &d->blobs[i];
                uint64_t from = b->place * BL_DISK_GRAIN;

                if (b->size == 0)
                        unused = &d->blobs[i];
                else if (at < from + b->size && from < at + size)
                        return false;
        }
        if (!unused)
                return false;
        *unused = (struct bl_disk_blob){.entry = entry, .size = size, .place = place};
        return true;
}

int bl_disk_claim(struct bl_disk *d, bl_disk_place place, uint32_t size, uint32_t entry)
{
        if (!fake_add(d, place, size, entry))
                return -EINVAL;
        d->next = bl_max(d->next, place * BL_DISK_GRAIN + (size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN);
        return 0;
}

void bl_disk_free(struct bl_disk *d, bl_disk_place place, uint32_t size)
{
        pthread_mutex_lock(&d->lock);
        for (uint32_t i = 0; i < FAKE_BLOBS; i++)
                if (d->blobs[i].size == size && d->blobs[i].place == place) {
                        d->blobs[i].size = 0;
                        pthread_mutex_unlock(&d->lock);
                        return;
                }
        abort(); /* freed twice, or never alive */
}

int bl_disk_append(struct bl_disk *d, struct bl_disk_blob *blobs, size_t n)
{
        uint64_t bytes = 0;
        bool any = false;

        if (d->append_takes > 0)
                usleep((useconds_t)d->append_takes);
        if (d->append_fails)
                return d->append_fails;
        pthread_mutex_lock(&d->lock);
        for (uint32_t i = 0; i < FAKE_BLOBS; i++)
                any |= d->blobs[i].size > 0;
        if (!any)
                d->next = 0;
        for (size_t i = 0; i < n; i++)
                bytes += (blobs[i].size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN;
        if (d->next + bytes > d->size) {
                pthread_mutex_unlock(&d->lock);
                return -ENOSPC;
        }
        for (size_t i = 0; i < n; i++) {
                uint64_t at = d->next;

                if (!fake_add(d, at / BL_DISK_GRAIN, blobs[i].size, blobs[i].entry))
                        abort();
                memcpy(d->memory + at, blobs[i].data, blobs[i].size);
                blobs[i].place = at / BL_DISK_GRAIN;
                d->next = at + (blobs[i].size + BL_DISK_GRAIN - 1) / BL_DISK_GRAIN * BL_DISK_GRAIN;
        }
        pthread_mutex_unlock(&d->lock);
        return 0;
}

int bl_disk_read(struct bl_disk *d, bl_disk_place place, uint32_t size, void *buf)
{
        if (d->read_fails)
                return d->read_fails;
        if (place * BL_DISK_GRAIN + size > d->size)
                return -EIO;
        memcpy(buf, d->memory + place * BL_DISK_GRAIN, size);
        return 0;
}

size_t bl_disk_pick(struct bl_disk *d, struct bl_disk_blob *ret, size_t n)
{
        size_t k = 0;

        if (!d->pick)
                return 0;
        d->pick = false;
        pthread_mutex_lock(&d->lock);
        for (uint32_t i = 0; i < FAKE_BLOBS && k < n; i++)
                if (d->blobs[i].size > 0)
                        ret[k++] = d->blobs[i];
        pthread_mutex_unlock(&d->lock);
        return k;
}

size_t bl_disk_most_blobs(const struct bl_disk *d)
{
        (void)d;
        return FAKE_BLOBS;
}

void bl_disk_figures(struct bl_disk *d, struct bl_disk_figures *ret)
{
        *ret = (struct bl_disk_figures){
                .size = d->size, .failed = d->append_fails != 0, .hangs = d->read_fails == -ETIMEDOUT};
}

#endif
