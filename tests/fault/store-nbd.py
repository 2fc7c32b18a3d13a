# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real ballast-store, nbdkit and plugin, under real and hostile NBD clients.  Says TAP.

    store-nbd.py BUILD-DIRECTORY ARENA-KIND
"""

import errno
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import nbd

BUILD, KIND = os.path.abspath(sys.argv[1]), sys.argv[2]
MIB = 1 << 20
PAGE = 4096
UNSET = 2**64 - 1
MAGIC = 0x42531001
FIXED_AT = 256  # of bl_store_reply
STATUS, REGISTER, FORGET, RESERVE = 1, 2, 3, 4
SIZE = 32 * MIB
REQUEST_MAX = 128 << 10
rng = random.Random(4)
failures = 0


def check(name, right):
    global failures
    print(("ok - " if right else "not ok - ") + f"{name} ({KIND})", flush=True)
    failures += not right
    return right


def note(text):
    print("# " + text, flush=True)


def start_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[19])


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "X"


def gone(pid):
    """Whoever it falls to may be slow to reap it."""
    return state(pid) in "ZX"


def until(what, limit=10):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.01)
    return False


class Store:
    """One directory, and the holders that run in it."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="ballast-store-")
        os.chmod(self.dir, 0o755)
        self.nbd = self.dir + "/nbd.sock"
        self.control = self.dir + "/control.sock"
        self.log = self.dir + "/log"
        self.holder = None
        self.pool = "256M"

    def args(self, *more):
        return [BUILD + "/ballast-store", "--config", "/dev/null", "--dir", self.dir, "--socket", self.nbd, "--control",
                self.control, "--pool-size", self.pool, "--pool-ready", "16M", "--arena", KIND, *more]

    def said(self, words):
        with open(self.log) as f:
            return words in f.read()

    def asserted(self):
        with open(self.log) as f:
            return f.read().count("Assertion `sock >= 0' failed")

    def serving(self):
        with open(self.log) as f:
            return f.read().count("serving at")

    def start(self, *more):
        before = self.serving() if os.path.exists(self.log) else 0
        with open(self.log, "a") as log:
            self.holder = subprocess.Popen(self.args(*more), stdout=log, stderr=log)
        return until(lambda: self.serving() > before or self.holder.poll() is not None) and self.holder.poll() is None

    def pid(self):
        with open(self.dir + "/store.pid") as f:
            return int(f.read().split()[0])

    def stop(self, sig=signal.SIGTERM):
        self.holder.send_signal(sig)
        return self.holder.wait(10)

    def call(self, op, **registration):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(registration.pop("timeout", 10))
            s.connect(self.control)
            s.send(request(op, **registration))
            return reply(s.recv(1 << 16))

    def register(self, vm, **more):
        status = self.call(REGISTER, uuid=vm.bytes, pid=more.pop("pid", os.getpid()),
                           start=more.pop("start", start_of(os.getpid())), size=SIZE, **more)["status"]
        if status:
            raise OSError(-status, os.strerror(-status))

    def remove(self):
        return subprocess.run(self.args("--remove"), capture_output=True, text=True)

    def clean(self):
        if self.holder and self.holder.poll() is None:
            self.stop()
        try:
            os.kill(self.pid(), signal.SIGKILL)
        except (OSError, ValueError):
            pass
        until(lambda: self.remove().returncode == 0)
        shutil.rmtree(self.dir, ignore_errors=True)


def request(op, uuid=bytes(16), pid=0, start=0, size=0, group=b"", limit=UNSET, incarnation=0, stamp=UNSET, amount=0):
    return struct.pack("<IIQ", MAGIC, op, amount) + struct.pack("<16siIQQ64sQQQ", uuid, pid, 0, start, size, group, limit,
                                                                incarnation, stamp)


def reply(packet):
    magic, status = struct.unpack_from("<Ii", packet)
    assert magic == MAGIC
    incarnation, pool_size = struct.unpack_from("<QQ", packet, 16)
    fixed, = struct.unpack_from("<Q", packet, FIXED_AT)
    return {"status": status, "incarnation": incarnation, "pool_size": pool_size, "fixed": fixed}


def connect(store, name, limit=8):
    """As QEMU does: what refuses is an error, what is not there yet is waited for."""
    end = time.monotonic() + limit
    while True:
        h = nbd.NBD()
        h.set_export_name(str(name))
        try:
            h.connect_unix(store.nbd)
            return h
        except nbd.Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


def refused(store, name):
    h = nbd.NBD()
    h.set_export_name(str(name))
    try:
        h.connect_unix(store.nbd)
    except nbd.Error:
        return True
    h.shutdown()
    return False


def memory(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(key + r":\s+(\d+)", f.read()).group(1)) * 1024


# --- who may ---------------------------------------------------------------------


def test_who(store):
    mine, other, stale, none = (uuid.uuid4() for _ in range(4))
    check("nobody is registered: refused", refused(store, mine))
    store.register(mine)
    sleeper = subprocess.Popen(["sleep", "100"])
    store.register(other, pid=sleeper.pid, start=start_of(sleeper.pid))
    check("another VM's: refused", refused(store, other))
    check("one that there is not: refused", refused(store, none))
    for name in ("", "x", str(mine) + "x", "../" + str(mine), "\u00e4" * 100):
        check(f"export {name[:8]!r}: refused", refused(store, name))
    store.register(stale, start=start_of(os.getpid()) + 1)
    check("one of a process that had our number: refused", refused(store, stale))
    h = connect(store, mine)
    check("its own", h.get_size() == SIZE)
    check("block sizes are told", [h.get_block_size(i) for i in range(3)] == [1, PAGE, REQUEST_MAX])
    check("what it can", h.can_trim() and h.can_zero() and h.can_fast_zero() and h.can_fua() and h.can_flush()
          and not h.can_multi_conn() and not h.is_read_only() and not h.is_rotational())
    h.shutdown()
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(store.nbd)
    names = []
    h.opt_list(lambda name, _: names.append(name) or 0)
    check("nobody is told what exports there are", names == [])
    h.opt_abort()
    check("not registered, and not root: refused", subprocess.run(
        ["/usr/bin/python3", "-c", "import nbd,sys\nh=nbd.NBD()\nh.set_export_name(sys.argv[2])\nh.connect_unix(sys.argv[1])",
         store.nbd, str(mine)], user=65534, group=65534, stderr=subprocess.DEVNULL).returncode == 1)
    check("forgotten", store.call(FORGET, uuid=mine.bytes)["status"] == 0 and refused(store, mine))
    store.call(FORGET, uuid=other.bytes)
    store.call(FORGET, uuid=stale.bytes)
    sleeper.kill()
    sleeper.wait()


# --- what it keeps ------------------------------------------------------------------


def content(n):
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(n)
    if kind == 1:
        return rng.randbytes(n)
    if kind == 2:
        return (b"%d " % rng.randrange(100) * n)[:n]
    return (rng.randbytes(64) * (n // 64 + 1))[:n]


def test_data(store):
    vm = uuid.uuid4()
    store.register(vm)
    h = nbd.NBD()
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.set_export_name(str(vm))
    h.connect_unix(store.nbd)
    model = bytearray(SIZE)
    right = True
    for _ in range(600):
        n = rng.choice((1, 511, PAGE, 3 * PAGE, REQUEST_MAX, rng.randrange(1, REQUEST_MAX)))
        at = rng.randrange(0, 4 * MIB - n)
        if rng.random() < 0.5:
            at = at // PAGE * PAGE
        what = rng.randrange(6)
        if what < 3:
            data = content(n)
            h.pwrite(data, at, nbd.CMD_FLAG_FUA if what == 2 else 0)
            model[at:at + n] = data
        elif what == 3:
            h.trim(n, at)
            model[at:at + n] = bytes(n)
        elif what == 4:
            h.zero(n, at, rng.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO)))
            model[at:at + n] = bytes(n)
        else:
            h.flush()
        right = right and h.pread(n, at) == model[at:at + n]
    for at in range(0, 4 * MIB, REQUEST_MAX):
        right = right and h.pread(REQUEST_MAX, at) == model[at:at + REQUEST_MAX]
    check("what is written is what is read", right)
    extents = []
    h.block_status(SIZE, 0, lambda _c, offset, entries, _e: extents.append((offset, list(entries))) or 0)
    offset, right = extents[0][0], len(extents) == 1
    for n, flags in zip(extents[0][1][::2], extents[0][1][1::2]):
        if flags & nbd.STATE_ZERO:
            right = right and not any(model[offset:offset + n])
        offset += n
    check("what is told to be zeros is", right and offset > PAGE)
    # more than it said that it takes
    h.set_strict_mode(0)
    before = memory(store.pid(), "RssAnon")
    for n in (REQUEST_MAX + 1, 32 * MIB):
        for call in (lambda: h.pread(n, 0), lambda: h.pwrite(bytes(n), 0)):
            try:
                call()
                check(f"{n} bytes at once are refused", False)
            except nbd.Error as e:
                check(f"{n} bytes at once are refused", e.errnum == errno.EINVAL)
    check("and cost nothing for long", memory(store.pid(), "RssAnon") < before + 2 * MIB)
    check("the connection goes on", h.pread(PAGE, 0) == model[:PAGE])
    h.shutdown()
    store.call(FORGET, uuid=vm.bytes)


def test_qemu(store):
    """QEMU's own client.  It is registered before it becomes that: exec changes neither number nor start."""
    vm = uuid.uuid4()
    url = f"nbd+unix:///{vm}?socket={store.nbd}"
    if not shutil.which("qemu-io"):
        print("ok - QEMU's client # SKIP no qemu-io here")
        return
    q = subprocess.Popen(["sh", "-c", 'read -r go && exec qemu-io -f raw "$1" -c "write -P 7 512 3M" -c "discard 1M 1M" '
                          '-c "read -P 7 512 1000k" -c "read -P 0 1M 1M" -c "write -z -n 0 1M" -c "read -P 0 0 1M" -c "flush"',
                          "sh", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    store.register(vm, pid=q.pid, start=start_of(q.pid))
    out, _ = q.communicate("go\n", timeout=30)
    check("QEMU's client", q.returncode == 0 and "failed" not in out and out.count("ops;") >= 6) or note(out)
    store.call(FORGET, uuid=vm.bytes)


def test_one_at_a_time(store):
    vm = uuid.uuid4()
    store.register(vm)
    first = connect(store, vm)
    got = []
    t = threading.Thread(target=lambda: got.append(connect(store, vm)))
    t.start()
    t.join(0.5)
    check("a second connection waits", not got)
    first.pwrite(b"x" * PAGE, 0)
    began = time.monotonic()
    first.shutdown()
    t.join(10)
    check("and gets in when the first one ends", len(got) == 1 and time.monotonic() - began < 1)
    check("with what that wrote", got[0].pread(PAGE, 0) == b"x" * PAGE)
    began = time.monotonic()
    check("but not for ever", refused(store, vm) and time.monotonic() - began > 3)
    got[0].shutdown()
    store.call(FORGET, uuid=vm.bytes)


def test_memory(store):
    vms = [uuid.uuid4() for _ in range(4)]
    for vm in vms:
        store.register(vm)
    before, alone = memory(store.pid(), "RssAnon"), store.call(STATUS)["fixed"]
    handles = [connect(store, vm) for vm in vms]

    def use(h):
        cookies = [h.aio_pwrite(rng.randbytes(REQUEST_MAX), i * REQUEST_MAX) for i in range(16)]
        while cookies:
            h.poll(-1)
            cookies = [c for c in cookies if not h.aio_command_completed(c)]
    threads = [threading.Thread(target=use, args=(h,)) for h in handles]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    each = (memory(store.pid(), "RssAnon") - before) // 4
    note(f"fixed: {before // 1024} KiB of memory, {alone // 1024} KiB with its share of the code, and {each // 1024} KiB "
         "for each connection (its index in it)")
    check("alone it takes at most 4 MiB", alone <= 4 * MIB)
    check("a connection costs at most 1 MiB", each <= MIB)
    for h in handles:
        h.shutdown()
    for vm in vms:
        store.call(FORGET, uuid=vm.bytes)


# --- hostile ------------------------------------------------------------------------------

GREETING = b"NBDMAGICIHAVEOPT"


def raw(store):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(store.nbd)
    s.settimeout(5)
    return s


def tell(s, data):
    try:
        s.sendall(data)
    except OSError:
        pass


def option(what, data, length=None):
    return b"IHAVEOPT" + struct.pack(">II", what, len(data) if length is None else length) + data


def go(name):
    return option(7, struct.pack(">I", len(name)) + name + b"\0\0")


def transmission(store, vm):
    """Through the handshake, by hand."""
    s = raw(store)
    s.recv(18, socket.MSG_WAITALL)
    s.sendall(struct.pack(">I", 3) + go(str(vm).encode()))
    while True:
        _, _, kind, n = struct.unpack(">QIII", s.recv(20, socket.MSG_WAITALL))
        if n:
            s.recv(n, socket.MSG_WAITALL)
        if kind == 1:
            return s
        if kind & 0x80000000:
            raise OSError("refused")


def nbd_request(kind, offset, length, flags=0, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, 7, offset, length)


def test_hostile(store):
    vm, bystander = uuid.uuid4(), uuid.uuid4()
    store.register(vm)
    store.register(bystander)
    h = connect(store, bystander)
    h.pwrite(b"b" * PAGE, PAGE)
    pid, before = store.pid(), memory(store.pid(), "RssAnon")
    name = str(vm).encode()
    for data in (b"", b"\0", rng.randbytes(4), rng.randbytes(10000), struct.pack(">I", 0xffffffff),
                 struct.pack(">I", 3) + rng.randbytes(64), struct.pack(">I", 3) + b"IHAVEOPT",
                 struct.pack(">I", 3) + option(7, b"", 0xffffffff), struct.pack(">I", 3) + option(7, b"\xff" * 6),
                 struct.pack(">I", 3) + option(1, name * 300), struct.pack(">I", 3) + option(0xffff, b"x") * 40,
                 struct.pack(">I", 3) + option(5, b""), struct.pack(">I", 3) + option(10, rng.randbytes(100)),
                 struct.pack(">I", 0) + option(1, name) + rng.randbytes(1000)):
        with raw(store) as s:
            s.recv(18, socket.MSG_WAITALL)
            tell(s, data)
    for data in (rng.randbytes(28), rng.randbytes(1000), b"\0" * 28, nbd_request(1, 0, 0xffffffff),
                 nbd_request(1, 0, 64 * MIB) + bytes(1000), nbd_request(1, 0, PAGE) + bytes(100),
                 nbd_request(1, UNSET, PAGE) + bytes(PAGE), nbd_request(0, SIZE, 1), nbd_request(0, 0, 0),
                 nbd_request(0, UNSET - 5, 100), nbd_request(4, 0, 0xffffffff), nbd_request(6, SIZE - 1, 2),
                 nbd_request(7, 0, 0), nbd_request(99, 0, 1), nbd_request(0, 0, PAGE, 0xffff),
                 nbd_request(0, 0, PAGE)[:20], nbd_request(0, 0, 64 * MIB) * 20, nbd_request(0, 0, REQUEST_MAX) * 100,
                 nbd_request(1, 0, PAGE, magic=1)):
        until(lambda: not_busy(store, vm))
        with transmission(store, vm) as s:
            tell(s, data)
            s.settimeout(0.05)
            try:
                s.recv(100)
            except OSError:
                pass
    held = [raw(store) for _ in range(30)]
    served = 0
    for s in held:
        try:
            served += s.recv(18, socket.MSG_WAITALL)[:16] == GREETING
        except OSError:
            pass
    check("one process gets a few connections", 0 < served <= 8)
    for s in held:
        s.close()
    for _ in range(2000):
        raw(store).close()
    subprocess.run(["/usr/bin/python3", "-c", """if True:
        import socket, sys
        for i in range(2000):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.connect(sys.argv[1])
            s.close()""", store.nbd], user=65534, group=65534, check=True)
    # nbdkit 1.32 aborts when a client goes with several answers under way (mended in 1.34, "Don't assert on send if
    # client hangs up early"): that costs the others no more than another kill would
    with open(store.log) as f:
        deaths = f.read().count(" died (")
    check("nbdkit died of its own fault at most", deaths == 0 or deaths <= store.asserted())
    if deaths:
        h = connect(store, bystander)
        pid = store.pid()
    check("who behaves is served", h.pread(PAGE, PAGE) == b"b" * PAGE)
    check("by the same store", store.pid() == pid and os.path.exists(f"/proc/{pid}"))
    check("and it is no larger", until(lambda: memory(pid, "RssAnon") < before + 2 * MIB))
    check("nor out of descriptors", until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 32))
    with open(store.log) as f:
        check("the log is not flooded", len(f.readlines()) < 400)
    check("and its VM may come back", until(lambda: not_busy(store, vm)))
    h.shutdown()
    store.call(FORGET, uuid=vm.bytes)
    store.call(FORGET, uuid=bystander.bytes)


def not_busy(store, vm):
    return not refused(store, vm)


def test_control_fuzz(store):
    pid = store.pid()
    for _ in range(300):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(store.control)
            n = rng.choice((1, 100, len(request(1)) - 1, len(request(1)), len(request(1)) + 1, 60000))
            s.send(rng.randbytes(n))
            if rng.random() < 0.5:
                s.recv(1 << 16)
    check("wrong packets on the control socket", store.call(STATUS)["status"] == 0 and store.pid() == pid)


# --- it dies ---------------------------------------------------------------------------------


class Writer:
    """What QEMU is: a few requests under way, and after the connection broke again all that were not answered."""

    def __init__(self, store, vm):
        self.store, self.vm = store, vm
        self.pages = {}  # page: what was acknowledged
        self.h = connect(store, vm)
        self.requests = self.broken = self.wrong = 0

    def round(self):
        todo = {}
        for at in rng.sample(range(0, SIZE // PAGE // 8), 8):
            n = rng.choice((1, 1, 8, 8))
            todo[at * 8] = content(n * PAGE)
        while todo:
            try:
                cookies = {self.h.aio_pwrite(data, at * PAGE): at for at, data in todo.items()}
                while cookies:
                    self.h.poll(5000)
                    for c in [c for c in cookies if self.h.aio_command_completed(c)]:
                        at = cookies.pop(c)
                        data = todo.pop(at)
                        self.requests += 1
                        for i in range(len(data) // PAGE):
                            self.pages[at + i] = data[i * PAGE:(i + 1) * PAGE]
            except nbd.Error:
                self.broken += 1
                self.h = connect(self.store, self.vm)

    def verify(self, pages):
        for at in pages:
            while True:
                try:
                    self.wrong += self.h.pread(PAGE, at * PAGE) != self.pages[at]
                    break
                except nbd.Error:
                    self.h = connect(self.store, self.vm)


def kill_under(store, writer, times):
    """How long each time from the death to the first answer."""
    took = []
    for i in range(times):
        stop = threading.Event()
        if i % 25 == 24:
            time.sleep(1.1)  # the holder slows down when many die young

        def run():
            while not stop.is_set():
                writer.round()
        t = threading.Thread(target=run)
        t.start()
        time.sleep(rng.random() * 0.05)
        pid = store.pid()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        stop.set()
        t.join(30)
        if t.is_alive():
            check("the writer goes on", False)
            break
        # the writer has been through; had it nothing under way, this finds out
        writer.verify(rng.sample(sorted(writer.pages), 4))
        took.append(time.monotonic() - began)
        writer.verify(rng.sample(sorted(writer.pages), 16))
    return took


def test_killed(store, times):
    vm = uuid.uuid4()
    store.register(vm)
    writer = Writer(store, vm)
    incarnation = store.call(STATUS)["incarnation"]
    took = kill_under(store, writer, times)
    writer.verify(writer.pages)
    took.sort()
    note(f"{len(took)} kills, {writer.requests} requests, {writer.broken} times under way; back after "
         f"{took[len(took) // 2] * 1000:.0f} ms, at most {took[-1] * 1000:.0f} ms")
    check(f"{times} kills: nothing that was acknowledged is lost", writer.wrong == 0 and len(took) == times)
    check("requests were under way", writer.broken >= times // 10)
    check("back in half a second", took[-1] < 0.5)
    check("the pool is the same", store.call(STATUS)["incarnation"] == incarnation)
    return vm, writer


def test_stopped(store, vm, writer):
    pid = store.pid()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")
    try:
        store.call(STATUS, timeout=2)
        check("a store that is stopped is deaf", False)
    except socket.timeout:
        check("a store that is stopped is deaf", True)
    check("the watchdog sees it", until(lambda: gone(pid), 12) and store.said("silent"))
    writer.round()
    writer.verify(writer.pages)
    check("and nothing is lost", writer.wrong == 0)


def test_holder(store, vm, writer):
    second = subprocess.run(store.args(), capture_output=True, text=True)
    check("a second one is refused, and who is first is named",
          second.returncode == 1 and f"process {store.holder.pid}" in second.stderr)
    left = store.remove()
    check("it is not removed while it runs", left.returncode == 1 and f"process {store.holder.pid}" in left.stderr)
    pid = store.pid()
    store.holder.kill()
    store.holder.wait()
    writer.round()
    check("without a holder the store goes on", store.pid() == pid and writer.wrong == 0)
    left = store.remove()
    check("nor is it removed then", left.returncode == 1 and f"process {pid}" in left.stderr)
    began = time.monotonic()
    check("another holder takes over", store.start())
    note(f"taken over after {(time.monotonic() - began) * 1000:.0f} ms")
    writer.round()
    writer.verify(writer.pages)
    check("with what was there", writer.wrong == 0 and gone(pid) and store.pid() != pid)
    check("it ends", store.stop() == 0 and until(lambda: not os.path.exists(store.nbd)))
    check("it starts again", store.start())
    writer.verify(writer.pages)
    check("the pool was kept", writer.wrong == 0)
    pid = store.pid()
    store.holder.send_signal(signal.SIGHUP)
    check("SIGHUP starts a new store", until(lambda: store.pid() != pid))
    writer.verify(writer.pages)
    check("which has it all", writer.wrong == 0)


def test_sizes(store, vm, writer):
    store.stop()
    store.pool = "64M"
    store.start()
    check("a pool with content keeps its size", store.call(STATUS)["pool_size"] == 256 * MIB and store.said("stays at 256 MiB"))
    writer.verify(writer.pages)
    check("and its content", writer.wrong == 0)
    writer.h.shutdown()
    store.call(FORGET, uuid=vm.bytes)
    store.stop()
    store.start()
    check("an empty one is resized", store.call(STATUS)["pool_size"] == 64 * MIB)


def test_service(store):
    """As systemd would: the sockets handed over, one capability, watched; started again by whoever has the sockets."""
    nbd_socket, control, notify = (socket.socket(socket.AF_UNIX, kind) for kind in
                                   (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM))
    nbd_socket.bind(store.nbd)
    control.bind(store.control)
    notify.bind(store.dir + "/systemd.sock")
    notify.settimeout(20)
    nbd_socket.listen(100)
    control.listen(10)

    def begin():
        def hand_over():
            fds = [os.dup(nbd_socket.fileno()), os.dup(control.fileno())]
            os.dup2(fds[0], 3)
            os.dup2(fds[1], 4)
        return subprocess.Popen(
            ["setpriv", "--bounding-set=-all,+ipc_lock", "--no-new-privs", "sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh",
             *[a for a in store.args() if a not in ("--arena", KIND)]],
            preexec_fn=hand_over, close_fds=False, stderr=subprocess.DEVNULL,
            env=os.environ | {"LISTEN_FDS": "2", "NOTIFY_SOCKET": store.dir + "/systemd.sock", "WATCHDOG_USEC": "1000000"})

    p = begin()
    try:
        check("as a service: ready", notify.recv(100) == b"READY=1")
        check("as a service: alive", notify.recv(100) == b"WATCHDOG=1" and p.poll() is None)
        with open(f"/proc/{p.pid}/comm") as f:
            check("as a service: it is nbdkit", f.read() == "nbdkit\n")
        with open(store.dir + "/arena") as f:
            check("as a service: its memory outlives a mount namespace", "kind=sysv" in f.read())
        vm = uuid.uuid4()
        store.register(vm)
        writer = Writer(store, vm)
        writer.round()
        p.kill()
        p.wait()
        p = begin()
        writer.round()
        writer.verify(writer.pages)
        check("as a service: nothing is lost", writer.wrong == 0)
        p.terminate()
        check("as a service: SIGTERM is a kill", p.wait(5) == -signal.SIGTERM)
    finally:
        p.kill()
        p.wait()
    nbd_socket.close()
    control.close()
    notify.close()
    os.unlink(store.dir + "/systemd.sock")
    check("as a service: removed", store.remove().returncode == 0 and set(os.listdir(store.dir)) <= {"log"})


def test_beginnings(store):
    def ends(code, words, *args):
        r = subprocess.run([BUILD + "/ballast-store", *args], capture_output=True, text=True, timeout=20)
        check(f"{' '.join(args)[-40:]}: {code}", r.returncode == code and words in r.stdout + r.stderr)
    ends(0, "Usage", "--help")
    ends(0, "ballast-store ", "--version")
    ends(2, "--help", "--nonsense")
    ends(2, "no arguments", "now")
    ends(2, "is not a size", "--pool-size", "5MB")
    ends(2, "absolute", "--dir", "here")
    ends(2, "from 2", "--threads", "1")
    ends(2, "PoolSize", "--config", "/dev/null")
    empty = tempfile.mkdtemp(prefix="ballast-store-")
    plain = empty + "/plain"
    with open(plain, "w"):
        pass
    own = ["--config", "/dev/null", "--dir", empty, "--pool-size", "16M", "--control", empty + "/c"]
    ends(1, "could not start", *own, "--socket", empty + "/n", "--plugin", empty + "/none.so")
    ends(1, "is not a socket", *own, "--socket", plain)
    ends(0, "", "--config", "/dev/null", "--dir", empty, "--socket", empty + "/n", "--control", empty + "/c", "--remove")
    os.unlink(plain)
    check("nothing is left of those", not os.path.exists(empty) or os.listdir(empty) == [])
    if os.path.exists(empty):
        os.rmdir(empty)


def main():
    store = Store()
    try:
        if not check("it starts", store.start()):
            with open(store.log) as f:
                note(f.read())
            return
        test_beginnings(store)
        test_who(store)
        test_data(store)
        test_qemu(store)
        test_one_at_a_time(store)
        test_memory(store)
        test_hostile(store)
        test_control_fuzz(store)
        vm, writer = test_killed(store, 100 if KIND == "sysv" else 20)
        test_holder(store, vm, writer)
        test_stopped(store, vm, writer)
        test_sizes(store, vm, writer)
        with open(store.dir + "/arena") as f:
            record = f.read()
        mine = re.search(r"key=(-?\d+)", record).group(1)
        store.stop()
        left = store.remove()
        check("it is removed", left.returncode == 0 and set(os.listdir(store.dir)) <= {"log"})
        with open("/proc/sysvipc/shm") as f:
            check("and its memory", KIND != "sysv" or mine not in {line.split()[0] for line in f.readlines()[1:]})
        with open("/proc/self/mounts") as f:
            check("and its mount", store.dir not in f.read())
        if KIND == "sysv":
            test_service(store)
    except (OSError, nbd.Error) as e:
        check(f"nothing unforeseen: {e!r} at line {e.__traceback__.tb_next.tb_lineno}", False)
    finally:
        if failures:
            with open(store.log) as f:
                note(f.read()[-4000:].replace("\n", "\n# "))
        store.clean()


main()
sys.exit(failures > 0)
