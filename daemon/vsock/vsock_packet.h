/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header of a virtio-vsock packet (Virtual I/O Device 1.2, section 5.10.6): 44 bytes, little-endian. */
#ifndef BALLAST_VSOCK_PACKET_H
#define BALLAST_VSOCK_PACKET_H

#include <stddef.h>
#include <stdint.h>

#define BL_VSOCK_HEADER 44U
#define BL_VSOCK_HOST   2U /* VMADDR_CID_HOST */
#define BL_VSOCK_STREAM 1U

enum bl_vsock_op {
        BL_VSOCK_OP_INVALID = 0,
        BL_VSOCK_OP_REQUEST = 1,
        BL_VSOCK_OP_RESPONSE = 2,
        BL_VSOCK_OP_RST = 3,
        BL_VSOCK_OP_SHUTDOWN = 4,
        BL_VSOCK_OP_RW = 5,
        BL_VSOCK_OP_CREDIT_UPDATE = 6,
        BL_VSOCK_OP_CREDIT_REQUEST = 7,
};
#define BL_VSOCK_SHUTDOWN_RECEIVE 1U /* flags of SHUTDOWN: the sender of it receives no more */
#define BL_VSOCK_SHUTDOWN_SEND    2U

struct bl_vsock_packet {
        uint64_t src_cid, dst_cid;
        uint32_t src_port, dst_port;
        uint32_t len; /* bytes of payload */
        uint16_t type, op;
        uint32_t flags;
        uint32_t buf_alloc, fwd_cnt;
};

void bl_vsock_packet_decode(const uint8_t data[BL_VSOCK_HEADER], struct bl_vsock_packet *ret);
void bl_vsock_packet_encode(const struct bl_vsock_packet *p, uint8_t ret[BL_VSOCK_HEADER]);

#endif
