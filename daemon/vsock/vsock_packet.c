/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/vsock_packet.h"

#include <endian.h>
#include <string.h>

/* As on the wire; every field is naturally aligned, save for the end. */
struct wire_header {
        uint64_t src_cid, dst_cid;
        uint32_t src_port, dst_port, len;
        uint16_t type, op;
        uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

_Static_assert(sizeof(struct wire_header) == BL_VSOCK_HEADER, "section 5.10.6: 44 bytes");

void bl_vsock_packet_decode(const uint8_t data[BL_VSOCK_HEADER], struct bl_vsock_packet *ret)
{
        struct wire_header w;

        memcpy(&w, data, sizeof(w));
        *ret = (struct bl_vsock_packet){
                .src_cid = le64toh(w.src_cid),
                .dst_cid = le64toh(w.dst_cid),
                .src_port = le32toh(w.src_port),
                .dst_port = le32toh(w.dst_port),
                .len = le32toh(w.len),
                .type = le16toh(w.type),
                .op = le16toh(w.op),
                .flags = le32toh(w.flags),
                .buf_alloc = le32toh(w.buf_alloc),
                .fwd_cnt = le32toh(w.fwd_cnt),
        };
}

void bl_vsock_packet_encode(const struct bl_vsock_packet *p, uint8_t ret[BL_VSOCK_HEADER])
{
        const struct wire_header w = {
                .src_cid = htole64(p->src_cid),
                .dst_cid = htole64(p->dst_cid),
                .src_port = htole32(p->src_port),
                .dst_port = htole32(p->dst_port),
                .len = htole32(p->len),
                .type = htole16(p->type),
                .op = htole16(p->op),
                .flags = htole32(p->flags),
                .buf_alloc = htole32(p->buf_alloc),
                .fwd_cnt = htole32(p->fwd_cnt),
        };

        memcpy(ret, &w, sizeof(w));
}
