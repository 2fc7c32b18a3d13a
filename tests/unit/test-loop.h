/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns the event loop of a fixture, which has it as `event`. */
#ifndef BALLAST_TEST_LOOP_H
#define BALLAST_TEST_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <systemd/sd-event.h>

#include <ballast/units.h>

#include "daemon/util/clock.h"

/* For a time. */
#define SPIN(f, t)                                                        \
        do {                                                              \
                usec_t _end = bl_now() + (t);                             \
                while (bl_now() < _end)                                   \
                        assert_true(sd_event_run((f)->event, 1000) >= 0); \
        } while (0)

/* Until it is true, which must be within `limit`. */
#define SPIN_UNTIL_WITHIN(f, limit, cond)                                 \
        do {                                                              \
                usec_t _end = bl_now() + (limit);                         \
                while (!(cond) && bl_now() < _end)                        \
                        assert_true(sd_event_run((f)->event, 1000) >= 0); \
                assert_true(cond);                                        \
        } while (0)

#endif
