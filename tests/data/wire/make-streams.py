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

HELLO, STATS, WELCOME = 1, 2, 0x8001
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
