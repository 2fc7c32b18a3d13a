# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# guest.sh: what the test scripts have in common.  They run inside the guest;
# started on the host, one hands itself to run.sh, which boots a guest for it.
#
#   ok NAME / not_ok NAME [WHY] / skip NAME WHY      a line of TAP
#   check NAME COMMAND...        ok when the command succeeds; shows its output if not
#   wait_for SECONDS COMMAND...  until it succeeds, looking every 0.2 s
#   finish                       last: non-zero status when something failed

if [[ ! -e /run/fullsys/command ]]; then
  exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" "$0"
fi

tools=/mnt/fullsys/bin
installed=/mnt/fullsys/root
export PATH=$PATH:$tools
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

ok() {
  echo "ok - $1"
}

not_ok() {
  echo "not ok - $1${2:+: $2}"
  failed=$((failed + 1))
}

skip() {
  echo "ok - $1 # SKIP $2"
}

check() {
  local name=$1
  shift
  if "$@" >"$work/check" 2>&1; then
    ok "$name"
  else
    not_ok "$name"
    sed 's/^/# /' "$work/check"
  fi
}

wait_for() {
  local limit=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < limit)) || return 1
    sleep 0.2
  done
}

# Shows a file as TAP comments: for after a failure.
show() {
  local f
  for f; do
    echo "# --- $f"
    tail -n 30 "$f" 2>/dev/null | sed 's/^/# /'
  done
}

finish() {
  [[ $failed -eq 0 ]]
  exit
}

# Puts what `make install` made where it belongs, once a boot, and tells whoever
# reads it.  Fails when there is no ballastd to install yet.
install_ballast() {
  local f
  [[ ! -e /run/fullsys/installed ]] || return 0
  [[ -n $(find "$installed" -name ballastd -type f 2>/dev/null) ]] || return 1
  cp -a --no-preserve=ownership "$installed/." /
  for f in "$installed"/usr/lib/sysusers.d/*.conf "$installed"/usr/local/lib/sysusers.d/*.conf; do
    [[ ! -e $f ]] || systemd-sysusers "$f"
  done
  for f in "$installed"/usr/lib/tmpfiles.d/*.conf "$installed"/usr/local/lib/tmpfiles.d/*.conf; do
    [[ ! -e $f ]] || systemd-tmpfiles --create "$f"
  done
  systemctl daemon-reload
  busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
  : >/run/fullsys/installed
}

# One of a unit's properties, as `systemctl show` has it.
property() { # UNIT NAME
  systemctl show --value -p "$2" "$1"
}

# Still active, with that main process.
still() { # UNIT PID
  [[ $2 != 0 && $(property "$1" MainPID),$(property "$1" ActiveState) == "$2,active" ]]
}

# A jq expression over the document that ballastctl prints.
ctl_is() { # "COMMAND ARGS..." JQ-EXPRESSION
  # shellcheck disable=SC2086 # a command in words
  ballastctl $1 --json >"$work/document" && [[ -s $work/document ]] && jq -e "$2" "$work/document"
}

# A jq expression over the array of a unit's journal entries since boot.
journal() { # UNIT JQ-EXPRESSION
  journalctl -b -u "$1" -o json --no-pager | jq -s -e "$2"
}

# How many lines a unit's programs have said since boot.
journal_lines() { # UNIT
  journalctl -b -q -u "$1" _TRANSPORT=stdout -o cat --no-pager | wc -l
}

# The last of a unit's journal as TAP comments, if something failed.
show_journal_if_failed() { # UNIT
  [[ $failed == 0 ]] || journalctl -b -u "$1" --no-pager | tail -n 60 | sed 's/^/# /'
}

# Memory pressure without want: a cgroup held to 32 MiB whose program wants 96,
# so that it waits.  Ends by itself after a minute.
start_hog() {
  systemd-run -q --collect --unit=fullsys-hog.service -p MemoryHigh=32M "$(type -P memory-hog)" 96 60
}

stop_hog() {
  systemctl stop fullsys-hog.service 2>/dev/null || true
}

# The processes that the kernel's OOM killer ended since boot.
oom_kills() {
  awk '$1 == "oom_kill" { print $2 }' /proc/vmstat
}
