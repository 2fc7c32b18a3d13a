# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# store-capture.sh: page sets from real guests' swap (part of bench-store.sh).
#
# A guest of a Debian image (tests/images) runs a program that fills some 60 MiB, gets
# a swap disk (a sparse file), and is squeezed by balloon as Ballast would squeeze it.
# What its swap holds then is its part of a set.  Guests run four at a time.
#
#   capture_sets     makes what is not in $pagesets yet
#   set_files SET    the files of a set, one a VM
#
# What is made once is used again; remove build/pagesets to make it anew.

: "${images:?tests/images/build.sh}" "${pageset:?bench-pageset}"
pagesets=$BUILD/pagesets
capture_memory=256 # MiB a guest
capture_leave=92   # MiB that the squeeze leaves it

# name image program seed MiB [left]: the same seed is the same data, as replicas of a service have;
# left: MiB that the squeeze leaves it, where it is not $capture_leave
capture_guests='
  redis-a   bookworm redis     1 56
  redis-b   bookworm redis     1 56
  redis-c   bookworm redis     1 56
  web-a     bookworm nginx     2 70
  web-b     bookworm nginx     2 70
  web-c     bookworm nginx     2 70
  db-a      bookworm sqlite    4 60
  db-b      bookworm sqlite    4 60
  table-a   bookworm table     5 48
  table-b   bookworm table     5 48
  index-a   bookworm index     3 12
  cache     bookworm memcached 7 60
  redis-d   bookworm redis     6 56
  ruby      trixie   ruby      8 26
  node      trixie   node      9 26
  php       trixie   php       10 20
  small-kv  bookworm redis     11 2 56
  small-py1 bookworm table     12 2 56
  small-py2 bookworm table     13 2 56
  small-web bookworm nginx     14 2 56
'
# What is in which set, which decides what can be shared: no figure of a set means anything
# without it.  similar4: two pairs of replicas.  similar12 is what a small service is made
# of: replicas of a key-value server, of web servers and of a database, two workers of one
# kind, one of another, a cache.  one_pair4: one pair of replicas and two others.
# different4: one image, four programs, nothing replicated.  small4: four programs with next
# to no data of their own, two of them the same, squeezed hard.
# shellcheck disable=SC2034 # by name
set_similar4='redis-a redis-b web-a web-b'
# shellcheck disable=SC2034
set_similar12='redis-a redis-b redis-c web-a web-b web-c db-a db-b table-a table-b index-a cache'
# shellcheck disable=SC2034
set_one_pair4='redis-a redis-b web-a table-a'
# shellcheck disable=SC2034
set_different4='redis-a table-a index-a web-a'
# shellcheck disable=SC2034
set_small4='small-kv small-py1 small-py2 small-web'
all_sets='similar4 similar12 mixed unique one_pair4 different4 small4'
# shellcheck disable=SC2034
set_mixed='redis-d db-a ruby node php'
set_unique='redis-d cache ruby php' # less what occurs twice

capture_loaded() { # NAME: its program is full, or has failed
  local state
  state=$(vm_cmd "$1" 'sh cat /r/run/load' 20) || return
  [[ $state == 'ok ready' || $state == 'ok failed'* ]]
}
capture_rests() { # NAME: its balloon has not moved by 1 MiB for 4 s
  local before now
  before=$(vm_balloon_actual "$1")
  sleep 4
  now=$(vm_balloon_actual "$1")
  ((before - now < (1 << 20)))
}

capture_group() { # NAME...
  local g image kind seed mib left file begun=$SECONDS n oom
  declare -A row
  while read -r g image kind seed mib left; do [ -z "$g" ] || row[$g]="$image $kind $seed $mib ${left:-$capture_leave}"; done <<< "$capture_guests"
  env_begin
  for g in "$@"; do
    read -r image kind seed mib left <<< "${row[$g]}"
    file=$VM_DIR/img/$g.swap
    truncate -s 384M "$file"
    vm_define "$g" --memory $capture_memory --disk "$("$images" "$image")" --devices \
      "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe' discard='unmap'/>
       <source file='$file'/><target dev='vdb' bus='virtio'/><serial>ballast-swap</serial></disk>"
  done
  vm_start "$@"
  for g in "$@"; do
    read -r image kind seed mib left <<< "${row[$g]}"
    vm_cmd "$g" 'sh echo 0 > /sys/block/vdb/queue/rotational; mkswap /dev/vdb && swapon -d /dev/vdb' > /dev/null
    vm_cmd "$g" "sh mkdir /r && mount -o ro -t ext4 /dev/vda /r && sh /r/load/enter $kind $seed $mib" > /dev/null
  done
  for g in "$@"; do
    until_true 240 capture_loaded "$g"
    [ "$(vm_cmd "$g" 'sh cat /r/run/load')" = 'ok ready' ] || { vm_cmd "$g" 'sh tail -n 3 /r/tmp/load.log' >&2; return 1; }
  done
  for g in "$@"; do
    read -r image kind seed mib left <<< "${row[$g]}"
    vm_virsh setmem "$g" "${left}M" --live
  done
  sleep 5
  for g in "$@"; do
    until_true 120 capture_rests "$g" || say "$g: its balloon still moves"
    oom=$(vm_oom_kills "$g")
    vm_virsh suspend "$g"
    n=$("$pageset" pack "$pagesets/vms/$g.pages.tmp" "$VM_DIR/img/$g.swap")
    read -r image kind seed mib left <<< "${row[$g]}"
    jq -n --arg vm "$g" --arg image "$image" --arg program "$kind" --arg seed "$seed" --arg mib "$mib" \
      --arg kernel "$(sed 's/^linux-image-//' "$VM_IMAGE/kernel/done")" --arg pages "$n" \
      --arg memory "$capture_memory" --arg actual "$(vm_balloon_actual "$g")" --arg oom "$oom" \
      '{vm: $vm, image: $image, program: $program, seed: ($seed | tonumber), data_mib: ($mib | tonumber), guest_kernel: $kernel,
        memory_mib: ($memory | tonumber), squeezed_to_mib: (($actual | tonumber) / 1048576), pages: ($pages | tonumber),
        oom_kills: ($oom | tonumber), captured: (now | todate)}' > "$pagesets/vms/$g.json"
    mv "$pagesets/vms/$g.pages.tmp" "$pagesets/vms/$g.pages"
    say "   $g: $n pages ($((SECONDS - begun)) s)"
  done
  env_end
}

# set_files SET: the files of its VMs
set_files() {
  local dir=vms vm list=set_$1
  [ "$1" != unique ] || dir=unique
  for vm in ${!list}; do echo "$pagesets/$dir/$vm.pages"; done
}

capture_sets() {
  local g group=() rest=()
  mkdir -p "$pagesets/vms" "$pagesets/unique"
  while read -r g _; do
    if [ -n "$g" ] && [ ! -e "$pagesets/vms/$g.pages" ]; then rest+=("$g"); fi
  done <<< "$capture_guests"
  while ((${#rest[@]})); do
    group=("${rest[@]:0:4}") rest=("${rest[@]:4}")
    capture_group "${group[@]}"
  done
  # shellcheck disable=SC2046,SC2086 # lists of names
  "$pageset" unique "$pagesets/unique" $(printf "$pagesets/vms/%s.pages " $set_unique) > /dev/null
  for g in $all_sets; do
    local list=set_$g
    # shellcheck disable=SC2046,SC2086
    { cat $(printf "$pagesets/vms/%s.json " ${!list}) && "$pageset" stat $(set_files $g); } |
      jq -s --arg set $g '{set: $set, vms: .[:-1]} + .[-1]
        + (if $set == "unique" then {note: "every page that occurs a second time in the four guests was left out"} else {} end)' \
      > "$pagesets/$g.json"
  done
}
