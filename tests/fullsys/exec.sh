#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# /fs-exec in the guest: runs the commands that fs_run (lib.sh) sends down the
# virtio port "fs.cmd".  A request is one line, "ID SECONDS COMMAND", an answer
# one line too, "@ID STATUS OUTPUT"; COMMAND and OUTPUT are in base64.  What a
# command leaves running stays, also when it holds the output open.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8
port=
for p in /sys/class/virtio-ports/*; do
  [[ $(<"$p/name") != fs.cmd ]] || port=/dev/${p##*/}
done
[[ -n $port ]] || exit 1
mkdir -p /run/fullsys
out=/run/fullsys/output
exec 3<>"$port"
read -r up _ </proc/uptime
echo "@up 0 $(base64 -w0 <<<"$up")" >&3
while read -r id limit command <&3; do
  rc=0
  base64 -d <<<"$command" >/run/fullsys/command
  cd /
  timeout -k 5 "$limit" bash /run/fullsys/command </dev/null >"$out" 2>&1 3>&- || rc=$?
  # the port takes what it can get: half a MiB is plenty for a test's output
  echo "@$id $rc $(tail -c 524288 "$out" | base64 -w0)" >&3
  rm -f "$out"
done
