/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The price of memory (Waldspurger, OSDI 2002, sections 5.2 and 5.3).
 *
 * A VM with S shares that holds P bytes, of which a part f is active, pays
 *
 *         rho = S / (P * (f + k * (1 - f))),   k = 1 / (1 - tax)
 *
 * for each byte.  We reckon with the inverse, the level
 *
 *         P * (f + k * (1 - f)) / S  =  (active + k * idle) / S      bytes per share
 *
 * because sizes are then exact and monotone in it: what a VM uses stays the same
 * when its memory shrinks, so `active` is a number of bytes and not a ratio.
 */
#include "internal.h"

/* Binary digits of a level after the point. */
#define LEVEL_BITS 12

/* For a tax of 100 % the level of an idle byte would be infinite; k = 1000 is the same to everyone. */
#define TAX_MAX 9990

uint64_t bl_level_size(bl_level level, uint64_t shares, uint64_t active, permyriad_t idle_tax)
{
        unsigned __int128 wide = (unsigned __int128)level * bl_max(shares, 1) >> LEVEL_BITS;
        uint64_t x = wide > UINT64_MAX ? UINT64_MAX : (uint64_t)wide;

        if (x <= active)
                return x;
        return bl_add_sat(active, bl_part(x - active, BL_WHOLE - (permyriad_t)bl_min(idle_tax, TAX_MAX)));
}

bl_level bl_level_of(uint64_t size, uint64_t shares, uint64_t active, permyriad_t idle_tax)
{
        uint64_t x = size, part;

        if (size > active)
                x = bl_add_sat(active, bl_mul_sat(size - active, BL_WHOLE) / (BL_WHOLE - bl_min(idle_tax, TAX_MAX)));
        shares = bl_clamp(shares, 1, UINT64_MAX >> (LEVEL_BITS + 1));
        /* rounded up: at its own level a VM keeps at least what it has */
        part = ((x % shares << LEVEL_BITS) + shares - 1) / shares;
        return bl_add_sat(bl_add_sat(bl_mul_sat(x / shares, 1 << LEVEL_BITS), part), 1);
}

bl_level bl_level_find(const struct bl_work *w, size_t n, bl_level high, bl_level_test test, const void *arg)
{
        bl_level low = 0;

        if (test(w, n, high, arg))
                return high;

        /* 24 binary digits are 256 bytes in 4 GiB: a thousand of these are less than a step */
        while (high - low > 1 + (low >> 24)) {
                bl_level mid = low + (high - low) / 2;

                if (test(w, n, mid, arg))
                        low = mid;
                else
                        high = mid;
        }
        return low;
}
