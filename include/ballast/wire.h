/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballast-protocol: what ballastd and ballast-agent say to each other.
 *
 * The protocol needs a byte stream in each direction and nothing else:
 * virtio-serial, AF_VSOCK and a socketpair are peers.  The stream may lose
 * bytes and be joined in the middle (QEMU drops what nobody reads, and a new
 * client of its socket starts wherever the guest is), so that a reader finds
 * the next whole frame by itself.  Nothing is ever sent twice and nothing is
 * acknowledged: every message carries a whole state, and the next one mends
 * the loss of the last.
 *
 * Frame.  All integers are unsigned and little-endian.
 *
 *      offset  size  content
 *      0       4     magic: BA 4C 53 54 (BA never starts a character in UTF-8)
 *      4       2     type of the message
 *      6       2     n: bytes of the body, at most 4080
 *      8       4     CRC-32C of the body
 *      12      4     CRC-32C of bytes 0 to 11
 *      16      n     body: fields, one after the other
 *
 * CRC-32C is that of iSCSI (RFC 3720, appendix B.4): reflected polynomial
 * 82F63B78, start and final xor FFFFFFFF; "123456789" gives E3069283.
 *
 * A reader that finds no magic, a wrong header checksum, a body that is too
 * long or a wrong body checksum goes on one byte behind that magic, so a frame
 * that lost its end costs no other frame; it may delay those that fill the
 * announced length.
 *
 * Field.
 *
 *      offset  size  content
 *      0       2     tag; each type of message has its own tags
 *      2       2     m: bytes of the value
 *      4       m     value
 *
 * A number has 8 bytes, a text is UTF-8 without a final NUL (a reader may cut
 * it and replaces what is not printable ASCII).  Order means nothing; of a tag
 * that comes twice the last one counts.  An absent number is "not known", and
 * so is FFFFFFFFFFFFFFFF.
 *
 * Versions.  Readers skip types and tags that they do not know, and bytes
 * behind the part of a value that they know: so a minor version may add types
 * and fields and lengthen values.  A known value that is too short, or a field
 * that leaves the body, spoils its message and no other.  Whatever breaks this
 * gets a new major version; the frame and tags 1 and 2 of hello and welcome
 * stay for ever, so that any two versions can at least tell each other apart.
 * Messages other than hello and welcome count only between equal majors.
 *
 * Conversation.
 *
 *      host    on connection: welcome with ask = 1
 *      guest   on connection, and on each welcome with ask = 1: hello
 *      host    on each hello: welcome, with the report period
 *      guest   after its hello, once per period: statistics
 *
 * A welcome may come at any time and changes the period.  Before a welcome the
 * period is one second.  A guest keeps it within 100 ms and 60 s.
 *
 * The host trusts no byte of it; see daemon/channel/agent.h for its bounds.
 */
#ifndef BALLAST_WIRE_H
#define BALLAST_WIRE_H

#include <stddef.h>

#include <ballast/units.h>

#define BL_WIRE_MAJOR 1
#define BL_WIRE_MINOR 0

#define BL_WIRE_HEADER    16U
#define BL_WIRE_FRAME_MAX 4096U
#define BL_WIRE_BODY_MAX  (BL_WIRE_FRAME_MAX - BL_WIRE_HEADER)

#define BL_WIRE_PERIOD_DEFAULT (1 * BL_SEC)
#define BL_WIRE_PERIOD_MIN     (100 * BL_MSEC)
#define BL_WIRE_PERIOD_MAX     (60 * BL_SEC)

/* The name of the virtio-serial port, as in the domain's <target name=.../>. */
#define BL_WIRE_PORT_NAME "org.ballast.agent.0"

/*
 * The highest bit says who may send it, so that an echo is never obeyed.
 * Kept for later, in this order: guest: 3 pressure, 4 request for memory,
 * 5 hints, 6 result of an action; host: 8002 entitlement, 8003 action.
 */
enum bl_wire_type {
        BL_WIRE_HELLO = 0x0001, /* guest: who it is */
        BL_WIRE_STATS = 0x0002, /* guest: statistics */
        BL_WIRE_WELCOME = 0x8001, /* host: reply to hello, and its wishes */
};

/* Feature bits of hello. */
#define BL_WIRE_FEATURE_PSI (UINT64_C(1) << 0) /* its kernel reports memory pressure */

/* Texts are NUL-terminated printable ASCII. */
struct bl_wire_hello {
        uint64_t major; /* tag 1, must be there */
        uint64_t minor; /* tag 2; absent: 0 */
        uint64_t features; /* tag 3; absent: 0 */
        uint8_t boot_id[16]; /* tag 4, 16 bytes; changes with each boot; absent: zeros */
        char version[32]; /* tag 5, of the agent */
        char kernel[64]; /* tag 6, release of the guest's kernel */
};

struct bl_wire_welcome {
        uint64_t major; /* tag 1, must be there */
        uint64_t minor; /* tag 2; absent: 0 */
        uint64_t period; /* tag 3, usec between statistics; absent: BL_UNSET, unchanged */
        uint64_t ask; /* tag 4, 1: send your hello; absent: 0 */
};

/*
 * The tags of statistics, all numbers.  Sizes are bytes, times usec, counters
 * since the guest booted.  The names are those of /proc/meminfo, /proc/vmstat
 * and /proc/pressure/memory (Documentation/filesystems/proc.rst,
 * Documentation/accounting/psi.rst); pages are reported as bytes.
 */
enum bl_wire_stat {
        BL_STAT_SEQUENCE = 1, /* counts reports since the agent started, sent or dropped */
        BL_STAT_UPTIME = 2, /* CLOCK_BOOTTIME at the report */
        BL_STAT_MEM_TOTAL = 3,
        BL_STAT_MEM_AVAILABLE = 4,
        BL_STAT_MEM_FREE = 5,
        BL_STAT_BUFFERS = 6,
        BL_STAT_CACHED = 7,
        BL_STAT_SHMEM = 8, /* part of Cached that cannot be dropped */
        BL_STAT_SRECLAIMABLE = 9,
        BL_STAT_SWAP_CACHED = 10,
        BL_STAT_SWAP_TOTAL = 11,
        BL_STAT_SWAP_FREE = 12,
        BL_STAT_UNEVICTABLE = 13,
        BL_STAT_MLOCKED = 14,
        BL_STAT_HUGETLB = 15, /* Hugetlb: all sizes of huge page; Linux 4.19 */
        BL_STAT_SWAP_IN = 16, /* pswpin */
        BL_STAT_SWAP_OUT = 17,
        BL_STAT_MAJOR_FAULTS = 18, /* pgmajfault, a count */
        BL_STAT_OOM_KILLS = 19, /* oom_kill, a count */
        BL_STAT_BALLOON_INFLATE = 20,
        BL_STAT_BALLOON_DEFLATE = 21,
        BL_STAT_PSI_SOME = 22, /* memory, total=; Linux 4.20 */
        BL_STAT_PSI_FULL = 23,
        _BL_STAT_MAX,
};

/* Indexed by tag; BL_UNSET: not known.  [0] is never used. */
struct bl_wire_stats {
        uint64_t v[_BL_STAT_MAX];
};

/* --- reading --------------------------------------------------------------- */

/* One whole frame; the body lies in the reader's buffer. */
struct bl_wire_frame {
        uint16_t type; /* as sent, perhaps unknown */
        size_t size; /* bytes of body */
        const uint8_t *body;
};

/* Walks over the frames in a buffer. */
struct bl_wire_iter {
        const uint8_t *data;
        size_t size;
        size_t pos; /* everything before this is done with; what follows may be the start of a frame */
        size_t skipped; /* bytes that belonged to no frame */
        size_t checked; /* bytes that went through a checksum: the work that the sender made us do */
};

void bl_wire_iter_init(struct bl_wire_iter *it, const void *data, size_t size);

/*
 * The next whole frame.  1: here it is; 0: no more, keep the bytes from `pos`
 * on (fewer than BL_WIRE_FRAME_MAX) and come back when there are more.  What
 * is found does not depend on how the stream is cut into buffers.
 */
int bl_wire_next(struct bl_wire_iter *it, struct bl_wire_frame *ret);

struct bl_wire_field {
        uint16_t tag;
        uint16_t size;
        const uint8_t *data;
};

/* Walks over the fields; `*pos` starts at 0.  1: a field; 0: end; -EBADMSG: a
 * field that leaves the body. */
int bl_wire_field_next(const struct bl_wire_frame *f, size_t *pos, struct bl_wire_field *ret);

/* -EBADMSG: another type, a spoilt field, or one that must be there is not. */
int bl_wire_decode_hello(const struct bl_wire_frame *f, struct bl_wire_hello *ret);
int bl_wire_decode_welcome(const struct bl_wire_frame *f, struct bl_wire_welcome *ret);
int bl_wire_decode_stats(const struct bl_wire_frame *f, struct bl_wire_stats *ret);

/* --- writing --------------------------------------------------------------- */

/* Builds one frame in the caller's buffer. */
struct bl_wire_writer {
        uint8_t *buf;
        size_t size;
        size_t len;
        bool full; /* something did not fit; bl_wire_end will say so */
};

void bl_wire_begin(struct bl_wire_writer *w, void *buf, size_t size, uint16_t type);
void bl_wire_put(struct bl_wire_writer *w, uint16_t tag, const void *data, size_t size);
/* Nothing for BL_UNSET. */
void bl_wire_put_u64(struct bl_wire_writer *w, uint16_t tag, uint64_t value);
/* The frame's length, or -ENOBUFS. */
int bl_wire_end(struct bl_wire_writer *w);

/* The frame's length, or -ENOBUFS; BL_WIRE_FRAME_MAX bytes are always enough. */
int bl_wire_encode_hello(const struct bl_wire_hello *m, void *buf, size_t size);
int bl_wire_encode_welcome(const struct bl_wire_welcome *m, void *buf, size_t size);
int bl_wire_encode_stats(const struct bl_wire_stats *m, void *buf, size_t size);

/* All BL_UNSET. */
void bl_wire_stats_init(struct bl_wire_stats *ret);

uint32_t bl_wire_crc(const void *data, size_t size);

#endif
