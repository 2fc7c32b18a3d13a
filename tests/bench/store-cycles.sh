# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# store-cycles.sh: kill -9 of the store under guests that verify and rewrite their memory
# (part of bench-store-kill.sh and of tests/vm/test-store.sh).
#
#   cycles_guests NAME...                       makes them, squeezed into the store, churning
#   cycles_run CYCLES PAUSE_MS FILE NAME...     one line of JSON a kill
#   cycles_result FILE SECONDS NAME...          one JSON object

cycles_memory=224 # MiB a guest
cycles_churn=128  # of it verified and rewritten
cycles_leave=120  # what the squeeze leaves
cycles_hung=30    # seconds without a page verified

cycles_guests() { # NAME...
  local g
  for g in "$@"; do
    vm_define "$g" --memory $cycles_memory --autodeflate off
    vm_enroll_swap "$g" 256MiB --group churn
  done
  vm_start "$@"
  for g in "$@"; do until_true 60 swap_on "$g" || vm__die "$g does not swap: $(ballast_vm "$g" .store)" || return; done
  for g in "$@"; do
    vm_cmd "$g" "alloc w $cycles_churn fill=half" > /dev/null
    vm_virsh setmem "$g" ${cycles_leave}M --live
  done
  for g in "$@"; do
    until_true 60 cycles_squeezed "$g" || vm__die "$g is not squeezed: $(ballast_vm "$g" .store)" || return
    vm_cmd "$g" 'churn w' > /dev/null
  done
}
# a quarter of what it verifies is in the store
cycles_squeezed() { [ "$(store_vm "$1" .held)" -ge $((cycles_churn << 18)) ]; }

# pages that it has verified, and how many were wrong
cycles_churned() { # NAME
  local reply
  reply=$(vm_cmd "$1" 'status w' 10) || return
  sed -nE 's/.* churned=([0-9]+) wrong=([0-9]+).*/\1 \2/p' <<< "$reply"
}

cycles_io_errors() { # NAME: of this boot, on its console
  grep -cE 'I/O error|Read-error on swap|Write-error on swap' "$VM_DIR/con/$1.log" || true
}

cycles_run() { # CYCLES PAUSE_MS FILE NAME...
  local n=$1 pause=$2 file=$3 i g hung pages wrong row now
  local -A seen
  shift 3
  : > "$file"
  for g in "$@"; do seen[$g]=0; done
  for ((i = 1; i <= n; i++)); do
    sleep "$(printf '0.%03d' $((RANDOM % (pause < 1000 ? pause : 1000))))"
    ((pause <= 1000)) || sleep "$(printf '0.%03d' $((RANDOM % (pause - 1000))))"
    row=$("$BUILD/tests/bench/bench-store-kill" "$(store_control)" "$(store_main)") || true
    hung=0 wrong=0
    for g in "$@"; do
      now=$SECONDS
      while pages=$(cycles_churned "$g") || true; do
        if [ -n "$pages" ] && [ "${pages% *}" != "${seen[$g]}" ]; then break; fi
        if ((SECONDS - now > cycles_hung)); then
          hung=$((hung + 1))
          say "cycle $i: $g is hung: $(vm_virsh domstate "$g" --reason | tr '\n' ' ')"
          break
        fi
        sleep 0.02
      done
      seen[$g]=${pages% *}
      wrong=$((wrong + ${pages#* } + 0))
    done
    jq -c --argjson cycle $i --argjson hung $hung --argjson wrong $wrong '{cycle: $cycle, hung: $hung, wrong_pages: $wrong} + .' \
      <<< "${row:-null}" >> "$file"
    if ((i % 100 == 0)); then say "   $i kills"; fi
    ((hung == 0)) || return 0
  done
}

cycles_result() { # FILE SECONDS NAME...
  local file=$1 took=$2 g errors=0 churned=0 c
  shift 2
  for g in "$@"; do
    errors=$((errors + $(cycles_io_errors "$g")))
    c=$(cycles_churned "$g") || c='0 0'
    churned=$((churned + ${c% *}))
  done
  jq -s --argjson errors $errors --argjson guests $# --argjson churned $churned --argjson took "$took" \
    --argjson churn $(($# * (cycles_churn << 20))) --arg kernel "$(uname -r)" --arg cores "$(nproc)" \
    --arg accel "$(< "$VM_DIR/img/accel")" --arg qemu "$(qemu-system-x86_64 --version | awk 'NR == 1 { print $4 }')" '
    def pct(p): sort | if length == 0 then null else .[([(length * p | ceil) - 1, 0] | max)] end;
    {schema: 1, command: "make bench-store-kill", machine: {kernel: $kernel, cores: $cores, accel: $accel, qemu: $qemu},
     note: "held_share: of the memory that guests verify and rewrite, what the store held at the kill; in_flight: kills with a request under way in the last answer before; resume_s: from the kill to the first request that the next store has served; wrong_bytes: 4096 for each page that a guest found wrong",
     cycles: length, guests: $guests, seconds: $took, churn_bytes: $churn, pages_verified: $churned,
     in_flight: ([.[] | select(.oldest_request_us > 0)] | length),
     held_share: {min: ([.[].held | select(. != null)] | min / $churn), p50: ([.[].held | select(. != null)] | pct(0.5) / $churn)},
     below_quarter: ([.[] | select((.held // 0) < $churn / 4)] | length),
     wrong_bytes: (([.[].wrong_pages] | max // 0) * 4096), io_errors: $errors, hung: ([.[].hung] | add),
     not_served: ([.[] | select(.resume_us == null or .resume_us > 60000000)] | length),
     resume_s: {p50: ([.[].resume_us | select(. != null)] | pct(0.5) / 1e6), p99: ([.[].resume_us | select(. != null)] | pct(0.99) / 1e6),
       max: ([.[].resume_us | select(. != null)] | max / 1e6),
       at_most: (0.5 + 0.2 * ([.[].held | select(. != null)] | max) / 1073741824)},
     raw: .}' "$file"
}
