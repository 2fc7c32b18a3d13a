/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/vsock/vsock_packet.h"

/* Section 5.10.6: le64 src_cid, dst_cid; le32 src_port, dst_port, len; le16 type, op; le32 flags, buf_alloc, fwd_cnt.
 */
static const uint8_t wire[BL_VSOCK_HEADER] = {
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12,
        0x11, 0x24, 0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x52, 0x51,
        0x62, 0x61, 0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81, 0x94, 0x93, 0x92, 0x91,
};

static void test_decode(void **state)
{
        struct bl_vsock_packet p;

        (void)state;
        bl_vsock_packet_decode(wire, &p);
        assert_int_equal(p.src_cid, UINT64_C(0x0102030405060708));
        assert_int_equal(p.dst_cid, UINT64_C(0x1112131415161718));
        assert_int_equal(p.src_port, 0x21222324);
        assert_int_equal(p.dst_port, 0x31323334);
        assert_int_equal(p.len, 0x41424344);
        assert_int_equal(p.type, 0x5152);
        assert_int_equal(p.op, 0x6162);
        assert_int_equal(p.flags, 0x71727374);
        assert_int_equal(p.buf_alloc, 0x81828384);
        assert_int_equal(p.fwd_cnt, 0x91929394);
}

static void test_round_trip(void **state)
{
        uint8_t again[BL_VSOCK_HEADER + 1];
        struct bl_vsock_packet p;

        (void)state;
        memset(again, 0xee, sizeof(again));
        bl_vsock_packet_decode(wire, &p);
        bl_vsock_packet_encode(&p, again);
        assert_memory_equal(again, wire, sizeof(wire));
        assert_int_equal(again[BL_VSOCK_HEADER], 0xee);
}

/* A ring's buffer begins anywhere. */
static void test_unaligned(void **state)
{
        uint8_t buf[BL_VSOCK_HEADER + 8], again[BL_VSOCK_HEADER + 8];
        struct bl_vsock_packet p;

        (void)state;
        for (size_t i = 0; i < 8; i++) {
                memcpy(buf + i, wire, sizeof(wire));
                bl_vsock_packet_decode(buf + i, &p);
                bl_vsock_packet_encode(&p, again + i);
                assert_memory_equal(again + i, wire, sizeof(wire));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_decode),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_unaligned),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
