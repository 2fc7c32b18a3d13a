#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ballastctl scan, without a daemon: on dumps, processes and VMs (of libvirt's test driver, with processes of our own)
# whose content is known, page by page.
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" -ne 0 ] || ! command -v python3 > /dev/null || ! command -v setpriv > /dev/null; then
  echo "ok - scan # SKIP needs root, python3 and setpriv"
  exit 0
fi
export TMPDIR=$dir
cd "$dir" || exit 1

# A layout is a list of pages: numbers, equal for equal pages; 0 is full of zeros.
# layout.py raw|elf|cut FILE LAYOUT, layout.py hold LAYOUT..., layout.py expect OUT LAYOUT...
cat > layout.py <<'PY'
import collections, json, mmap, random, struct, sys, time

def pages(text):
    """'1*3,0,7-9' is 1 1 1 0 7 8 9"""
    for part in filter(None, text.split(',')):
        tag, _, times = part.partition('*')
        first, _, last = tag.partition('-')
        for n in range(int(first), int(last or first) + 1):
            for _ in range(int(times or 1)):
                yield n

def content(tag):
    return random.Random(tag).randbytes(4096) if tag else bytes(4096)

def elf(data, cut):
    """Two segments with a gap of addresses between, as dumps of guests have."""
    half = len(data) // 8192 * 4096
    parts, at = [(0, data[:half]), (1 << 32, data[half:])], 64 + 2 * 56
    head = b'\x7fELF\2\1\1' + bytes(9) + struct.pack('<HHIQQQIHHHHHH', 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    for address, bytes_ in parts:
        head += struct.pack('<IIQQQQQQ', 1, 6, at, 0, address, len(bytes_), len(bytes_), 0)
        at += len(bytes_)
    whole = head + data
    return whole[:len(whole) - cut]

def hold(layout):
    m = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(15)  # MADV_NOHUGEPAGE: a page is a page, and the mapping is not made one with its neighbours
    for i, tag in enumerate(pages(layout)):
        m[i * 4096:(i + 1) * 4096] = content(tag)
    return m

def expect(layouts):
    """The definitions of ballastctl-json(7), by counting."""
    all_ = [list(pages(l)) for l in layouts]
    have = [collections.Counter(t for t in l if t) for l in all_]
    total = sum(have, collections.Counter())
    sources = collections.Counter(t for h in have for t in h)
    d = {'pages': sum(map(len, all_)), 'zero': sum(l.count(0) for l in all_), 'unique': len(total)}
    d['duplicate_intra'] = sum(n - 1 for h in have for n in h.values())
    d['duplicate_inter'] = sum(n - 1 for n in sources.values())
    d['saved_pages'] = d['zero'] + d['duplicate_intra'] + d['duplicate_inter']
    d['with_others'] = sum(n for h in have for t, n in h.items() if sources[t] > 1)
    d['matrix'] = [[sum(n - 1 for n in a.values()) if a is b else len(a.keys() & b.keys()) for b in have] for a in have]
    d['runs'] = [0] * 20
    for l in all_:
        run = 0
        for t in l + [0]:
            if t and total[t] > 1:
                run += 1
            elif run:
                d['runs'][run.bit_length() - 1] += run
                run = 0
    return d

def main(what, *args):
    if what in ('raw', 'elf', 'cut'):
        data = b''.join(map(content, pages(args[1])))
        with open(args[0], 'wb') as f:
            f.write(data if what == 'raw' else elf(data, 10000 if what == 'cut' else 0))
    elif what == 'hold':
        m = hold(args[0])
        untouched = mmap.mmap(-1, 12 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        print('ready', flush=True)
        while args[1:] == ('moves',):
            with mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as moving:
                moving.write(content(5) * 1024)
        time.sleep(600)
        del m, untouched
    else:
        with open(args[0]) as f:
            got = json.load(f)
        wrong = {k: (got.get(k), v) for k, v in expect(args[1:]).items() if got.get(k) != v}
        for k, v in wrong.items():
            print(f'# {k} is {v[0]}, not {v[1]}')
        sys.exit(bool(wrong))

main(*sys.argv[1:])
PY
layout() { python3 layout.py "$@"; }

# found LAYOUT...: the last document has the figures of sources of these layouts, in this order
found() { layout expect "$dir/out" "$@"; }

children=()
end_children() {
  [ ${#children[@]} -eq 0 ] || kill -KILL "${children[@]}" 2> /dev/null
  wait "${children[@]}" 2> /dev/null
}
trap 'end_children; finish' EXIT

# hold NAME LAYOUT [ARGUMENT...]: a process with these pages; its pid in NAME.pid
hold() {
  local name=$1 i
  shift
  python3 layout.py hold "$@" > "$name.out" &
  children+=($!)
  echo $! > "$name.pid"
  for i in {1..200}; do
    grep -qs ready "$name.out" && return
    sleep 0.05
  done
  echo "not ok - a child does not start ($i)"
  exit 1
}

# --- dumps: raw and ELF
A=0,0,1,1,2,3,20-60 B=1,3,4,0,30-70
layout raw a.raw $A
layout raw b.raw $B
layout elf a.core $A
layout cut cut.core 1-100
check "two dumps" exits 0 scan --dump a.raw --dump b.raw --json
check "all figures are right" found $A $B
check "the document has its schema" document '.schema == 1 and .page_size == 4096'
check "it is exact" document '.exact and .sample == 1 and .error == 0 and (.blind | not)'
check "pages are the sum of their classes" document '.pages == .zero + .unique + .duplicate_intra + .duplicate_inter
  + .volatile + .unreadable'
check "so are those of each" document '.vms | all(.pages == .zero + .unique + .duplicate_intra + .duplicate_inter)'
check "each has its own figures" document '[.vms[] | .name, .kind, .pages, .zero, .duplicate_intra, .with_others]
  == ["a.raw", "dump", 47, 2, 1, 34, "b.raw", "dump", 45, 1, 0, 33]'
check "and its path" document '.vms[1].path == "b.raw" and .vms[1].pid == null and .vms[1].still'
check "random pages do not compress" document '.compress_ratio > 0.9 and .compress_ratio < 1.1 and .compressed > 0'
check "cost is said" document '.took_us > 0 and .read >= 4096 * .pages - .zero and .memory > 0'
check "one line in a pipe" test "$(wc -l <<< "$out")" -eq 1
check "an ELF core gives the same as raw memory" exits 0 scan --dump a.core --dump b.raw --json
check "all of it" found $A $B
check "the order of sources is that of the command line" exits 0 scan --dump b.raw --dump a.raw --json
check "also in the matrix" found $B $A
check "a dump alone" exits 0 scan --dump a.raw --json
check "has no others" found $A
check "a core that ends too early" exits 0 scan --dump cut.core --json
check "what is there counts, the rest is said" document '.unreadable == 3 and .pages == 100 and .unique == 97 and
  (.vms[0].warning | type) == "string"'
dd if=a.raw of=tail.raw bs=1 count=9000 status=none
check "what is no whole page is no page" exits 0 scan --dump tail.raw --json
check "and is counted" document '.pages == 2 and .vms[0].tail == 808'
mkdir sub
cp b.raw sub/a.raw
check "dumps of one name are told apart" exits 0 scan --dump a.raw --dump sub/a.raw --json
check "by their paths" document '[.vms[].name] == ["a.raw", "sub/a.raw"]'
check "a seed repeats a scan" exits 0 scan --dump a.raw --seed 7 --json
check "and is said" document '.seed == 7'
exits 0 scan --dump a.raw --json
check "one that was not given is said, too" document '.seed > 0 and .seed != 7'

# many sources of random layouts against the model
random_layouts() {
  python3 -c 'import random
r = random.Random(5)
for _ in range(7):
    print(",".join(str(r.choice([0, r.randrange(1, 40), r.randrange(1, 2000)])) for _ in range(r.randrange(1, 600))))'
}
mapfile -t many < <(random_layouts)
words=()
for i in "${!many[@]}"; do
  layout raw "m$i.raw" "${many[i]}"
  words+=(--dump "m$i.raw")
done
check "random dumps" exits 0 scan "${words[@]}" --json --verify
check "have the figures of a model" found "${many[@]}"
check "--verify finds the same" document '.verify == {ran: true, equal: true, binding: true, difference: null,
  failed: null, saved_pages: .saved_pages}'
TMPDIR=/nowhere run scan --dump a.raw --verify --json
check "where it cannot be done, that is a failure" test "$rc" -eq 1
check "with the place" says "/nowhere"
check "the scan counts all the same" document '.pages == 47 and (.verify.ran | not) and (.verify.failed | type) == "string"'
check "--verify says so" exits 0 scan "${words[@]}" --verify
check "to people" prints 'Verified: brute force finds the same figures.'
check "and leaves nothing behind" test -z "$(find "$dir" -maxdepth 1 -newer m6.raw -type f ! -name 'out' ! -name 'err')"

# --- a sample: what does not fit into the index
python3 -c 'import struct
with open("large.raw", "wb") as f:
    for i in range(80000):
        f.write(struct.pack("<Q", i % 60000 + 1).ljust(4096, b"\0"))'
check "an index that is too small makes a sample" exits 0 scan --dump large.raw --memory 1M --json --verify
check "which is said, with its error" document '.sample < 1 and .error > 0 and (.exact | not)'
check "is near" document '(.saved_pages - 20000 | fabs) < 6 * .error and .pages == 80000'
check "and is no difference that matters" document '.verify.ran and (.verify.binding | not)
  and .verify.saved_pages == 20000'
check "the index had what was allowed" document '.memory <= 1048576'
check "people are told" exits 0 scan --dump large.raw --memory 1M
check "of the sample" prints 'Estimated from 1/'
check "with enough memory nothing is sampled" exits 0 scan --dump large.raw --memory 64M --json
check "and all is found" document '.exact and .saved_pages == 20000'
run scan --dump large.raw --json --cpu 20
check "--cpu bounds what is used" document '.cpu_us < 0.3 * .took_us'

# --- processes
C='0*8,1*100,200-263'
hold child "$C"
child=$(cat child.pid)
kill -STOP "$child"
rss() { awk '/^RssAnon/ { print $2 }' "/proc/$child/status"; }
before=$(rss)
check "a process" exits 0 scan --pid "$child" --json
check "has what it was given" document '.zero >= 8 and .duplicate_intra >= 99 and .unique >= 65 and .pages < 8192'
check "that was never touched does not count" document '.vms[0].absent >= 16384 - 172 + 3072'
check "nothing of it came into being by looking" test "$(rss)" = "$before"
check "it is stopped: exact" document '.exact and .vms[0].still and .vms[0].kind == "process"'
check "its name says who it is" document ".vms[0].name == \"pid $child (python3)\" and .vms[0].pid == $child"
check "--verify agrees" exits 0 scan --pid "$child" --verify --json
check "and must" document '.verify.equal and .verify.binding'
layout raw part.raw 210-300,400-410
check "a process and a dump" exits 0 scan --pid "$child" --dump part.raw --json
check "share what they share" document '.matrix[0][1] == 54 and .matrix[1][1] == 0 and .vms[1].with_others == 54'
check "they are sources" exits 0 scan --pid "$child" --dump part.raw
check "to people" prints '2 sources hold '
kill -CONT "$child"
check "one that runs" exits 0 scan --pid "$child" --json --verify
check "is not exact, and its moving is no failure" document '(.exact | not) and .verify.ran and (.verify.binding | not)'
hold child2 "$C"
check "several by commas" exits 0 scan --pid "$child,$(cat child2.pid)" --json
check "have everything in common" document '.matrix[0][1] >= 65 and (.vms | length) == 2'
# The kernel changes memory that stands still, too (khugepaged): here pages come into being for a while
kill -STOP "$child"
python3 - "$child" <<'EOF' &
import sys, time
pid = sys.argv[1]
for line in open(f'/proc/{pid}/maps'):
    start, end = (int(x, 16) for x in line.split()[0].split('-'))
    if end - start == 64 << 20:
        break
with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as mem:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        end -= 4096
        mem.seek(end)
        mem.write(b'%d' % end)
        time.sleep(0.004)
EOF
check "--verify waits until it is left alone" exits 0 scan --pid "$child" --verify --json
check "and agrees" document '.verify.equal and .verify.binding'
wait $!

hold busy "$C" moves
check "one that maps and unmaps all the time" exits 0 scan --pid "$(cat busy.pid)" --cpu 10 --json
check "is not lost" document '.vms[0].error == null and .zero >= 8 and .duplicate_intra >= 99 and .unique >= 65'

# --- VMs: domains of the test driver, whose processes are ours
domain() { # NAME UUID RUNSTATE
  echo "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>$1</name><uuid>$2</uuid>
    <memory unit='KiB'>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os><test:runstate>$3</test:runstate></domain>"
}
u=6f1c6f9e-0000-4000-8000-0000000000
{ echo '<node>'; domain web2 ${u}02 3; domain web10 ${u}10 1; domain db ${u}03 1; domain off ${u}04 5; echo '</node>'; } > node.xml
{ echo '<node>'; domain off ${u}04 5; echo '</node>'; } > none.xml
D='0*5,1-50,1-10' E='0,20-80,500*16'
hold web2 "$D" -uuid ${u}02
hold web10 "$E" -uuid ${u}10
scan_vms() { local want=$1; shift; exits "$want" scan --connect "test://$dir/node.xml" --libvirt-run-dir "$dir" "$@"; }
check "a VM" scan_vms 0 web2 --json
check "has the figures of its guest, not of its process" found "$D"
check "paused it is still" document '.exact and .vms[0].still and .vms[0].uuid == "'${u}02'"'
check "memory that its guest never touched" document '.absent == 16384 - 65 and .vms[0].size == 67108864'
check "by UUID" scan_vms 0 ${u}02 --json
check "the same" document '.vms[0].name == "web2" and .pages == 65'
check "two VMs" scan_vms 0 web2 web10 --json
check "their figures" found "$D" "$E"
check "one runs" document '(.exact | not) and [.vms[].still] == [true, false]'
check "paused: --verify is exact" scan_vms 0 web2 --verify --json
check "and equal" document '.verify.equal and .verify.binding'
check "all that run: one without a process is left out" scan_vms 0 --json
check "the others are there, sorted as people count" found "$D" "$E"
check "and it is said why" document '.left_out | length == 1 and .[0].name == "db" and (.[0].why | contains("db.pid"))'
check "to people, too" scan_vms 0
check "in a sentence" prints "db runs, says libvirt, but there is no $dir/db.pid"
check "a VM, a process and a dump" scan_vms 0 web2 --pid "$child" --dump part.raw --json
check "in this order" document '[.vms[].kind] == ["vm", "process", "dump"]'

# --- tables
check "the headline" scan_vms 0 web2 web10
check "says it all" test "$(head -n 1 "$dir/out")" = "2 VMs hold 572 KiB; merging equal pages would free 248 KiB (43 %): \
124 KiB between VMs, 100 KiB within, 24 KiB zero pages. KSM frees 0 B of that now."
check "a row a VM" grep -qE '^web2 +260 KiB +20 KiB +40 KiB +124 KiB +\.$' "$dir/out"
check "the sum" grep -qE '^2 VMs +572 KiB +24 KiB +100 KiB +248 KiB +\.$' "$dir/out"
check "the matrix" grep -qE '^2 web10 +0\.1 +0\.1$' "$dir/out"
for width in 50 80 120; do
  check "it fits into $width columns" env COLUMNS=$width "$ctl" scan --connect "test://$dir/node.xml" \
    --libvirt-run-dir "$dir" web2 web10 --pid "$child" --dump part.raw > "$dir/t"
  check "really" test "$(wc -L < "$dir/t")" -le $width
done
check "no colours in a pipe" bash -c "! grep -q \$'\\033' '$dir/out'"

# --- a picture
check "--svg" scan_vms 0 web2 web10 --svg "$dir/report.svg" --json
check "well-formed" python3 -c 'import xml.dom.minidom, sys; xml.dom.minidom.parse(sys.argv[1])' report.svg
if command -v xmllint > /dev/null; then check "xmllint agrees" xmllint --noout report.svg; fi
check "with the figures of the document" grep -q '>248 KiB<' report.svg
check "readable by all" test "$(stat -c %a report.svg)" = 644
check "a file that cannot be made" exits 1 scan --dump a.raw --svg /nowhere/report.svg
check "is found before the scan" test -z "$out"
check "and named" says 'cannot write /nowhere/report.svg: No such file or directory'
check "a directory is no file" exits 1 scan --dump a.raw --svg "$dir/sub"
check "and says so" says 'Is a directory'
check "a full disk" exits 1 scan --dump a.raw --svg /dev/full
check "is said" says 'cannot write /dev/full: No space left on device'

# --- what can be wrong
while IFS= read -r line; do
  read -ra words <<< "$line"
  check "usage: '$line'" exits 2 "${words[@]}"
  check "usage: '$line' points to help" says "scan --help'"
done <<LINES
scan --pid
scan --pid 0
scan --pid 12x
scan --pid 4711,
scan --dump
scan --dump a.raw --cpu 0
scan --dump a.raw --cpu 101
scan --dump a.raw --cpu much
scan --dump a.raw --memory 1
scan --dump a.raw --memory lots
scan --dump a.raw --seed 0
scan --dump a.raw --seed x
scan --dump a.raw --watch=never
scan --dump a.raw --watch --verify
scan --pid $child --pid $child
scan --dump a.raw --dump ./a.raw
LINES
check "twice the same" says "a.raw is named twice"
ln -s a.raw link.raw
check "by another name" exits 2 scan --dump a.raw --dump link.raw
check "it is the same" says "a.raw and link.raw are the same memory"
sleep 0 & gone=$!
wait $gone
check "no such process" exits 1 scan --pid $gone
check "is said" says "$gone"
check "no such dump" exits 1 scan --dump none.raw
check "is said" says "none.raw"
: > empty.raw
for f in empty.raw sub cut.none; do
  check "no dump: $f" exits 1 scan --dump $f
  check "it is named: $f" says "$f"
  check "nothing else is printed: $f" test -z "$out"
done
check "one of two is wrong" exits 1 scan --dump a.raw --dump none.raw --json
check "then nothing is scanned" test -z "$out"
check "no such VM" scan_vms 4 nix
check "is said, with the mend" says "libvirt knows no domain 'nix'; 'virsh list --all' shows them"
check "a number" scan_vms 4 4711
check "may be a process" says "for a process, say --pid 4711"
check "a file" scan_vms 4 a.raw
check "may be a dump" says "for a dump, say --dump a.raw"
check "a VM that is off" scan_vms 6 off
check "is said" says "off does not run"
check "a VM whose process is not there" scan_vms 1 db
check "is said, with the mend" says "--libvirt-run-dir"
cp web2.pid db.pid
check "whose pid is another's" scan_vms 1 db
check "is not taken for it" says "$dir/db.pid is gone, or not its"
echo nonsense > db.pid
check "whose pid is none" scan_vms 1 db
check "is said" says "there is no number in it"
rm db.pid
check "a VM and its own process are one memory" scan_vms 2 web2 --pid "$(cat web2.pid)"
check "no VM runs" exits 6 scan --connect "test://$dir/none.xml"
check "is said, with what else there is" says "no virtual machine is running; --pid scans processes and --dump dumps"
check "no libvirt" exits 3 scan --connect "qemu+unix:///system?socket=$dir/none"
check "is said" says "cannot reach libvirt at qemu+unix:///system?socket=$dir/none"
cp "$ctl" "$dir/ballastctl"
chmod 755 "$dir/ballastctl"
unprivileged() { rc=0; setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/ballastctl" "$@" > "$dir/out" 2> "$dir/err" || rc=$?; err=$(cat "$dir/err"); }
unprivileged scan
check "not root: 5" test $rc -eq 5
check "with the mend" says "try with sudo"
unprivileged scan --pid "$child"
check "not root: a process: 5" test $rc -eq 5
check "it is said" says "$child"
chmod 600 b.raw
unprivileged scan --dump b.raw
check "a dump that may not be read: 5" test $rc -eq 5
unprivileged scan --dump a.raw
check "one that may be" test $rc -eq 0

# --- what ends while it is scanned: others' figures stay right
hold brief 700-16000
brief=$(cat brief.pid)
"$ctl" scan --pid "$brief" --dump a.raw --dump b.raw --cpu 1 --json > "$dir/out" 2> "$dir/err" &
scanner=$!
sleep 0.8
kill -KILL "$brief"
{ wait "$brief"; } 2> /dev/null
wait $scanner
rc=$?
out=$(cat "$dir/out") err=$(cat "$dir/err")
check "one that was named and ends is a failure" test $rc -eq 1
check "it is said" says "pid $brief (python3) ended during the scan; it is not in these figures"
check "also in the document" document '.vms[0].error | contains("ended during the scan")'
check "the others' figures" found '' $A $B

# --- --watch
timeout 1.5 "$ctl" scan --dump a.raw --dump b.raw --watch=0.2 > "$dir/watch"
check "--watch gives lines" test "$(grep -cE '^[0-9-]{10} [0-9:]{8} +2 +368 KiB +' "$dir/watch")" -ge 2
check "with one heading" test "$(grep -c '^TIME ' "$dir/watch")" -eq 1
timeout 1.5 "$ctl" scan --dump a.raw --watch=0.2 --json --svg watch.svg > "$dir/watch"
check "--watch --json gives documents" quietly jq -es 'length >= 2 and all(.pages == 47)' "$dir/watch"
check "and draws" test -s watch.svg
hold late 1*10
timeout 2 "$ctl" scan --pid "$(cat late.pid)" --dump a.raw --watch=0.2 --json > "$dir/watch" &
scanner=$!
sleep 0.8
kill -KILL "$(cat late.pid)"
{ wait "$(cat late.pid)"; } 2> /dev/null
wait $scanner
check "--watch goes on when one ends" quietly jq -es '(.[0].vms | length) == 2 and (.[-1].vms | length) == 1
  and (.[-1].left_out | length) == 1' "$dir/watch"

# --- a terminal
if command -v script > /dev/null; then
  on_tty() { script -qec "$1" /dev/null < /dev/null; }
  on_tty "$ctl scan --dump large.raw --cpu 5" > "$dir/tty"
  check "progress on a terminal" grep -q 'Scanning 1 dump: [a-z]*, [0-9]* %' "$dir/tty"
  check "with how long it takes" grep -q 'about [0-9]* s left' "$dir/tty"
  check "taken away before the report" grep -q $'\r\033\\[K.*1 dump holds' "$dir/tty"
  on_tty "timeout --foreground --preserve-status -s INT 1 $ctl scan --dump large.raw --cpu 2; echo status \$?" > "$dir/tty"
  check "Ctrl-C ends it" grep -q 'status 130' "$dir/tty"
  check "and takes the progress away" grep -q $'Scanning .*\r\033\\[K' "$dir/tty"
  check "none elsewhere" test -z "$("$ctl" scan --dump large.raw --cpu 30 2>&1 > /dev/null)"
  on_tty "timeout 1.5 $ctl scan --dump a.raw --watch=0.2" > "$dir/tty"
  check "a terminal is redrawn" test "$(grep -c $'\033\\[H' "$dir/tty")" -ge 2
  check "with the last rounds below" grep -qE '^[0-9:]{8} +1 +188 KiB ' "$dir/tty"
fi
