// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/internal.h"

#include <lz4.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t bl_codec_hash_mask = UINT64_MAX;

uint64_t bl_codec_hash(const void *page, uint64_t seed)
{
        return XXH3_64bits_withSeed(page, BL_STORE_PAGE, seed) & bl_codec_hash_mask;
}

uint64_t bl_codec_check(const void *p, size_t size)
{
        return XXH3_64bits(p, size);
}

bool bl_codec_is_zero(const void *page)
{
        const uint8_t *p = page;
        uint64_t first;

        memcpy(&first, p, sizeof(first));
        return first == 0 && memcmp(p, p + sizeof(first), BL_STORE_PAGE - sizeof(first)) == 0;
}

uint32_t bl_codec_compress(void *state, const void *page, void *out)
{
        int n = LZ4_compress_fast_extState(state, page, out, BL_STORE_PAGE, BL_OBJECT_MAX, 1);

        return n > 0 ? (uint32_t)n : BL_STORE_PAGE;
}

int bl_codec_decompress(const void *in, uint32_t size, void *page)
{
        if (size == BL_STORE_PAGE) {
                memcpy(page, in, BL_STORE_PAGE);
                return 0;
        }
        if (LZ4_decompress_safe(in, page, (int)size, BL_STORE_PAGE) != (int)BL_STORE_PAGE)
                return -EBADMSG;
        return 0;
}
