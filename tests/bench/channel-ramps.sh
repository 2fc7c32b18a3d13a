# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# channel-ramps.sh: a squeezed guest suddenly needs all of its memory (part of
# bench-channel.sh).
#
# Two guests, without autodeflate, swap and free page reporting, of which the host
# can carry one when the other leaves what it does not need. They take turns: one
# allocates at full speed to what its kernel leaves it, for which the other has to
# be squeezed, and frees it again. That memory is idle then, and resident on the
# host; nothing gives it back until the next turn, when the other one, squeezed, needs
# it. So each turn prepares the next, and Ballast does it all by itself.

# minFree is set, because 6 % of a host as small as this one is what a guest takes in
# a tenth of a second; RAMP_MIN_FREE=0 leaves it to Ballast.

# shellcheck disable=SC2154,SC2034 # raw, bench, stamper: bench-channel.sh
: "${RAMPS:=52}" # with a guest that was squeezed; at most twice as many turns
: "${RAMP_MIN_FREE:=256}" # MiB
: "${WITHOUT:=10}"       # the same with Ballast off
RAMP_GUESTS=(left right)
: "${RAMP_MIB:=640}"
RAMP_SLACK=$((40 << 20)) # above the floor of the one that is squeezed

available() { # GUEST: bytes
  local reply
  reply=$(vm_cmd "$1" meminfo)
  reply=${reply#* MemAvailable=}
  echo $((${reply%% *} << 10))
}

no_command_for() { # US GUEST...: since so long
  local from=$(($(now_us) - $1)) g
  shift
  for g in "$@"; do
    [ -z "$(vm_balloon_commands "$g" | awk -v m="$from" '$1 >= m')" ] || return 1
  done
}

# The first byte of the last start line of a guest, after FROM_US
ramp_start() { # GUEST FROM_US
  awk -v f="$2" -v file="$VM_DIR/con/$1.log" \
    '$1 >= f && $3 == file && $4 == "guestcmd:" && $6 == "ramp" && $NF == "start" { t = $1 } END { print t }' "$VM_DIR/stamps"
}

# The first command from START_US on that leaves the guest more than it had
first_gift() { # GUEST START_US HAD
  vm_balloon_commands "$1" | awk -v f="$2" -v had="$3" '$1 >= f && $2 > had && !n++ { print $1 }'
}

# One turn of a guest; a line of JSON
ramp() { # GUEST MIB
  local g=$1 had left reply ok=false from start='' first='' took
  had=$(vm_balloon_actual "$g")
  left=$(available "$g")
  from=$(now_us)
  if reply=$(vm_cmd "$g" "alloc ramp $2" 60); then ok=true; fi
  took=$(($(now_us) - from))
  sleep 0.1
  start=$(ramp_start "$g" "$from")
  [ -z "$start" ] || first=$(first_gift "$g" "$start" "$had")
  vm_cmd "$g" 'free ramp' > /dev/null || true
  jq -cn --arg guest "$g" --argjson had "$had" --argjson left "$left" --argjson want $(($2 << 20)) --argjson ok $ok \
    --argjson start "${start:-null}" --argjson first "${first:-null}" --argjson took $took --arg reply "$reply" \
    '{guest: $guest, balloon_bytes: $had, available_bytes: $left, alloc_bytes: $want,
      squeezed: ($left + 67108864 < $want), start_us: $start, first_command_us: $first, took_us: $took, ok: $ok, reply: $reply}'
}

ramp_ooms() {
  local g sum=0
  for g in "${RAMP_GUESTS[@]}"; do sum=$((sum + $(vm_oom_kills "$g"))); done
  echo $sum
}

squeezed_to() { [ "$(vm_balloon_actual "$1")" -le "$2" ]; }

# settled_use: the host's, when it has been the same for three seconds
settled_use() {
  local last=0 now same=0 i
  for ((i = 0; i < 30 && same < 3; i++)); do
    sleep 1
    now=$(ballast_status .budget.used)
    if ((now > last - (8 << 20) && now < last + (8 << 20))); then same=$((same + 1)); else same=0; fi
    last=$now
  done
  echo "$last"
}

# ramp_budget SQUEEZED: the host carries this one near its floor and the other one full.
# Done by hand once, and measured: what a page costs the host depends on what is
# behind it. The guest is left like that, held.
ramp_budget() {
  local target
  target=$(($(ballast_vm "$1" .floor) + RAMP_SLACK))
  ctl balloon "$1" --leave "$target" > /dev/null
  until_true 20 squeezed_to "$1" $((target + (4 << 20))) || vm__die "$1 cannot be squeezed to $((target >> 20)) MiB"
  # the goal is a sixteenth above minFree, which is 6 % of a budget below 4 GiB unless set
  awk -v u="$(settled_use)" -v m="$RAMP_MIN_FREE" \
    'BEGIN { printf "%.0f", m ? u + m * 1048576 * 17 / 16 : u / (1 - 0.06 * 17 / 16) }'
}

floors_known() {
  local g
  for g in "${RAMP_GUESTS[@]}"; do [ "$(ballast_vm "$g" .floor)" -gt 0 ] || return 1; done
}

# Squeezed by hand to what they had before with Ballast, and left to themselves
ramps_without() { # MIB TARGET_BYTES
  local i g
  for ((i = 0; i < WITHOUT; i++)); do
    g=${RAMP_GUESTS[i % 2]}
    vm_virsh setmem "$g" $(($2 >> 10)) --live
    until_true 10 squeezed_to "$g" $(($2 + (4 << 20))) || say "$g is not squeezed"
    ramp "$g" "$1"
  done
}
part_ramps() {
  local g i mib logs=() channel ooms median budget settings
  env_begin
  for g in "${RAMP_GUESTS[@]}"; do
    vm_define "$g" --memory "$RAMP_MIB" --vsock --autodeflate off --free-page-reporting off
  done
  vm_start "${RAMP_GUESTS[@]}"
  mib=$(($(available "${RAMP_GUESTS[0]}") / 1048576 - 24))
  touched_and_freed $mib "${RAMP_GUESTS[@]}"
  for g in "${RAMP_GUESTS[@]}"; do logs+=("$VM_DIR/con/$g.log"); done
  "$bench" stamp "${logs[@]}" > "$VM_DIR/stamps" &
  stamper=$!

  ballast_start budget=8G stats_period=1s act=yes
  until_true 20 ballast_knows "${RAMP_GUESTS[@]}" || vm__die "ballastd does not see the guests"
  for g in "${RAMP_GUESTS[@]}"; do
    until_true 30 channel_is "$g" "$(vm_vsock_transport)" || say "the agent of $g does not come by vsock"
  done
  until_true 10 floors_known || vm__die "no floor is known"
  channel=$(channel_of "${RAMP_GUESTS[0]}")
  budget=$(ramp_budget "${RAMP_GUESTS[0]}")
  settings=(budget="$budget" stats_period=1s act=yes)
  if ((RAMP_MIN_FREE)); then settings+=(min_free="${RAMP_MIN_FREE}M"); fi
  ballast_reload "${settings[@]}"
  sleep 0.5
  ctl release "${RAMP_GUESTS[0]}" > /dev/null
  ooms=$(ramp_ooms)
  : > "$raw/ramps.lines"
  for ((i = 0; i < 2 * RAMPS && $(grep -c '"squeezed":true' "$raw/ramps.lines") < RAMPS; i++)); do
    g=${RAMP_GUESTS[i % 2]}
    # what was freed is reported, and what was promised is forgotten
    sleep 2.5
    until_true 6 no_command_for 1500000 "${RAMP_GUESTS[@]}" || true
    ramp "$g" $mib | tee -a "$raw/ramps.lines" >&2
  done
  ooms=$(($(ramp_ooms) - ooms))
  cp "$VM_DIR/ballast/log" "$raw/ramps.log"
  for g in "${RAMP_GUESTS[@]}"; do cp "$VM_LOG/$g.log" "$raw/ramps-$g.log"; done
  jq -s --argjson ooms $ooms --arg channel "$channel" --argjson budget "$budget" --argjson mib "$RAMP_MIB" \
    --argjson free "$(ballast_status .marks.clear)" \
    '{ramps: ., oom_kills: $ooms, channel: $channel, guest_bytes: ($mib * 1048576),
      budget_bytes: $budget, min_free_bytes: $free}' \
    "$raw/ramps.lines" > "$raw/ramps-with.json"

  median=$(jq '[.ramps[] | select(.squeezed) | .balloon_bytes] | sort | .[length / 2 | floor] // 0' "$raw/ramps-with.json")
  if [ "$median" = 0 ]; then median=$((RAMP_MIB << 19)); fi
  say "without Ballast, at $((median >> 20)) MiB"
  ballast_stop
  for g in "${RAMP_GUESTS[@]}"; do vm_cmd "$g" 'agent stop' > /dev/null; done
  ooms=$(ramp_ooms)
  ramps_without $mib "$median" > "$raw/without.lines"
  ooms=$(($(ramp_ooms) - ooms))
  jq -s --argjson ooms $ooms --slurpfile with "$raw/ramps-with.json" \
    '$with[0] + {without: {ramps: ., oom_kills: $ooms}}' "$raw/without.lines" > "$raw/ramps.json"
  env_end
}
