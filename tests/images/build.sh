#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build.sh NAME: a userland with real programs, as a read-only disk for test guests.
#
#   bookworm   redis, nginx, python3, perl, sqlite3, memcached, sshd
#   trixie     valkey, lighttpd, ruby, php, node, tcl
#
# Made by debootstrap from Debian's archive once (remove build/images/NAME.root to
# renew) and kept in build/images: NAME.img (ext4, which the guests' kernel has built
# in) and NAME.txt (packages and versions).  load/ is put in as /load: how a guest
# starts one of the programs, see load/enter.  Prints the path of the disk.
#
# Guests boot kernel and initrd of tests/vm; guestcmd stays their PID 1:
#     vm_define g1 --disk "$(tests/images/build.sh bookworm)"
#     vm_cmd g1 'sh mkdir /r && mount -o ro /dev/vda /r && sh /r/load/enter redis 1 80'
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${IMAGES:-$here/../../build/images}
mirror=http://deb.debian.org/debian
name=${1:?usage: build.sh bookworm|trixie}
case $name in
  bookworm) packages=redis-server,nginx-light,python3,perl,sqlite3,memcached,openssh-server ;;
  trixie) packages=valkey-server,lighttpd,ruby,php-cli,nodejs,tcl,perl ;;
  *) echo "build.sh: no image $name" >&2 && exit 2 ;;
esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
exec 9> "$out/.$name.lock"
flock 9

if [ ! -e "$out/$name.root/.done" ]; then
  command -v debootstrap > /dev/null || { apt-get install -y -q --no-install-recommends debootstrap >&2; }
  rm -rf --one-file-system "$out/$name.root"
  debootstrap --variant=minbase --include="$packages" "$name" "$out/$name.root" "$mirror" > "$out/$name.log" 2>&1 ||
    { tail -n 20 "$out/$name.log" >&2 && exit 1; }
  # what no program reads
  rm -rf "$out/$name.root"/var/{cache/apt,lib/apt/lists}/* "$out/$name.root"/usr/share/{locale,man,info}/*
  touch "$out/$name.root/.done"
fi
root=$out/$name.root
if [ ! -e "$out/$name.img" ] || [ -n "$(find "$here" "$root/.done" -newer "$out/$name.img")" ]; then
  rm -rf "$root/load"
  cp -r "$here/load" "$root/load"
  size=$(du -sm --apparent-size "$root" | awk '{ print int($1 * 1.25) + 32 }')
  rm -f "$out/$name.tmp"
  mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$root" "$out/$name.tmp" "${size}M" >> "$out/$name.log" 2>&1
  dpkg-query --admindir="$root/var/lib/dpkg" -W > "$out/$name.txt"
  mv "$out/$name.tmp" "$out/$name.img"
fi
echo "$out/$name.img"
