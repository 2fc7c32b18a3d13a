# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# lib.sh: a whole Debian, systemd as PID 1, on a kernel of its own, for tests.
#
#   . tests/fullsys/lib.sh
#   fs_boot DIR [--memory MIB] [--cpus N] [--cmdline TEXT] [--share PATH:TAG]...
#           [--port NAME:FILE]... [--disk SERIAL:MIB]... [--plain] [--timeout SECONDS]
#   fs_run 'shell command' [SECONDS]
#   fs_shutdown
#
# fs_boot     DIR is an empty directory for sockets and logs (DIR/console.log).
#             The project's directory is at its own path in the guest, read-only;
#             --share adds others at /mnt/TAG, read-only too.  --port adds a
#             virtio-serial port; what the guest writes to it goes to FILE.  --disk adds
#             an empty virtio disk; the guest has it when it loads virtio_blk.
#             --plain runs no systemd, only the kernel and a shell.  One guest at
#             a time.
# fs_run      runs the command in the guest's bash as root, prints what it
#             prints, returns its exit status; 124 when it takes longer (120 s),
#             125 when the guest does not answer any more.
# fs_shutdown ends the guest.  Leaving the shell that called fs_boot in any way
#             does it too: by traps on EXIT, INT, TERM and HUP, and by the kernel
#             if the shell is killed outright.  Traps that the caller has set stay;
#             its own EXIT trap calls fs_kill.
#
# Environment: FS_IMAGE  build/fullsys    FS_ACCEL  tcg or kvm; default: asked
#              of tests/vm/accel.sh       FS_VERBOSE=1  say what goes on

fs__here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FS_PROJECT=$(cd "$fs__here/../.." && pwd)
FS_IMAGE=${FS_IMAGE:-$FS_PROJECT/build/fullsys}
FS_DIR=
FS_PID=
FS_BOOT_SECONDS=
fs__to=
fs__from=

fs__say() {
  [[ -z ${FS_VERBOSE:-} ]] || echo "# fullsys: $*" >&2
}

fs__error() {
  echo "fullsys: $*" >&2
}

fs__accel() {
  local answer=${FS_ACCEL:-}
  # That /dev/kvm opens says little; accel.sh boots a guest on it, with a limit.
  [[ -n $answer ]] || answer=$(VM_ACCEL='' timeout 300 "$FS_PROJECT/tests/vm/accel.sh" 2>/dev/null) || answer=tcg
  [[ $answer == kvm ]] || answer=tcg
  echo "$answer"
}

fs__alive() {
  [[ -n $FS_PID ]] && kill -0 "$FS_PID" 2>/dev/null
}

# What the guest's console said last, for a failure's report.
fs__console_tail() {
  [[ -s $FS_DIR/console.log ]] || return 0
  echo "--- the guest's console, its last lines:" >&2
  tail -n 25 "$FS_DIR/console.log" | tr -d '\r\033' >&2
}

# fs_kill: ends QEMU at once.
fs_kill() {
  local i
  if fs__alive; then
    kill "$FS_PID" 2>/dev/null || true
    for ((i = 0; i < 50; i++)); do
      fs__alive || break
      sleep 0.1
    done
    kill -9 "$FS_PID" 2>/dev/null || true
  fi
  if [[ -n $FS_PID ]]; then
    wait "$FS_PID" 2>/dev/null || true
  fi
  FS_PID=
  [[ -z $fs__to ]] || exec {fs__to}>&-
  [[ -z $fs__from ]] || exec {fs__from}>&-
  fs__to='' fs__from=''
}

fs__traps() {
  [[ -n $(trap -p EXIT) ]] || trap fs_kill EXIT
  [[ -n $(trap -p HUP) ]] || trap 'exit 129' HUP
  [[ -n $(trap -p INT) ]] || trap 'exit 130' INT
  [[ -n $(trap -p TERM) ]] || trap 'exit 143' TERM
}

# One line of the guest's with the given id, within SECONDS: sets fs__status and
# fs__output.  Lines of earlier requests that nobody waited for are passed over.
fs__answer() { # ID SECONDS
  local line id deadline=$((SECONDS + $2 + 1)) part=
  fs__output=
  while ((SECONDS < deadline)); do
    # a second at a time, to see QEMU's end soon; what was read stays in `part`
    if IFS= read -r -t 1 -u "$fs__from" line; then
      line=$part$line
      part=
      read -r id fs__status fs__output <<<"$line"
      [[ $id != "@$1" ]] || return 0
    else
      part+=$line
      fs__alive || return 1
    fi
  done
  return 1
}

fs_boot() {
  local dir=$1 memory=512 cpus=1 cmdline='' plain='' limit=150 shares=() ports=() disks=() image kernel initrd
  local accel share port disk args n=0
  local begin=$SECONDS
  shift
  while (($# > 0)); do
    case $1 in
      --memory) memory=$2 && shift ;;
      --cpus) cpus=$2 && shift ;;
      --cmdline) cmdline+=" $2" && shift ;;
      --share) shares+=("$2") && shift ;;
      --port) ports+=("$2") && shift ;;
      --disk) disks+=("$2") && shift ;;
      --timeout) limit=$2 && shift ;;
      --plain) plain=1 ;;
      *)
        fs__error "fs_boot: what is '$1'?"
        return 2
        ;;
    esac
    shift
  done
  if fs__alive; then
    fs__error "fs_boot: there is a guest already"
    return 2
  fi
  mkdir -p "$dir"
  FS_DIR=$(cd "$dir" && pwd)
  image=$("$fs__here/build-image.sh" "$FS_IMAGE") || return 1
  read -r kernel initrd <<<"$image"
  accel=$(fs__accel)
  shares=("$FS_PROJECT:project" "${shares[@]}")

  rm -f "$FS_DIR"/cmd.in "$FS_DIR"/cmd.out
  mkfifo "$FS_DIR"/cmd.in "$FS_DIR"/cmd.out
  # read-write: opening waits for nobody, and neither end is ever seen to close
  exec {fs__to}<>"$FS_DIR/cmd.in" {fs__from}<>"$FS_DIR/cmd.out"

  args=(-nodefaults -no-user-config -no-reboot -name fullsys -display none -monitor none
    -machine pc -m "$memory" -smp "$cpus"
    -kernel "$kernel" -initrd "$initrd"
    -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off systemd.unified_cgroup_hierarchy=1 systemd.show_status=no${plain:+ fs.init=plain}$cmdline"
    -serial "file:$FS_DIR/console.log"
    -device virtio-rng-pci -device virtio-serial-pci -chardev "pipe,id=cmd,path=$FS_DIR/cmd"
    -device "virtserialport,chardev=cmd,name=fs.cmd"
    -virtfs "local,path=/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap")
  if [[ $accel == kvm ]]; then
    args+=(-accel kvm -cpu host)
  else
    args+=(-accel "tcg,thread=multi")
  fi
  for share in "${shares[@]}"; do
    args+=(-virtfs "local,path=${share%:*},mount_tag=${share##*:},security_model=none,readonly=on,multidevs=remap")
  done

  for port in "${ports[@]}"; do
    n=$((n + 1))
    args+=(-chardev "file,id=port$n,path=${port#*:}" -device "virtserialport,chardev=port$n,name=${port%%:*}")
  done
  for disk in "${disks[@]}"; do
    n=$((n + 1))
    rm -f "$FS_DIR/disk$n"
    truncate -s "${disk##*:}M" "$FS_DIR/disk$n"
    args+=(-drive "if=none,id=disk$n,file=$FS_DIR/disk$n,format=raw,cache=unsafe,discard=unmap"
      -device "virtio-blk-pci,drive=disk$n,serial=${disk%%:*}")
  done

  fs__traps
  # the kernel ends QEMU should this shell be killed before it can
  setpriv --pdeathsig KILL qemu-system-x86_64 "${args[@]}" </dev/null >"$FS_DIR/qemu.log" 2>&1 \
    {fs__to}>&- {fs__from}>&- &
  FS_PID=$!
  fs__say "QEMU is process $FS_PID, $accel, $memory MiB"

  if ! fs__answer up "$limit"; then
    fs__error "the guest did not come up in $limit s"
    cat "$FS_DIR/qemu.log" >&2
    fs__console_tail
    fs_kill
    return 1
  fi
  for share in "${shares[@]}"; do
    n=/mnt/${share##*:}
    [[ $share != "$FS_PROJECT:project" ]] || n=$FS_PROJECT
    if ! fs_run "mkdir -p '$n' && mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none,ro \
        '${share##*:}' '$n'" 30; then
      fs__error "the guest cannot mount $share"
      fs_kill
      return 1
    fi
  done
  # shellcheck disable=SC2034 # for the caller
  FS_BOOT_SECONDS=$((SECONDS - begin))
  fs__say "up after $FS_BOOT_SECONDS s"
}

fs_run() {
  local limit=${2:-120} id=${EPOCHREALTIME//[!0-9]/}$BASHPID fs__status fs__output
  if ! fs__alive; then
    fs__error "fs_run: no guest"
    return 125
  fi
  echo "$id $limit $(base64 -w0 <<<"$1")" >&"$fs__to"
  # `timeout` in the guest gives up by itself; the rest is for a slow machine
  if ! fs__answer "$id" $((limit + 30)); then
    if fs__alive; then
      fs__error "fs_run: no answer in $((limit + 30)) s to: $1"
    else
      fs__error "fs_run: the guest ended during: $1"
    fi
    fs__console_tail
    return 125
  fi
  base64 -d <<<"$fs__output"
  return "$fs__status"
}

fs_shutdown() {
  local i
  if fs__alive; then
    echo "shutdown 20 $(base64 -w0 <<<'sync; echo o >/proc/sysrq-trigger')" >&"$fs__to"
    for ((i = 0; i < 50; i++)); do
      fs__alive || break
      sleep 0.1
    done
  fi
  fs_kill
}
