#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""make-streams.py - writes the stored streams of the guest protocol.

An encoder of its own, written from the text in include/ballast/wire.h and not
from wire.c, so that an error in both directions of wire.c shows.  A stream that
is in git is a promise to agents in the field: run this to add one, never to
change one.  With a directory as argument, also writes the seeds of the fuzzer.
"""
import os
import struct
import sys

HELLO, STATS, PRESSURE, REQUEST, HINTS, RESULT = 1, 2, 3, 4, 5, 6
WELCOME, ENTITLEMENT, ACTION = 0x8001, 0x8002, 0x8003
MIB = 1 << 20


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(kind, *fields):
    body = b"".join(struct.pack("<HH", tag, len(v)) + v for tag, v in fields)
    head = b"\xbaLST" + struct.pack("<HHL", kind, len(body), crc32c(body))
    return head + struct.pack("<L", crc32c(head)) + body


def num(v):
    return struct.pack("<Q", v)


def leb(*values):
    out = bytearray()
    for v in values:
        while v > 127:
            out.append(v & 127 | 128)
            v >>= 7
        out.append(v)
    return bytes(out)


def file_id(path, size, mtime):
    h = 0xCBF29CE484222325
    for byte in b"".join(part.encode() + b"\0" for part in (path, str(size), str(mtime))):
        h = (h ^ byte) * 0x100000001B3 % (1 << 64)
    return h


BOOT = bytes.fromhex("6f1b2c3d4e5f4a6b8c7d9e0f1a2b3c4d")


def streams():
    hello = frame(HELLO, (1, num(1)), (2, num(0)), (3, num(0)), (4, BOOT), (5, b"0.1.0"), (6, b"4.19.0-27-amd64"))
    values = {1: 1, 2: 12_345_678, 3: 2048 * MIB, 4: 1600 * MIB, 5: 900 * MIB, 6: 20 * MIB, 7: 700 * MIB, 8: MIB,
              9: 30 * MIB, 10: 0, 11: 512 * MIB, 12: 500 * MIB, 13: 0, 14: 0, 15: 0, 16: 4096, 17: 8192, 18: 321,
              19: 0, 20: 64 * MIB, 21: 32 * MIB}
    stats = frame(STATS, *((tag, num(v)) for tag, v in values.items()))
    yield "agent-1.0", "the first agent, on Linux 4.19: no PSI", [hello, stats]

    newer_hello = frame(HELLO, (2, num(7)), (99, b"tag of 1.7"), (1, num(1)), (3, num(0xFF)), (4, BOOT + b"and more"),
                        (5, b"3.4.5 (1.7)"), (6, b"9.1.0"))
    newer_stats = frame(STATS, (1, num(9)), (3, num(4096 * MIB) + num(3)), (23, num(77)), (24, num(1)), (500, b""),
                        (4, num(4000 * MIB) + b"x"))
    yield ("agent-1.7", "an imagined newer minor version: longer values, new tags, new types",
           [newer_hello, frame(3, (1, b"pressure")), newer_stats, frame(0x7001), newer_stats])

    yield "agent-2.0", "another major version: only its greeting is to be understood", [
        frame(HELLO, (1, num(2)), (2, num(1)))]

    noise = [b"\r\nGRUB loading..\r\nWelcome\xba\xbaLS", hello[9:], stats, b"\x00" * 40, stats[:100], hello, b"\xbaLST",
             stats, b"\xff\xff"]
    yield "noise", "joined in the middle, a console's text, a frame that lost its end", noise
    yield "host-1.0", "the host: asks, welcomes, changes the period", [
        frame(WELCOME, (1, num(1)), (2, num(0)), (3, num(1_000_000)), (4, num(1))),
        frame(WELCOME, (1, num(1)), (2, num(0)), (3, num(250_000)), (4, num(0)))]

    yield from streams_1_1()
    yield from streams_1_2()
    yield from streams_1_9()


def streams_1_1():
    """The first minor version with more than statistics."""
    hello = frame(HELLO, (1, num(1)), (2, num(1)), (3, num(0x1F)), (4, BOOT), (5, b"0.2.0"), (6, b"6.1.0-49-amd64"))
    values = {1: 40, 2: 98_765_432, 3: 1024 * MIB, 4: 96 * MIB, 5: 24 * MIB, 6: 2 * MIB, 7: 80 * MIB, 8: MIB,
              9: 30 * MIB, 10: 0, 11: 0, 12: 0, 13: 3 * MIB, 14: 3 * MIB, 15: 64 * MIB, 16: 0, 17: 0, 18: 321,
              19: 0, 20: 640 * MIB, 21: 128 * MIB, 22: 150_000, 23: 20_000}
    stats = frame(STATS, *((tag, num(v)) for tag, v in values.items()))
    free = leb(4096, 512, 0, 1, 300_000, 200)
    libc = file_id("/usr/lib/x86_64-linux-gnu/libc.so.6", 1_922_136, 1_719_000_000_123_456_789)
    yield "agent-1.1", "asks for memory, says that it stalls, hints, answers an action", [
        hello, stats, frame(REQUEST, (1, num(256 * MIB)), (2, num(1)), (3, num(400_000))),
        frame(PRESSURE, (1, num(70_000)), (2, num(1_000_000)), (3, num(0))),
        frame(HINTS, (1, num(3)), (2, num(1)), (5, free)),
        frame(HINTS, (1, num(3)), (2, num(2)), (3, num(2)), (5, leb(1 << 20, 7))),
        frame(HINTS, (1, num(3)), (2, num(3)), (3, num(1)), (4, num(libc)), (5, leb(70_000, 30, 0, 10, 2, 400))),
        frame(RESULT, (1, num(1)), (2, num(1)), (3, num(48 * MIB)), (4, num(12_345)))]

    grants = (2048 * MIB, 1536 * MIB, 256 * MIB, 1000, 1024 * MIB, 1040 * MIB, 900 * MIB, 10 * MIB, 20 * MIB,
              30 * MIB, 2, 1)
    yield "host-1.1", "the host: welcome, what it grants, one action of each kind", [
        frame(WELCOME, (1, num(1)), (2, num(1)), (3, num(1_000_000)), (4, num(1))),
        frame(WELCOME, (1, num(1)), (2, num(1)), (3, num(1_000_000)), (4, num(0))),
        frame(ENTITLEMENT, *((tag, num(v)) for tag, v in enumerate(grants, 1))),
        frame(ACTION, (1, num(1)), (2, num(1))),
        frame(ACTION, (1, num(2)), (2, num(2)), (3, num(64 * MIB))),
        frame(ACTION, (1, num(3)), (2, num(3))),
        frame(ACTION, (1, num(4)), (2, num(4)), (3, num(65_536)))]


def streams_1_2():
    """The minor version that brought swap on the host's store."""
    hello = frame(HELLO, (1, num(1)), (2, num(2)), (3, num(0x3F)), (4, BOOT), (5, b"0.3.0"), (6, b"6.1.0-49-amd64"))
    values = {1: 90, 2: 123_456_789, 3: 1024 * MIB, 4: 96 * MIB, 5: 24 * MIB, 10: 4 * MIB, 11: 1280 * MIB,
              12: 1000 * MIB, 16: 5 * MIB, 17: 300 * MIB, 24: 2, 25: 1280 * MIB, 26: 280 * MIB, 28: 64 * MIB, 29: 1,
              30: 12 * MIB}
    failed = {1: 91, 3: 1024 * MIB, 24: 4, 27: 17}
    yield "agent-1.2", "swaps on the store, with zswap and other swap before it; could not; has no room", [
        hello, frame(STATS, *((tag, num(v)) for tag, v in values.items())),
        frame(STATS, *((tag, num(v)) for tag, v in failed.items())),
        frame(RESULT, (1, num(1)), (2, num(0))),
        frame(RESULT, (1, num(2)), (2, num(5)), (6, num(276 * MIB)), (7, num(44 * MIB)))]

    yield "host-1.2", "the host: welcome, what its store holds, the three actions of swap", [
        frame(WELCOME, (1, num(1)), (2, num(2)), (3, num(1_000_000)), (4, num(1))),
        frame(ENTITLEMENT, (1, num(2048 * MIB)), (8, num(90 * MIB)), (13, num(280 * MIB)), (14, num(900 * MIB))),
        frame(ACTION, (1, num(1)), (2, num(5))),
        frame(ACTION, (1, num(2)), (2, num(6))),
        frame(ACTION, (1, num(3)), (2, num(7)), (3, num(64 * MIB)))]


def streams_1_9():
    """An imagined later minor version: all that one may add is added."""
    def longer(v):
        return num(v) + b"and more"

    hello = frame(HELLO, (7, b"tag of 1.9"), (1, longer(1)), (2, longer(9)), (3, num(0xFFFF)), (4, BOOT + b"more"),
                  (5, b"4.0 (1.9)"), (6, b"10.2.0"))
    yield "agent-1.9", "an imagined newer minor version: types, tags, values, kinds and figures that are not known", [
        hello, frame(STATS, (1, num(5)), (3, longer(8192 * MIB)), (4, num(64 * MIB)), (24, num(1)), (900, b"")),
        frame(REQUEST, (4, b"node 1"), (1, longer(512 * MIB)), (2, num(7))),
        frame(7, (1, num(1))), frame(0x7123),
        frame(PRESSURE, (1, longer(500_000)), (4, num(99)), (3, num(1))),
        frame(HINTS, (1, num(1)), (2, num(9)), (5, b"\xff" * 11)),
        frame(HINTS, (6, num(4)), (1, longer(1)), (2, longer(1)), (3, num(0x81)), (5, leb(16, 16))),
        frame(RESULT, (1, longer(1)), (2, num(42)), (5, b"why"))]

    yield "host-1.9", "the host in an imagined newer minor version", [
        frame(WELCOME, (1, longer(1)), (2, num(9)), (3, longer(2_000_000)), (4, num(1)), (5, b"tag of 1.9")),
        frame(0x8004, (1, num(1))),
        frame(ENTITLEMENT, (1, longer(2048 * MIB)), (5, num(1024 * MIB)), (13, num(7)), (40, b"short"), (11, num(9))),
        frame(ACTION, (1, num(1)), (2, num(77)), (3, num(1)), (4, b"tag of 1.9")),
        frame(ACTION, (4, num(0)), (1, longer(2)), (2, longer(1)))]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    for name, what, parts in streams():
        with open(os.path.join(here, name + ".hex"), "w", encoding="ascii") as f:
            f.write(f"# {what}; see make-streams.py\n")
            for part in parts:
                text = part.hex()
                f.write("\n".join(text[i:i + 64] for i in range(0, len(text), 64)) + "\n\n")
        if len(sys.argv) > 1:
            with open(os.path.join(sys.argv[1], name), "wb") as f:
                f.write(b"".join(parts))


if __name__ == "__main__":
    main()
