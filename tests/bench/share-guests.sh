# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# share-guests.sh: the guests of a set, with real programs (part of bench-share.sh).
#
#   guests_up SET          makes, starts and fills them; sets guests, shared, own_data
#   guest_fill NAME...     what a started guest is to hold; returns when it holds it
#   guests_merge on|off NAME...   QEMU's run-time property, as the monitor sets it
#   guests_used            what they take of the host: Pss and memfds, bytes

# name, MiB, program of tests/images/load, its seed, MiB of its data, part of the userland
# that is read (all but every Nth file, another one in each guest), images; of a private one
# the kernel that it runs, where that is not the one of all others.
#
# dense: eight servers of one image.  herd: two pairs of replicas of larger ones, which beside
# their own userland have read that of another image, as hosts of containers do; and four that
# are full of data of their own, as databases are (transparent huge pages off, as those want
# it), with two other kernels, as on a mixed host.  A kernel alone is some 45 MiB that all who run it have
# in common: herd_same has one for all.  KSM looks at guests in the order of their start, so
# they are mixed.
# shellcheck disable=SC2034 # by name
set_dense='
  kv-a   512 redis     1 70 6 bookworm
  web-a  512 nginx     2 60 6 bookworm
  db-a   512 sqlite    3 60 6 bookworm
  table  512 table     4 45 6 bookworm
  kv-b   512 redis     5 70 6 bookworm
  web-b  512 nginx     6 60 6 bookworm
  words  512 perl      7 35 6 bookworm
  cache  512 memcached 8 70 6 bookworm
'
# shellcheck disable=SC2034
set_herd='
  web-a 1024 nginx   1 100 20 bookworm trixie
  own-a  768 private 0 660 0 linux-image-rt-amd64
  db-a  1024 sqlite  2  80 20 bookworm trixie
  own-b  768 private 0 660 0 linux-image-amd64
  web-b 1024 nginx   1 100 20 bookworm trixie
  own-c  768 private 0 660 0 linux-image-rt-amd64
  db-b  1024 sqlite  2  80 20 bookworm trixie
  own-d  768 private 0 660 0 linux-image-amd64
'
# shellcheck disable=SC2034,SC2001
set_herd_same=$(sed "s/ linux-image.*//" <<< "$set_herd")
# of dense: who comes late, and who measures how fast it can touch its memory
late_guest=web-b
late_replica=web-a
late_out=()
touch_guest=kv-a
share_metadata="<ballast:memory xmlns:ballast='urn:org.ballast1:vm:1' sharing='group' group='bench'/>"

: "${bench:?where programs are}" "${here:?}"

guests=() shared=() own_data=()
declare -A row

disk_xml() { # FILE TARGET
  echo "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$1'/><target dev='$2' bus='virtio'/><readonly/></disk>"
}

# A disk that holds a program, as tar does: /dev/vdb of one guest
tool_disk() {
  "${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -O2 -static -o "$VM_DIR/img/share-touch" "$here/bench/bench-share-touch.c"
  tar -C "$VM_DIR/img" -cf "$VM_DIR/img/tools.tar" share-touch
  echo "$VM_DIR/img/tools.tar"
}

# other_kernel NAME PACKAGE: a guest that is defined, and has not run, gets the kernel that PACKAGE
# stands for
other_kernel() {
  local out=$VM_IMAGE-$2 package='' kernel initrd xml=$VM_DIR/img/$1.xml
  [ -e "$out/kernel/done" ] || package=$(apt-cache depends "$2" | awk '$1 == "Depends:" && !n++ { print $2 }')
  read -r kernel initrd < <(VM_KERNEL_PACKAGE=$package "$VM_HERE/build-image.sh" "$out")
  # copies, as libvirt changes the owner of what it gives to QEMU
  cp "$kernel" "$VM_DIR/img/$2.vmlinuz"
  cp "$initrd" "$VM_DIR/img/$2.initrd"
  sed -i -e "s|img/vmlinuz<|img/$2.vmlinuz<|" -e "s|img/initrd<|img/$2.initrd<|" "$xml"
  vm_virsh undefine "$1" > /dev/null
  vm_virsh define "$xml" > /dev/null
}

guests_define() {
  local g mib kind images options n at=0
  for g in "${guests[@]}"; do
    read -r mib kind _ _ _ images <<< "${row[$g]}"
    options=(--memory "$mib" --metadata "$share_metadata")
    n=a
    if [ "$kind" = private ]; then
      vm_define "$g" "${options[@]}" --cmdline transparent_hugepage=never
      [ -z "$images" ] || other_kernel "$g" "$images"
      continue
    fi
    for at in $images; do
      options+=(--devices "$(disk_xml "$("$here/images/build.sh" "$at")" "vd$n")")
      n=$(tr a-y b-z <<< "$n")
    done
    [ "$set_name/$g" != "dense/$touch_guest" ] || options+=(--devices "$(disk_xml "$(tool_disk)" "vd$n")")
    vm_define "$g" "${options[@]}"
  done
}

guests_up() { # SET
  local list=set_$1 g rest begun=$SECONDS
  set_name=$1 guests=() shared=() own_data=() row=()
  while read -r g rest; do
    [ -n "$g" ] || continue
    guests+=("$g")
    row[$g]=$rest
    if [[ $rest == *' private '* ]]; then own_data+=("$g"); else shared+=("$g"); fi
  done <<< "${!list}"
  guests_define
  # one by one: the order is the one in which KSM looks at them
  for g in "${guests[@]}"; do vm_virsh start "$g" > /dev/null; done
  for g in "${guests[@]}"; do vm_wait "$g"; done
  guest_fill "${guests[@]}"
  say "   $1: ${#guests[@]} guests are up ($((SECONDS - begun)) s)"
}

loaded() { # NAME: its program is full; looks seldom, as a look takes a guest 20 ms
  local state end=$((SECONDS + 300))
  while ((SECONDS < end)); do
    state=$(vm_cmd "$1" 'sh cat /r/run/load' 60) || return
    case $state in
      'ok ready') return ;;
      'ok failed'*) vm_cmd "$1" 'sh tail -n 3 /r/tmp/load.log' >&2 && return 1 ;;
    esac
    sleep 2
  done
  vm__die "$1 is not loaded after 300 s"
}

guest_begin() { # NAME: its program begins to fill
  local kind seed mib images
  read -r _ kind seed mib _ images <<< "${row[$1]}"
  if [ "$kind" = private ]; then
    vm_cmd "$1" "alloc w $mib" 180 > /dev/null
  else
    vm_cmd "$1" 'sh mkdir /r /t && mount -o ro -t ext4 /dev/vda /r' > /dev/null
    [[ $images != *' '* ]] || vm_cmd "$1" 'sh mount -o ro -t ext4 /dev/vdb /t' > /dev/null
    vm_cmd "$1" "sh sh /r/load/enter $kind $seed $mib" > /dev/null
  fi
}

guest_end() { # NAME: it is full; then what it has of the userland in its page cache
  local nth part
  read -r _ _ _ _ nth _ <<< "${row[$1]}"
  ((nth > 0)) || return 0
  loaded "$1" || return
  part=$(($(cksum <<< "$1" | cut -d' ' -f1) % nth))
  vm_cmd "$1" "sh find /r /t -xdev -type f | sort | awk \"NR % $nth != $part\" | tr '\\n' '\\0' | xargs -0 cat > /dev/null" 300 > /dev/null || vm__die "$1 cannot read its userland"
}

each() { # FUNCTION NAME...: all at once
  local f=$1 g pid pids=() status=0
  shift
  for g in "$@"; do
    "$f" "$g" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || status=1; done
  return $status
}

guest_fill() { # NAME...
  each guest_begin "$@"
  each guest_end "$@"
}

guests_merge() { # on|off NAME...
  local value g answer
  case $1 in on) value=true ;; *) value=false ;; esac
  shift
  for g in "$@"; do
    answer=$(vm_virsh qemu-monitor-command "$g" '{"execute":"qom-set","arguments":{"path":"/objects/pc.ram","property":"merge","value":'$value'}}')
    [ "$(jq '.return == {}' <<< "$answer")" = true ] || { echo "bench-share: $g: $answer" >&2 && return 1; }
  done
}

pids_of() { # NAME...
  local g
  for g in "$@"; do vm_pid "$g"; done
}
guest_options() { # NAME...: of bench-share-watch
  local pid
  for pid in $(pids_of "$@"); do printf -- '--guest %s ' "$pid"; done
}

guests_used() {
  # shellcheck disable=SC2046 # words
  "$bench/bench-share-watch" --limit 0 $(guest_options "${guests[@]}") -- true | jq .used_before
}

# Until they take the same memory, give or take 2 MiB, for 3 s; guests that are not idle, never
guests_settle() {
  local before now i
  before=$(guests_used)
  for ((i = 0; i < 8; i++)); do
    sleep 3
    now=$(guests_used)
    ((now - before > 2097152 || before - now > 2097152)) || return 0
    before=$now
  done
  say "   the guests' memory still changes"
}

guests_paused() { # COMMAND...
  local g status=0
  for g in "${guests[@]}"; do vm_virsh suspend "$g" > /dev/null; done
  # what their disks had been asked for arrives still
  sleep 1
  "$@" || status=$?
  for g in "${guests[@]}"; do vm_virsh resume "$g" > /dev/null; done
  return $status
}
