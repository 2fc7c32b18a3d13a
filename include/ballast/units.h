/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One unit each, everywhere: bytes are uint64_t, times are usec_t
 * (microseconds; CLOCK_MONOTONIC unless a name says "wall"), ratios are
 * permyriad (10000 = 1).  Size arithmetic saturates or is checked, because a
 * guest chooses some of the operands.
 */
#ifndef BALLAST_UNITS_H
#define BALLAST_UNITS_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t usec_t;
typedef uint32_t permyriad_t;

#define BL_KIB UINT64_C(1024)
#define BL_MIB (BL_KIB * 1024)
#define BL_GIB (BL_MIB * 1024)

#define BL_MSEC UINT64_C(1000)
#define BL_SEC  (BL_MSEC * 1000)

/* 10000 permyriad are the whole. */
#define BL_WHOLE 10000U

/* "no value" for bytes and times; never a legal size or instant. */
#define BL_UNSET UINT64_MAX

static inline uint64_t bl_min(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

static inline uint64_t bl_max(uint64_t a, uint64_t b)
{
        return a > b ? a : b;
}

static inline uint64_t bl_clamp(uint64_t x, uint64_t low, uint64_t high)
{
        return bl_max(low, bl_min(x, high));
}

/* a - b, or 0 where b is larger. */
static inline uint64_t bl_sub_sat(uint64_t a, uint64_t b)
{
        return a > b ? a - b : 0;
}

/* How far a and b are apart. */
static inline uint64_t bl_distance(uint64_t a, uint64_t b)
{
        return a > b ? a - b : b - a;
}

/* v, or 0 where it is not known. */
static inline uint64_t bl_or_zero(uint64_t v)
{
        return v == BL_UNSET ? 0 : v;
}

/* a + b, or UINT64_MAX on overflow. */
static inline uint64_t bl_add_sat(uint64_t a, uint64_t b)
{
        uint64_t r;

        return __builtin_add_overflow(a, b, &r) ? UINT64_MAX : r;
}

/* a * b, or UINT64_MAX on overflow. */
static inline uint64_t bl_mul_sat(uint64_t a, uint64_t b)
{
        uint64_t r;

        return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

/* bytes * ratio, without overflow for ratios up to about 400,000 %. */
static inline uint64_t bl_part(uint64_t bytes, permyriad_t ratio)
{
        return bl_add_sat(bl_mul_sat(bytes / BL_WHOLE, ratio), bytes % BL_WHOLE * ratio / BL_WHOLE);
}

/* bytes per second times a time: how much moves in `t`; saturates. */
static inline uint64_t bl_rate_times(uint64_t bytes_per_s, usec_t t)
{
        return bl_add_sat(bl_mul_sat(bytes_per_s / BL_SEC, t), bl_mul_sat(bytes_per_s % BL_SEC, t) / BL_SEC);
}

#endif
