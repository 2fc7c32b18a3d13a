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
 *      guest   when it runs short: statistics, and behind them a request
 *      guest   when its kernel reports stalls for want of memory: pressure
 *      host    when what it grants a guest changes, once a second at most,
 *              and every BL_WIRE_GRANT_PERIOD at least: entitlement
 *      host    now and then: an action, one at a time
 *      guest   on each action: a result, and for ACTION_HINTS before it hints
 *
 * Over vsock the host listens on port BL_WIRE_VSOCK_PORT of CID 2, and the
 * guest connects from a port below 1024, which only its root may use: any other
 * is closed without a word, or any user of a guest could speak for it.
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
#define BL_WIRE_MINOR 2

#define BL_WIRE_HEADER    16U
#define BL_WIRE_FRAME_MAX 4096U
#define BL_WIRE_BODY_MAX  (BL_WIRE_FRAME_MAX - BL_WIRE_HEADER)

#define BL_WIRE_PERIOD_DEFAULT (1 * BL_SEC)
#define BL_WIRE_PERIOD_MIN     (100 * BL_MSEC)
#define BL_WIRE_PERIOD_MAX     (60 * BL_SEC)
#define BL_WIRE_GRANT_PERIOD   (5 * BL_SEC) /* a guest that has had one and hears none for thrice that hangs up */

/* The name of the virtio-serial port, as in the domain's <target name=.../>. */
#define BL_WIRE_PORT_NAME "org.ballast.agent.0"

/* vsock.  Below 1024 on the host too, so that no user there can take the
 * daemon's place while it is away (af_vsock.c, LAST_RESERVED_PORT). */
#define BL_WIRE_VSOCK_PORT      711U
#define BL_WIRE_VSOCK_PORT_ROOT 1024U /* a guest's agent comes from below this */

/* The highest bit says who may send it, so that an echo is never obeyed. */
enum bl_wire_type {
        BL_WIRE_HELLO = 0x0001, /* guest: who it is */
        BL_WIRE_STATS = 0x0002, /* guest: statistics */
        /* from minor version 1 on */
        BL_WIRE_PRESSURE = 0x0003, /* guest: it stalls for want of memory */
        BL_WIRE_REQUEST = 0x0004, /* guest: it needs memory */
        BL_WIRE_HINTS = 0x0005, /* guest: which of its pages the host may take or share */
        BL_WIRE_RESULT = 0x0006, /* guest: what came of an action */
        BL_WIRE_WELCOME = 0x8001, /* host: reply to hello, and its wishes */
        BL_WIRE_ENTITLEMENT = 0x8002, /* host: what it grants this guest, and has taken */
        BL_WIRE_ACTION = 0x8003, /* host: please do this */
};

/* Feature bits of hello. */
#define BL_WIRE_FEATURE_PSI     (UINT64_C(1) << 0) /* its kernel reports memory pressure */
#define BL_WIRE_FEATURE_REQUEST (UINT64_C(1) << 1) /* it asks for memory when it runs short */
#define BL_WIRE_FEATURE_HINTS   (UINT64_C(1) << 2) /* it can read /proc/kpageflags */
#define BL_WIRE_FEATURE_TRIM    (UINT64_C(1) << 3) /* it can give clean cache back gently */
#define BL_WIRE_FEATURE_COMPACT (UINT64_C(1) << 4) /* it can compact its memory */
#define BL_WIRE_FEATURE_SWAP    (UINT64_C(1) << 5) /* it can switch swap on the host's store on and off (minor 2) */

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
        /* from minor version 2 on: its swap on the host's store, whatever came of the actions that asked for it */
        BL_STAT_STORE_STATE = 24, /* enum bl_wire_store_state */
        BL_STAT_STORE_SIZE = 25, /* of the swap area; absent while there is none */
        BL_STAT_STORE_USED = 26, /* slots in use, as /proc/swaps has it: those that are cached in memory too count */
        BL_STAT_STORE_ERROR = 27, /* errno of what failed last; absent: nothing did */
        BL_STAT_SWAP_AHEAD =
                28, /* size of other swap areas of the same or a higher priority: they fill before the store */
        BL_STAT_ZSWAP = 29, /* 1: the guest's own zswap is on, which compresses before the store can deduplicate */
        BL_STAT_ZSWAPPED = 30, /* Zswapped: bytes of pages in it */
        _BL_STAT_MAX,
};

/* How it stands with the swap disk of serial BL_WIRE_STORE_SERIAL. */
enum bl_wire_store_state {
        BL_STORE_SWAP_NONE = 0, /* no such disk, or it is not used */
        BL_STORE_SWAP_PREPARING = 1, /* found; it is discarded and formatted */
        BL_STORE_SWAP_ON = 2,
        BL_STORE_SWAP_LEAVING = 3, /* swapoff is under way, paced */
        BL_STORE_SWAP_FAILED = 4, /* see BL_STAT_STORE_ERROR; it is tried again when asked again */
        BL_STORE_SWAP_OFF = 5, /* the disk is there and free of content: it may be unplugged */
        _BL_STORE_SWAP_MAX,
};

/* The virtio disk's serial, by which the agent finds it (at most 20 bytes: VIRTIO_BLK_ID_BYTES). */
#define BL_WIRE_STORE_SERIAL "ballast-swap"

/* Indexed by tag; BL_UNSET: not known.  [0] is never used. */
struct bl_wire_stats {
        uint64_t v[_BL_STAT_MAX];
};

/* The guest's PSI trigger fired.  Statistics of the moment go before it. */
struct bl_wire_pressure {
        uint64_t stall; /* tag 1, must be there: usec of stall in the window, at least */
        uint64_t window; /* tag 2, usec; absent: BL_UNSET */
        uint64_t full; /* tag 3, 1: nothing else ran meanwhile (PSI "full"); absent: 0 */
};

/* How pressing a request is. */
enum bl_wire_urgency {
        BL_URGENCY_SOON = 0, /* it will run short if it goes on so */
        BL_URGENCY_NOW = 1, /* it is short */
        BL_URGENCY_STOP = 2, /* its OOM killer is near: take nothing more, and give */
        _BL_URGENCY_MAX,
};

/* The guest needs more than its balloon leaves it.  The statistics that go
 * before it say how it stands; a request that is not repeated is forgotten
 * after BL_WIRE_REQUEST_LIFE. */
#define BL_WIRE_REQUEST_LIFE (3 * BL_SEC)
struct bl_wire_request {
        uint64_t bytes; /* tag 1, must be there: so much more than it has now */
        uint64_t urgency; /* tag 2, enum bl_wire_urgency; larger: the most urgent; absent: NOW */
        uint64_t deadline; /* tag 3, usec until it will have nothing left, as it reckons; absent: BL_UNSET */
};

/* Hints.  PFNs are the guest's page frame numbers of 4 KiB.  All is true of the
 * moment only, and what is taken or merged has to be compared first. */
enum bl_wire_hint_kind {
        BL_HINT_FREE = 1, /* free pages */
        BL_HINT_INACTIVE_FILE = 2, /* clean page cache on the inactive list */
        BL_HINT_FILE = 3, /* clean page cache of the file `file` */
        _BL_HINT_MAX,
};
#define BL_HINTS_LAST UINT64_C(1) /* flags: of this scan nothing more comes */
#define BL_HINTS_CUT  UINT64_C(2) /* there was more than may be sent */

struct bl_wire_hints {
        uint64_t scan; /* tag 1, must be there: counts scans */
        uint64_t kind; /* tag 2, must be there */
        uint64_t flags; /* tag 3; absent: 0 */
        uint64_t file; /* tag 4: FNV-1a 64 of path, NUL, size and mtime in ns as decimal texts, NUL after
                        * each: the same file in guests of one image; absent: BL_UNSET */
        const uint8_t *runs; /* tag 5: LEB128 numbers, see bl_wire_run_next; in the frame's body */
        size_t runs_size;
};

/* What a result says. */
enum bl_wire_status {
        BL_RESULT_DONE = 0,
        BL_RESULT_PARTLY = 1,
        BL_RESULT_UNKNOWN = 2, /* this agent or kernel cannot do that */
        BL_RESULT_BUSY = 3, /* another one is under way, or it came too soon after the last */
        BL_RESULT_FAILED = 4,
        BL_RESULT_NO_ROOM = 5, /* minor 2: it would not fit into the guest's memory; `need` and `have` tell */
        _BL_RESULT_MAX,
};

struct bl_wire_result {
        uint64_t id; /* tag 1, must be there: of the action */
        uint64_t status; /* tag 2, must be there */
        uint64_t bytes; /* tag 3: so much was given back or hinted; absent: BL_UNSET */
        uint64_t took; /* tag 4, usec; absent: BL_UNSET */
        /* from minor version 2 on */
        uint64_t need; /* tag 6: bytes that it would take; absent: BL_UNSET */
        uint64_t have; /* tag 7: bytes that there are for it; absent: BL_UNSET */
};

/* What the host grants the guest, and what it holds of it: for the guest's
 * administrator (ballast-agent status), as VMware's Guest SDK gives it.  All
 * are numbers, bytes unless said; absent: BL_UNSET, not known. */
enum bl_wire_grant {
        BL_GRANT_MAX = 1, /* configured: the largest its balloon allows */
        BL_GRANT_LIMIT = 2,
        BL_GRANT_RESERVATION = 3,
        BL_GRANT_SHARES = 4, /* a count */
        BL_GRANT_TARGET = 5, /* what its balloon is told to leave it */
        BL_GRANT_ACTUAL = 6, /* what its balloon leaves it */
        BL_GRANT_RESIDENT = 7, /* host memory behind it */
        BL_GRANT_COMPRESSED = 8, /* of it in the host's compressed store */
        BL_GRANT_SHARED = 9, /* of it shared with other guests */
        BL_GRANT_SWAPPED = 10, /* of it swapped out by the host's kernel */
        BL_GRANT_STATE = 11, /* of the host: 0 high, 1 clear, 2 soft, 3 hard, 4 low */
        BL_GRANT_MANAGED = 12, /* 1: Ballast moves its balloon */
        BL_GRANT_STORE_HELD =
                13, /* minor 2: of its swapped pages, uncompressed, in the host's store (COMPRESSED: what they cost) */
        BL_GRANT_STORE_ROOM = 14, /* minor 2: so much more the store has room for, for this guest, uncompressed */
        _BL_GRANT_MAX,
};
struct bl_wire_entitlement {
        uint64_t v[_BL_GRANT_MAX]; /* indexed by tag; [0] is never used */
};

/* The short list of what a host may ask of a guest.  None of them can harm it.  Actions that a reader does not
 * know are answered with UNKNOWN. */
enum bl_wire_action_kind {
        BL_ACTION_PING = 1, /* answer; tells the round trip */
        BL_ACTION_TRIM = 2, /* give up to `bytes` of clean cache back, gently (memory.reclaim), never by drop_caches */
        BL_ACTION_COMPACT = 3, /* compact, so that an inflation returns whole huge pages */
        BL_ACTION_HINTS = 4, /* send hints, of up to `bytes` bytes of messages */
        /* From minor version 2 on.  These three are answered as soon as they are begun (DONE: begun, or there was
         * nothing to do); how they go on, the statistics tell. */
        BL_ACTION_SWAP_ON =
                5, /* find the disk BL_WIRE_STORE_SERIAL, discard, format and swap on it, before other swap */
        BL_ACTION_SWAP_OFF = 6, /* bring everything back and leave it; NO_ROOM when it would not fit */
        BL_ACTION_SWAP_GIVE = 7, /* give slots back that it does not need: freed but not discarded, or cached in
                                  * memory too.  Linux can do that for all of them only, by leaving and coming
                                  * back: so as SWAP_OFF, NO_ROOM too; `bytes` is what the host hopes for */
        _BL_ACTION_MAX,
};

struct bl_wire_action {
        uint64_t id; /* tag 1, must be there: comes back in the result */
        uint64_t kind; /* tag 2, must be there */
        uint64_t bytes; /* tag 3; absent: BL_UNSET */
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
int bl_wire_decode_pressure(const struct bl_wire_frame *f, struct bl_wire_pressure *ret);
int bl_wire_decode_request(const struct bl_wire_frame *f, struct bl_wire_request *ret);
/* `ret->runs` points into the frame's body.  -EOPNOTSUPP: of a kind that is not
 * known here (of a newer minor version), so that its runs cannot be read. */
int bl_wire_decode_hints(const struct bl_wire_frame *f, struct bl_wire_hints *ret);
int bl_wire_decode_result(const struct bl_wire_frame *f, struct bl_wire_result *ret);
int bl_wire_decode_entitlement(const struct bl_wire_frame *f, struct bl_wire_entitlement *ret);
int bl_wire_decode_action(const struct bl_wire_frame *f, struct bl_wire_action *ret);

/*
 * One run of pages in a hint.  In the message each is a few unsigned LEB128
 * numbers of at most 10 bytes: the gap to the end of the run before (from 0),
 * the number of pages, and for BL_HINT_FILE the page in the file of the first.
 */
struct bl_wire_run {
        uint64_t pfn;
        uint64_t pages; /* at least 1 */
        uint64_t index; /* page in the file; 0 but for BL_HINT_FILE */
};
/* `*pos` and `*pfn` start at 0.  1: a run; 0: end; -EBADMSG: cut short, 0 pages, or past 2^52 pages (the rest is
 * worth nothing). */
int bl_wire_run_next(const struct bl_wire_hints *h, size_t *pos, uint64_t *pfn, struct bl_wire_run *ret);
/* Appends a run to `buf`; `*pfn` is the end of the run before and becomes the end of this.  Bytes written, or
 * -ENOBUFS with nothing changed; -EINVAL: 0 pages, before `*pfn`, or past 2^52 pages. */
int bl_wire_run_put(uint64_t kind, const struct bl_wire_run *run, uint64_t *pfn, void *buf, size_t size);

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
int bl_wire_encode_pressure(const struct bl_wire_pressure *m, void *buf, size_t size);
int bl_wire_encode_request(const struct bl_wire_request *m, void *buf, size_t size);
int bl_wire_encode_hints(const struct bl_wire_hints *m, void *buf, size_t size);
int bl_wire_encode_result(const struct bl_wire_result *m, void *buf, size_t size);
int bl_wire_encode_entitlement(const struct bl_wire_entitlement *m, void *buf, size_t size);
int bl_wire_encode_action(const struct bl_wire_action *m, void *buf, size_t size);

/* All BL_UNSET. */
void bl_wire_stats_init(struct bl_wire_stats *ret);
void bl_wire_entitlement_init(struct bl_wire_entitlement *ret);

uint32_t bl_wire_crc(const void *data, size_t size);

#endif
