# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-env.sh: private libvirtd environments (part of lib.sh).
#
# One environment is one directory DIR and one mount namespace, in which
# DIR/{etc,run,lib,cache,log} lie over /etc/libvirt, /run/libvirt, /var/lib/libvirt
# and so on (launch.sh). All files are reachable from outside under DIR; the mounts
# exist only inside and vanish with the last process: there is nothing to unmount.

# Environments started by this shell, in order; vm_env_stop empties it.
VM_ENVS=()

# vm_env_use DIR: makes a running environment the current one of this shell.
# Exports VM_DIR, VM_URI, VM_RUN (NAME.pid files), VM_LOG (NAME.log files).
vm_env_use() {
  [[ -e $1/.ballast-vm ]] || vm__die "$1 is no environment" || return
  VM_DIR=$1
  VM_URI="qemu+unix:///system?socket=$1/run/libvirt-sock"
  VM_RUN=$1/run/qemu
  VM_LOG=$1/log/qemu
  export VM_DIR VM_URI VM_RUN VM_LOG
}

# vm_env_start DIR [--hugepages]
# DIR is made, or is an empty directory (mktemp -d). --hugepages: mounts a hugetlbfs
# in the namespace; the pages themselves (vm.nr_hugepages) are the caller's matter.
# The environment ends with the shell that started it, however that ends; with
# VM_KEEP=1 it stays until sweep.sh DIR (vm_env_use DIR joins it).
vm_env_start() {
  local dir=$1 huge=none kernel initrd shell=$BASHPID
  shift
  while (($# > 0)); do
    case $1 in
      --hugepages) huge=$dir/huge && shift ;;
      *) vm__die "vm_env_start: unknown option $1" || return ;;
    esac
  done
  ((EUID == 0)) || vm__die "must be root" || return
  # The longest socket is DIR/lib/qemu/channel/target/domain-NN-NAME/org.ballast.agent.0,
  # of at most 107 bytes, but libvirt binds it by its short name /var/lib/...
  ((${#dir} <= 60)) && [[ $dir == /* ]] || vm__die "$dir: not a short absolute path" || return
  mkdir -p "$dir"
  [[ -z $(ls -A "$dir") ]] || vm__die "$dir is not empty" || return
  VM_ENVS+=("$dir")
  : >"$dir/.ballast-vm"
  # Whose end is the environment's end (see reaper.c): this shell, or nobody's
  [[ -z ${VM_KEEP:-} ]] || shell=0
  echo "$shell" >"$dir/owner"
  vm_env_use "$dir"

  mkdir -p "$dir"/{etc/qemu,run,lib,cache,log,img,s,con,huge}
  # QEMU is not root: it must be able to walk down to the kernel and the sockets
  chmod 0711 "$dir"
  chown libvirt-qemu "$dir"/{s,con}
  # A copy, because libvirt changes the owner of the files it gives to QEMU
  read -r kernel initrd < <("$VM_HERE/build-image.sh" "$VM_IMAGE")
  cp "$kernel" "$dir/img/vmlinuz"
  cp "$initrd" "$dir/img/initrd"
  "$VM_HERE/accel.sh" >"$dir/img/accel"
  vm__write_config "$dir" "$huge"
  vm__load_capabilities "$dir"
  # Debian's own empty directory; made by tmpfiles.d where systemd runs
  mkdir -p /run/libvirt
  vm__launch "$dir" "$huge"
}

vm__write_config() { # DIR HUGE
  local dir=$1 huge=$2
  cat >"$dir/etc/libvirtd.conf" <<-CONF
	unix_sock_dir = "$dir/run"
	unix_sock_rw_perms = "0700"
	auth_unix_ro = "none"
	auth_unix_rw = "none"
	host_uuid = "$(</proc/sys/kernel/random/uuid)"
	log_outputs = "3:file:$dir/log/libvirtd.log"
	listen_tls = 0
	listen_tcp = 0
	CONF
  # All the rest is as Debian ships it: user libvirt-qemu, seccomp sandbox, a
  # mount namespace per guest. cgroups are off: these machines have the v1
  # hierarchy, where two libvirtd would put guests of one name and id into the
  # same group and each would manage (and remove) the other's.
  cat >"$dir/etc/qemu.conf" <<-CONF
	stdio_handler = "file"
	cgroup_controllers = []
	hugetlbfs_mount = [ $([[ $huge == none ]] || echo "\"$huge\"") ]
	CONF
  echo "$huge" >"$dir/hugemount"
}

# Starts libvirtd in a namespace of its own and waits until it answers.
vm__launch() { # DIR HUGE
  local dir=$1 huge=$2 i
  vm__drivers "$dir"
  # 9>&-: no lock of the caller may live on in libvirtd or QEMU
  LIBVIRT_DRIVER_DIR="$dir/drivers" setsid \
    "$VM_IMAGE/reaper" "$(<"$dir/owner")" "$VM_HERE/sweep.sh" "$dir" \
    unshare --mount --propagation private -- "$VM_HERE/launch.sh" "$dir" "$huge" \
    libvirtd -f "$dir/etc/libvirtd.conf" -p "$dir/libvirtd.pid" >>"$dir/log/libvirtd.out" 2>&1 </dev/null 9>&- &
  disown
  for ((i = 0; i < 150; i++)); do
    if [[ -S $dir/run/libvirt-sock ]] && timeout 10 virsh -q -c "$VM_URI" uri >/dev/null 2>&1; then
      return
    fi
    ((i < 20)) || vm__libvirtd_pid "$dir" >/dev/null || break # it gave up
    sleep 0.1
  done
  tail -n 20 "$dir/log/libvirtd.out" "$dir/log/libvirtd.log" >&2 || true
  vm__die "libvirtd does not answer in $dir"
}

# What libvirt found out about QEMU is handed on to later environments: the probe
# takes seconds. libvirt checks itself whether such a file is still true.
vm__load_capabilities() { # DIR
  mkdir -p "$1/cache/qemu/capabilities"
  cp "$VM_IMAGE"/capabilities/*.xml "$1/cache/qemu/capabilities/" 2>/dev/null || true
}

vm__save_capabilities() { # DIR
  local file
  mkdir -p "$VM_IMAGE/capabilities"
  for file in "$1"/cache/qemu/capabilities/*.xml; do
    [[ ! -e $file ]] || cp "$file" "$VM_IMAGE/capabilities/.tmp.$$" || continue
    mv "$VM_IMAGE/capabilities/.tmp.$$" "$VM_IMAGE/capabilities/${file##*/}" 2>/dev/null || true
  done
}

# Only the QEMU driver: the network driver would write to the host's firewall,
# node devices and the rest cost start-up time.
vm__drivers() { # DIR
  local lib
  for lib in /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so \
    /usr/lib64/libvirt/connection-driver/libvirt_driver_qemu.so; do
    [[ ! -e $lib ]] || { mkdir -p "$1/drivers" && ln -sf "$lib" "$1/drivers/"; }
  done
}

# All processes of an environment (libvirtd, QEMU, helpers), by the one thing they
# share and nobody else has: their /run/libvirt is our DIR/run. And the reaper,
# what it has started that has not come that far yet, and Ballast (lib-ballast.sh).
vm__env_pids() { # DIR
  local proc
  for proc in /proc/[0-9]*; do
    # "if" and not &&: a process may end while we look
    if [[ $proc/root/run/libvirt -ef $1/run ]]; then
      echo "${proc#/proc/}"
    fi
  done
  pgrep -f "/launch\\.sh $1 | --(config|control) $1/ballast/|^nbdkit .* dir=$1/ballast/" || true
}

vm__libvirtd_pid() { # DIR
  local pid
  pid=$(cat "$1/libvirtd.pid" 2>/dev/null) || return
  [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == libvirtd ]] || return
  [[ /proc/$pid/root/run/libvirt -ef $1/run ]] || return
  echo "$pid"
}

vm__wait_gone() { # PID TENTHS
  local i
  for ((i = 0; i < $2; i++)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

# vm_env_kill_libvirtd: kill -9; guests live on.
vm_env_kill_libvirtd() {
  local pid
  pid=$(vm__libvirtd_pid "$VM_DIR") || vm__die "no libvirtd in $VM_DIR" || return
  kill -9 "$pid"
  vm__wait_gone "$pid" 50
}

# vm_env_restart_libvirtd: stops it if it runs, starts it again.
vm_env_restart_libvirtd() {
  local pid
  if pid=$(vm__libvirtd_pid "$VM_DIR"); then
    kill "$pid"
    vm__wait_gone "$pid" 100 || kill -9 "$pid"
  fi
  rm -f "$VM_DIR/run/libvirt-sock"
  vm__launch "$VM_DIR" "$(<"$VM_DIR/hugemount")"
}

# vm_env_stop_one DIR: ends one environment and removes DIR
vm_env_stop_one() {
  local dir=$1 pid pids i
  if [[ ! -e $dir/.ballast-vm ]]; then
    rmdir "$dir" 2>/dev/null || true # interrupted before it was ours
    return 0
  fi
  if pid=$(vm__libvirtd_pid "$dir"); then
    kill "$pid" 2>/dev/null || true
    vm__wait_gone "$pid" 30 || true
  fi
  vm__save_capabilities "$dir"
  # Guests are not asked: nothing of them is to be kept, and this works whatever
  # state libvirtd is in.
  for ((i = 0; i < 200; i++)); do
    pids=$(vm__env_pids "$dir")
    [[ -n $pids ]] || break
    for pid in $pids; do
      # The reaper has to outlive the others, and ends by itself
      [[ $(cat "/proc/$pid/comm" 2>/dev/null) == vm-reaper ]] || kill -9 "$pid" 2>/dev/null || true
    done
    sleep 0.05
  done
  [[ -z $pids ]] || vm__die "processes in $dir do not end: ${pids//$'\n'/ }" || return
  # the store's pool is memory that no process has (lib-ballast.sh)
  [[ ! -e $dir/ballast/store.remove ]] || sh "$dir/ballast/store.remove" >&2 || return
  rm -rf --one-file-system "$dir"
}

# vm_env_stop: ends all environments this shell started. May be called again, from
# a trap, and half-way through vm_env_start.
vm_env_stop() {
  local dir rest=() status=0
  for dir in "${VM_ENVS[@]}"; do
    vm_env_stop_one "$dir" || { status=1 && rest+=("$dir"); }
  done
  VM_ENVS=("${rest[@]}")
  return "$status"
}

# vm_env_trap: vm_env_stop on exit and on signals, after running what is in
# VM_ON_EXIT. Call it before vm_env_start. A signal handler that returns would let
# the script go on without its guests, so signals are turned into exits.
vm_env_trap() {
  trap 'eval "${VM_ON_EXIT:-:}"; vm_env_stop' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}
