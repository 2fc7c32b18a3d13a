#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The system bus with the shipped policy, and ballastctl over it.
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

if [ "$(id -u)" -ne 0 ] || ! command -v dbus-daemon > /dev/null || ! command -v setpriv > /dev/null; then
  echo "ok - system bus # SKIP needs root, dbus-daemon and setpriv"
  exit 0
fi
if [ -S /run/ballast/ballast.sock ]; then
  echo "ok - system bus # SKIP a ballastd runs here"
  exit 0
fi

# the group of the policy need not exist here: another, that does, stands in
sed 's/group="ballast"/group="nogroup"/' systemd/org.ballast1.conf > "$dir/policy.conf"
cat > "$dir/bus.conf" <<CONF
<busconfig>
  <type>system</type>
  <listen>unix:path=$dir/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>$dir/policy.conf</include>
</busconfig>
CONF
dbus-daemon --config-file="$dir/bus.conf" --nofork --nopidfile 2> "$dir/bus.err" &
bus_pid=$!
trap 'kill $bus_pid; finish' EXIT
for _ in {1..100}; do [ -S "$dir/bus" ] && break; sleep 0.05; done
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/bus
install -m 755 "$ctl" "$dir/ballastctl"

# as USER GROUP ARGUMENT...: without a socket, so over the bus
as() {
  local who=(--reuid "$1" --regid "$2" --clear-groups)
  shift 2
  rc=0
  setpriv "${who[@]}" "$dir/ballastctl" "$@" > "$dir/out" 2> "$dir/err" || rc=$?
  out=$(cat "$dir/out") err=$(cat "$dir/err")
}

as 0 0 status
check "nobody there: 3" test "$rc" -eq 3

start_fake 65534
for _ in {1..100}; do
  busctl --address="$DBUS_SYSTEM_BUS_ADDRESS" status org.ballast1 > /dev/null 2>&1 && break
  sleep 0.05
done
as 0 0 status
check "root may read" test "$rc" -eq 0
check "over the system bus" prints "the system bus"
as 0 0 act off
check "root may change" test "$rc" -eq 0
as 65534 65534 list
check "the group may read" test "$rc" -eq 0
as 65534 65534 act on
check "the group may not change: 5" test "$rc" -eq 5
check "and is told in plain words" says "only root may change"
as 65534 1234 list
check "a stranger may not read: 5" test "$rc" -eq 5
check "introspection names the signal" grep -q HostStateChanged \
  <(busctl --address="$DBUS_SYSTEM_BUS_ADDRESS" introspect org.ballast1 /org/ballast1)
check "the policy is well-formed" test -z "$(grep -v 'fd limit\|Rejected send' "$dir/bus.err")"
