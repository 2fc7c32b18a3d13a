#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# make install into a DESTDIR: everything arrives, paths in the units are the
# prefix's, an administrator's configuration is kept, uninstall leaves only that.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "not ok - $*"; exit 1; }

make -s install BUILD="$build" DESTDIR="$dir" prefix=/usr > "$dir/log" 2>&1 || { cat "$dir/log"; fail "make install"; }
for f in usr/sbin/ballastd usr/bin/ballastctl usr/sbin/ballast-agent usr/sbin/ballast-vsock etc/ballast/ballast.conf \
  usr/lib/systemd/system/ballastd.service usr/lib/systemd/system/ballast-agent.service \
  usr/lib/systemd/system/ballast-vsock.service usr/share/man/man8/ballast-vsock.8 usr/share/man/man7/ballast-protocol.7 \
  etc/dbus-1/system.d/org.ballast1.conf usr/share/man/man8/ballastd.8 usr/share/man/man1/ballastctl.1 \
  usr/share/bash-completion/completions/ballastctl; do
  [ -s "$dir/$f" ] || fail "$f is missing"
done
echo "ok - everything is installed"
"$dir/usr/sbin/ballastd" --version | grep -q '^ballastd [0-9]' || fail "installed ballastd does not run"
"$dir/usr/sbin/ballastd" --config "$dir/etc/ballast/ballast.conf" --check-config || fail "the shipped configuration is bad"
echo "ok - the shipped configuration is good"

make -s install BUILD="$build" DESTDIR="$dir/local" prefix=/opt/b > /dev/null
grep -q '^ExecStart=/opt/b/sbin/ballastd' "$dir/local/opt/b/lib/systemd/system/ballastd.service" || fail "prefix is not in the unit"
echo "ok - the units have the prefix's paths"

echo '# mine' >> "$dir/etc/ballast/ballast.conf"
make -s install BUILD="$build" DESTDIR="$dir" prefix=/usr > /dev/null
tail -1 "$dir/etc/ballast/ballast.conf" | grep -q '^# mine' || fail "the administrator's configuration was replaced"
[ -e "$dir/etc/ballast/ballast.conf.new" ] || fail "the shipped configuration is not beside it"
echo "ok - the administrator's configuration is kept"
make -s uninstall BUILD="$build" DESTDIR="$dir" prefix=/usr > /dev/null
left=$(cd "$dir" && find etc usr -type f | sort | tr '\n' ' ')
[ "$left" = "etc/ballast/ballast.conf " ] || fail "uninstall left: $left"
echo "ok - uninstall leaves the administrator's configuration only"
