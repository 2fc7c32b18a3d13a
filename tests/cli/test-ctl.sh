#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ballastctl against a fake daemon: exit codes, messages, documents, tables.
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
start_fake

# --- wrong usage: 2, nothing asked, and where to read on
while IFS= read -r line; do
  read -ra words <<< "$line"
  check "usage: '$line'" exits 2 "${words[@]}"
  check "usage: '$line' points to help" says "--help'"
done <<'LINES'
nonsense
--nonsense
show
show a b
list extra
list --watch=never
list --watch=0.01
tiers --watch=never
tiers nonsense
tiers setup
tiers setup zram
tiers setup zram lots
tiers setup nonsense 1G
tiers setup zram 1G --watch
tiers rollback now
tiers setup zram 1G more
set web1
set web1 --limit
set web1 --limit 5MB
set web1 --limit -1
set web1 --limit 99999999999G
set web1 --shares 0
set web1 --shares lots
set web1 --manage perhaps
set web1 --sharing yes
set --limit 1G
balloon web1
balloon web1 --leave 1G --take 1G
balloon web1 --take 0
balloon --take 1G
act
act perhaps
share perhaps
share resume --watch
hold a b
enroll
rollback now
LINES
check "no command at all" exits 2
check "a slip is understood" exits 2 lits
check "a slip is answered with a suggestion" says "did you mean 'list'?"
check "an empty name" exits 2 show ""

# --- what works
for c in status list "list --sharing" tiers share "share resume" plan explain config metrics hold release "show web1" "show 6f1c6f9e-0000-4000-8000-000000000001" \
  "explain web1" "hold web1" "release web1" "act on" "act off" "balloon web1 --leave 1G" "balloon web1 --take 64M" \
  "set web1 --limit 1G --reservation 512M --shares high --manage yes --sharing group --group web" "set web1 --shares 7 --live" \
  "set web1 --limit 1G --persistent" "set --limit 1G web1" "hold slow"; do
  read -ra words <<< "$c"
  check "'$c' works" exits 0 "${words[@]}"
  check "'$c' says something" test -n "$out"
  check "'$c' complains of nothing" test -z "$err"
  check "'$c --json' works" exits 0 "${words[@]}" --json
  check "'$c --json' is a document" document '.schema == 1'
  check "'$c --json' is one line" test "$(wc -l <<< "$out")" -eq 1
done
check "options before the command" exits 0 --json status
check "give the same" document '.state == "soft"'

# --- errors of the daemon
check "no such VM: 4" exits 4 show nix
check "and it is named" says "'nix'"
check "no such VM to explain: 4" exits 4 explain nix
check "no such VM to change: 4" exits 4 hold nix
check "busy: 6" exits 6 hold busy
check "with the sentence" says "being migrated"
check "out of bounds: 6" exits 6 set web1 --limit 1G --reservation 2G
check "bad configuration: 1" exits 1 reload
check "with the place" says "ballast.conf:7"
check "errors go to standard error only" test -z "$out"
check "a failure with --json prints no document" exits 4 show nix --json
check "to standard output" test -z "$out"

# --- rollback
check "rollback returns at once" exits 0 rollback
check "rollback --wait" exits 0 rollback --wait
check "says when it is over" prints "as it was"

# --- tables
for c in list plan config tiers "list --sharing"; do
  check "$c fits into 80 columns" env COLUMNS=80 bash -c \
    "'$ctl' --socket '$sock' $c > '$dir/t' && [ \$(wc -L < '$dir/t') -le 80 ]"
done
check "list has its heading" grep -qE '^VM +STATE +NOW +TARGET +MAX +HOST +CHANNEL +WHY$' <(COLUMNS=80 "$ctl" --socket "$sock" list)
check "list keeps reasons whole" grep -q 'skip.not-reclaimable$' <(COLUMNS=80 "$ctl" --socket "$sock" list)
check "list says what is held, where there is room" grep -qE ' HOST +HELD +CHANNEL ' <(COLUMNS=120 "$ctl" --socket "$sock" list)
check "of both places" grep -qE '^web1 .* 311 MiB ' <("$ctl" --socket "$sock" list)
timeout 1 "$ctl" --socket "$sock" tiers --watch=0.3 > "$dir/watch"
check "tiers --watch tells rates" grep -qE '^Pages: +[1-9][0-9]* written, 0 read, 0 given back a second$' "$dir/watch"
check "share sums up" grep -qE '^6 VMs +9 GiB +360 MiB +293 MiB +40 MiB ' <("$ctl" --socket "$sock" share)
check "share says what it costs" grep -q '^Cost: .*12.5 ms of CPU for each MiB' <("$ctl" --socket "$sock" share)
check "share says why a VM is left out" grep -q ': KSM serves another group' <("$ctl" --socket "$sock" list --sharing)
check "tiers sums up" grep -qE '^6 VMs +310 MiB +20 MiB ' <(COLUMNS=80 "$ctl" --socket "$sock" tiers)
check "tiers says what keeps a VM waiting" grep -q '^web2: waiting: the store has no room' <("$ctl" --socket "$sock" tiers)
check "a pipe gets names whole" grep -q 'db-with-a-rather-long-name-as-people-give-them ' <("$ctl" --socket "$sock" list)
check "no colours in a pipe" bash -c "! '$ctl' --socket '$sock' list | grep -q \$'\\033'"
if command -v script > /dev/null; then
  on_tty() { script -qec "$1" /dev/null < /dev/null; }
  check "colours on a terminal" grep -q $'\033' <(on_tty "$ctl --socket $sock status")
  check "--no-color" bash -c "! script -qec '$ctl --socket $sock status --no-color' /dev/null < /dev/null | grep -q \$'\\033'"
  check "NO_COLOR" bash -c "! NO_COLOR=1 script -qec '$ctl --socket $sock status' /dev/null < /dev/null | grep -q \$'\\033'"
  check "a terminal is redrawn" test "$(on_tty "timeout 1 $ctl --socket $sock list --watch=0.3" | grep -c $'\033\\[H')" -ge 2
fi
timeout 1 "$ctl" --socket "$sock" list --watch=0.3 > "$dir/watch"
check "a pipe gets lines" test "$(grep -c web1 "$dir/watch")" -ge 2
check "with one heading" test "$(grep -c '^TIME ' "$dir/watch")" -eq 1
check "and the time in each" test "$(grep -cvE '^(TIME |[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} )' "$dir/watch")" -eq 0
timeout 1 "$ctl" --socket "$sock" list --watch=0.3 --json > "$dir/watch"
check "--watch --json gives a document a line" quietly jq -es 'length >= 2 and all(.schema == 1)' "$dir/watch"

# --- explain: sentences in local time
run explain
check "explain has a line for each event" test "$(wc -l <<< "$out")" -eq 3
stamp=$(head -n 1 <<< "$out" | cut -c 1-19)
TZ=Asia/Kolkata run explain
there=$(head -n 1 <<< "$out" | cut -c 1-19)
# the fake reckons its times from each call
later=$(($(TZ=Asia/Kolkata date -d "$there" +%s) - $(date -d "$stamp" +%s)))
check "explain speaks local time" test "$later" -ge 0 -a "$later" -le 30 -a "$there" != "$stamp"

# --- metrics
run metrics
check "metrics end with EOF" test "$(tail -n 1 <<< "$out")" = "# EOF"
check "metrics are OpenMetrics" python3 "$here/openmetrics.py" "$dir/out"

# --- places
check "BALLAST_SOCKET is used" quietly env BALLAST_SOCKET="$sock" "$ctl" status
check "--socket wins over it" quietly env BALLAST_SOCKET=/none/such "$ctl" --socket "$sock" status
sock=/none/such/place exits 3 status
check "no daemon: 3, with place and mend" says \
  "cannot reach ballastd at /none/such/place: No such file or directory; is it running? (systemctl status ballastd)"
sock=$dir/stale
python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$sock"
check "nobody behind the socket: 3" exits 3 status
check "is said" says "Connection refused"
sock=$(printf 'x%.0s' {1..200})
check "a socket path that is too long: 3" exits 3 status
python3 - "$dir/rude" <<'PYTHON' &
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
s.settimeout(10)
c = s.accept()[0]
c.close()
PYTHON
for _ in {1..100}; do [ -S "$dir/rude" ] && break; sleep 0.05; done
sleep 0.2
sock=$dir/rude
check "hung up on: 3" exits 3 status
check "is said, with place and mend" says "$dir/rude"
wait $!
sock=$dir/ballast.sock

# --- who
if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
  as() { # GROUPS ARGUMENT...
    local groups=$1
    shift
    rc=0
    setpriv --reuid 65534 --regid 65534 "$groups" "$ctl" --socket "$sock" "$@" > "$dir/out" 2> "$dir/err" || rc=$?
    out=$(cat "$dir/out") err=$(cat "$dir/err")
  }
  install -m 755 "$ctl" "$dir/ballastctl"
  ctl=$dir/ballastctl
  as --clear-groups status
  check "a stranger is refused: 5" test "$rc" -eq 5
  check "and told why" says "group 'ballast'"
  kill "$daemon_pid"
  wait "$daemon_pid"
  start_fake 4242
  as --groups=4242 status
  check "the group may read" test "$rc" -eq 0
  as --groups=4242 act off
  check "the group may not change: 5" test "$rc" -eq 5
  check "and is told why" says "only root"
  chmod 600 "$sock"
  as --groups=4242 status
  check "no access to the socket: 5" test "$rc" -eq 5
  check "with the mend" says "try with sudo"
else
  echo "ok - users # SKIP not root"
fi

# --- enroll: speaks to libvirt; its test driver has a domain that is not QEMU's
if command -v virsh > /dev/null; then
  check "enroll: no such VM: 4" exits 4 enroll nix --connect test:///default
  check "and the mend" says "virsh list --all"
  check "enroll: not QEMU's: 6" exits 6 enroll test --connect test:///default
  check "enroll: no libvirt: 3" exits 3 enroll test --connect nonsense:///
  check "enroll: a channel that there is not: 2" exits 2 enroll test --connect test:///default --channel tcp
  check "and which there are" says "auto, vsock, virtio-serial and vhost-user-vsock"
  check "enroll: a channel and none: 2" exits 2 enroll test --connect test:///default --channel vsock --no-channel
  check "enroll: each channel is known" exits 6 enroll test --connect test:///default --channel vhost-user-vsock
  [ -e /dev/vhost-vsock ] || check "enroll: vsock that this host has not: 6" \
    exits 6 enroll test --connect test:///default --channel vsock
fi

# --- output that cannot be written
"$ctl" --socket "$sock" status > /dev/full 2> "$dir/err"
check "a full disk is an error" test $? -eq 1
