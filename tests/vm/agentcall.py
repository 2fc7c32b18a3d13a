#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""agentcall.py SOCKET [COMMAND]...: the host's end of ballast-agent's virtio-serial port.

    act KIND [BYTES]     asks for it; prints the status of the answer: done, busy, no_room ...
    state NAME SECONDS   waits until swap on the store stands so; prints NAME, or what it is
    stat TAG             a fresh statistic; "-" where it is not known

Each command is one argument; each prints one line.  The protocol is ballast-protocol(7),
the encoder that of tests/data/wire/make-streams.py.
"""
import importlib.util
import os
import select
import socket
import struct
import sys
import time

STATES = ("none", "preparing", "on", "leaving", "failed", "off")
RESULTS = ("done", "partly", "unknown", "busy", "failed", "no_room")
STORE_STATE = 24


def load_encoder():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/wire/make-streams.py")
    spec = importlib.util.spec_from_file_location("streams", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Agent:
    def __init__(self, path):
        self.wire = load_encoder()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.input = b""
        self.stats = {}
        self.reports = 0
        self.results = {}
        self.id = int(time.time() * 1000)
        self.welcome(1)

    def send(self, kind, *fields):
        self.socket.sendall(self.wire.frame(kind, *((tag, self.wire.num(v)) for tag, v in fields)))

    def welcome(self, ask):
        self.send(self.wire.WELCOME, (1, 1), (2, 2), (3, 250_000), (4, ask))

    def frames(self):
        while True:
            at = self.input.find(b"\xbaLST")
            if at < 0 or len(self.input) < at + 16:
                return
            kind, size = struct.unpack_from("<HH", self.input, at + 4)
            if len(self.input) < at + 16 + size:
                return
            body = self.input[at + 16:at + 16 + size]
            self.input = self.input[at + 16 + size:]
            yield kind, body

    def take(self, kind, body):
        fields, at = {}, 0
        while at + 4 <= len(body):
            tag, size = struct.unpack_from("<HH", body, at)
            if size == 8:
                fields[tag] = struct.unpack_from("<Q", body, at + 4)[0]
            at += 4 + size
        if kind == self.wire.HELLO:
            self.welcome(0)
        elif kind == self.wire.STATS:
            self.stats = fields
            self.reports += 1
        elif kind == self.wire.RESULT:
            self.results[fields[1]] = fields[2]

    def until(self, true, seconds):
        end = time.monotonic() + seconds
        while not true():
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return False
            data = self.socket.recv(65536)
            if not data:
                return False
            self.input += data
            for kind, body in self.frames():
                self.take(kind, body)
        return True

    def fresh(self):
        seen = self.reports
        self.until(lambda: self.reports > seen + 1, 5)

    def act(self, kind, size=None):
        if not self.reports:
            self.fresh()
        self.id += 1
        self.send(self.wire.ACTION, (1, self.id), (2, int(kind)), *([(3, int(size))] if size else []))
        self.until(lambda: self.id in self.results, 10)
        return RESULTS[self.results[self.id]] if self.id in self.results else "no answer"

    def state(self, name, seconds):
        want = STATES.index(name)
        self.until(lambda: self.stats.get(STORE_STATE) == want, float(seconds))
        now = self.stats.get(STORE_STATE)
        return STATES[now] if now is not None else "-"

    def stat(self, tag):
        self.fresh()
        return str(self.stats.get(int(tag), "-"))


def main():
    agent = Agent(sys.argv[1])
    commands = {"act": agent.act, "state": agent.state, "stat": agent.stat}
    for command in sys.argv[2:]:
        word, *args = command.split()
        print(commands[word](*args), flush=True)


if __name__ == "__main__":
    main()
