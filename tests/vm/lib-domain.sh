# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-domain.sh: define, start and command guests (part of lib.sh).

# vm_virsh ARGS...: virsh in the current environment
vm_virsh() {
  virsh -q -c "$VM_URI" "$@"
}

# vm_define NAME [options]
#   --memory MIB (256)        --current MIB: initial balloon target (memory)
#   --vcpus N (1)             --no-agent: no org.ballast.agent.0 channel
#   --no-balloon              --autodeflate on|off (on)
#   --free-page-reporting on|off (on)        --stats-period SECONDS
#   --memfd: private memfd    --memfd-shared  --hugepages  --locked
#   --metadata XML            --disk FILE: read-only raw virtio disk (/dev/vda)
#   --devices XML             --domain XML: more elements below <domain>
#   --cmdline TEXT            --no-trace     --uuid UUID
#   --machine pc|q35 (pc)
#   --vsock: as vm_vsock_transport says; where that is Ballast's own, private memfd
#     and channel='vhost-user-vsock' in the metadata (also in that of --metadata)
vm_define() {
  local name=$1
  shift
  vm__xml "$name" "$@" >"$VM_DIR/img/$name.xml" || return
  vm_virsh define "$VM_DIR/img/$name.xml" >/dev/null
}

vm__xml() {
  local name=$1 memory=256 current='' vcpus=1 agent=1 balloon=1 autodeflate=on reporting=on period=''
  local source='' access='' huge='' locked='' metadata='' devices='' domain='' cmdline='' trace=1 uuid=''
  local machine=pc vsock=0
  shift
  while (($# > 0)); do
    case $1 in
      --memory) memory=$2 && shift ;;
      --current) current=$2 && shift ;;
      --vcpus) vcpus=$2 && shift ;;
      --no-agent) agent=0 ;;
      --no-balloon) balloon=0 ;;
      --autodeflate) autodeflate=$2 && shift ;;
      --free-page-reporting) reporting=$2 && shift ;;
      --stats-period) period=$2 && shift ;;
      --memfd) source="<source type='memfd'/>" access="<access mode='private'/>" ;;
      --memfd-shared) source="<source type='memfd'/>" access="<access mode='shared'/>" ;;
      --hugepages) huge='<hugepages/>' ;;
      --locked) locked='<locked/>' ;;
      --metadata) metadata=$2 && shift ;;
      --machine) machine=$2 && shift ;;
      --vsock) vsock=1 ;;
      --devices) devices+=$2 && shift ;;
      --domain) domain+=$2 && shift ;;
      --cmdline) cmdline=" $2" && shift ;;
      --no-trace) trace=0 ;;
      --uuid) uuid="<uuid>$2</uuid>" && shift ;;
      --disk)
        devices+="<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        devices+="<source file='$2'/><target dev='vda' bus='virtio'/><readonly/></disk>"
        shift
        ;;
      *) vm__die "vm_define: unknown option $1" || return ;;
    esac
    shift
  done
  if ((vsock)) && [[ $(vm_vsock_transport) == vhost-vsock ]]; then
    devices+="<vsock model='virtio'><cid auto='yes'/></vsock>"
  elif ((vsock)); then
    source="<source type='memfd'/>" access="<access mode='private'/>"
    [[ $metadata == *'<ballast:memory '* ]] || metadata+="<ballast:memory xmlns:ballast='urn:org.ballast1:vm:1' />"
    metadata=${metadata/<ballast:memory /<ballast:memory channel=\'vhost-user-vsock\' }
  fi
  # Nehalem: under TCG it boots and works faster than "max", and a named model can
  # be migrated
  local type=qemu cpu="<cpu mode='custom' match='exact' check='none'><model>Nehalem</model></cpu>" features="<tcg><tb-cache unit='MiB'>64</tb-cache></tcg>"
  if [[ $(<"$VM_DIR/img/accel") == kvm ]]; then
    type=kvm cpu="<cpu mode='host-passthrough'/>" features=''
  fi
  local balloon_xml="<memballoon model='none'/>" channel='' traces='' event
  if ((balloon)); then
    balloon_xml="<memballoon model='virtio' autodeflate='$autodeflate' freePageReporting='$reporting'>"
    [[ -z $period ]] || balloon_xml+="<stats period='$period'/>"
    balloon_xml+="</memballoon>"
  fi
  if ((agent)); then
    # No path: libvirt chooses one, as on any host
    channel="<channel type='unix'><target type='virtio' name='org.ballast.agent.0'/></channel>"
  fi
  if ((trace)); then
    # One line a balloon command and one a MiB that the guest moves: bounded
    # by what happens. handle_qmp_command would also log every query libvirt
    # makes, and whole replies' worth of JSON.
    for event in virtio_balloon_to_target virtio_balloon_set_config; do
      traces+="<qemu:arg value='-trace'/><qemu:arg value='$event'/>"
    done
  fi
  cat <<-XML
	<domain type='$type' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
	  <name>$name</name>$uuid
	  <metadata>$metadata</metadata>
	  <memory unit='MiB'>$memory</memory>
	  <currentMemory unit='MiB'>${current:-$memory}</currentMemory>
	  <memoryBacking>$huge$locked$source$access</memoryBacking>
	  <vcpu>$vcpus</vcpu>
	  <os>
	    <type arch='x86_64' machine='$machine'>hvm</type>
	    <kernel>$VM_DIR/img/vmlinuz</kernel>
	    <initrd>$VM_DIR/img/initrd</initrd>
	    <cmdline>console=ttyS0 quiet mitigations=off audit=0 i8042.noaux cryptomgr.notests$cmdline</cmdline>
	  </os>
	  <features><acpi/>$features</features>
	  $cpu
	  <clock offset='utc'><timer name='hpet' present='no'/></clock>
	  <on_crash>preserve</on_crash>
	  $domain
	  <devices>
	    <emulator>/usr/bin/qemu-system-x86_64</emulator>
	    <controller type='usb' model='none'/>
	    <serial type='file'>
	      <source path='$VM_DIR/con/$name.log' append='on'/><target port='0'/>
	    </serial>
	    <serial type='unix'>
	      <source mode='bind' path='$VM_DIR/s/$name'/>
	      <log file='$VM_DIR/con/$name.cmd.log' append='on'/><target port='1'/>
	    </serial>
	    $channel$balloon_xml$devices
	  </devices>
	  <qemu:commandline>$traces</qemu:commandline>
	</domain>
	XML
}

# vm_vsock_transport: how the agent of a guest with --vsock reaches the host here
vm_vsock_transport() {
  if [[ -c /dev/vhost-vsock ]]; then echo vhost-vsock; else echo vhost-user-vsock; fi
}

# vm_start NAME...: in parallel, then waits until each guest answers
vm_start() {
  local name pids=() pid status=0
  for name in "$@"; do
    vm_virsh start "$name" >/dev/null &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || status=1
  done
  ((status == 0)) || vm__die "start failed" || return
  for name in "$@"; do
    vm_wait "$name" || return
  done
}

# vm_wait NAME [SECONDS]: until the command channel answers
vm_wait() {
  local name=$1 limit=${2:-$VM_BOOT_LIMIT} end
  end=$((SECONDS + limit))
  # Short tries: what is sent before the guest listens is lost
  while ! vm_cmd "$name" ping 0.3 >/dev/null 2>&1; do
    if ((SECONDS >= end)); then
      tail -n 5 "$VM_DIR/con/$name.log" >&2 || true
      vm__die "$name does not answer after $limit s" || return
    fi
    vm_pid "$name" >/dev/null || return
  done
}

# vm_cmd NAME COMMAND [SECONDS]: prints the reply ("ok ..." or "error ...");
# status 0 ok, 1 error, 2 no connection, 124 time limit
vm_cmd() {
  local name=$1 command=$2 limit=${3:-$VM_CMD_LIMIT}
  # QEMU serves one client at a time: wait for our turn where it can be seen.
  # In the background, because bash runs a trap at once in "wait", but only
  # after a command in the foreground.
  flock -o -w "$limit" "$VM_DIR/s/$name.lock" \
    "$VM_IMAGE/guestcall" "$VM_DIR/s/$name" "$limit" "$command" &
  wait "$!"
}

# vm_pid NAME: QEMU's pid
vm_pid() {
  local pid
  pid=$(cat "$VM_RUN/$1.pid" 2>/dev/null) && [[ -d /proc/$pid ]] || vm__die "$1 does not run" || return
  echo "$pid"
}

vm_destroy() {
  vm_virsh destroy "$1" >/dev/null
}

# vm_assert_confined NAME: QEMU runs as Debian's libvirt runs it
vm_assert_confined() {
  local pid uid status
  pid=$(vm_pid "$1") || return
  uid=$(id -u libvirt-qemu)
  status=$(<"/proc/$pid/status")
  [[ $status =~ Uid:[[:space:]]*${uid}[[:space:]]*${uid}[[:space:]]*${uid}[[:space:]]*${uid}[[:space:]] ]] ||
    vm__die "$1 (pid $pid) does not run as libvirt-qemu: $(grep Uid: <<<"$status")" || return
  [[ $status =~ Seccomp:[[:space:]]*2 ]] ||
    vm__die "$1 (pid $pid) has no seccomp filter: $(grep Seccomp: <<<"$status")" || return
}

# vm_migrate NAME DIR [virsh migrate options]: live, from the current environment
# to DIR, which then is the current one. The other side gets files of its own:
# both run on one machine, and a socket cannot be bound twice.
vm_migrate() {
  local name=$1 to=$2 uri="qemu+unix:///system?socket=$2/run/libvirt-sock"
  shift 2
  vm_virsh dumpxml "$name" --migratable | sed "s|$VM_DIR/|$to/|g" >"$to/img/$name.xml" || return
  vm_virsh migrate "$name" --live --desturi "$uri" --migrateuri "unix:$to/s/$name.migration" \
    --xml "$to/img/$name.xml" "$@" || return
  vm_env_use "$to"
}
