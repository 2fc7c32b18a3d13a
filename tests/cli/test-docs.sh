#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# --help, the bash completion and the man pages must say the same.
set -u
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$top" || exit 1

# what --help of ballastctl, or of a command, lists
commands() { "$ctl" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\).*/\1/p'; }
options() { "$ctl" "$@" --help | sed -n '/^Options:/,/^$/s/^  \(--[a-z-]*\).*/\1/p'; }
global_options() { "$ctl" "$@" --help | sed -n '/^Options, for every/,/^$/s/^  \(--[a-z-]*\).*/\1/p'; }

# what Tab gives after the words
# shellcheck source=systemd/ballastctl.bash-completion
. systemd/ballastctl.bash-completion
completes() {
  COMP_WORDS=(ballastctl "$@")
  COMP_CWORD=$#
  _ballastctl
  printf '%s\n' "${COMPREPLY[@]}"
}

# what the man page has: commands and their options, and the options of all
man=daemon/ctl/ballastctl.1.scd
man_commands() { sed -n '/^# COMMANDS/,/^# OPTIONS/s/^\*\([a-z]*\)\*.*/\1/p' $man; }
man_options() {
  sed -n '/^# COMMANDS/,/^# OPTIONS/p' $man | sed -n "/^\\*$1\\*/,/^\\*/p" | sed -n 's/^\t\*\(--[a-z-]*\)\*.*/\1/p'
}
man_global_options() { sed -n '/^# OPTIONS/,/^# ENVIRONMENT/s/^\*\(--[a-z-]*\)\*.*/\1/p' $man; }

# same NAME A B: equal as sets
same() {
  local a b
  a=$(grep . <<< "$1" | sort -u) b=$(grep . <<< "$2" | sort -u)
  [ "$a" = "$b" ] && return
  diff <(echo "$a") <(echo "$b") | sed 's/^/# /'
  return 1
}

all=$(commands)
globals=$(global_options)
check "there are commands" test "$(wc -l <<< "$all")" -ge 15
check "the completion has all commands" same "$all" "$(completes '')"
check "the man page has all commands, in the order of --help" test "$all" = "$(man_commands)"
check "the man page has the options of every command" same "$globals" "$(man_global_options)"
check "the completion has them" same "$globals" "$(completes --)"

for c in $all; do
  own=$(options "$c")
  check "$c: its help has the options of every command" same "$globals" "$(global_options "$c")"
  check "$c: the completion has its options" same "$own"$'\n'"$globals" "$own"$'\n'"$(completes "$c" --)"
  check "$c: and no others" same "$own"$'\n'"$globals" "$globals"$'\n'"$(completes "$c" --)"
  check "$c: the man page has its options" same "$own" "$(man_options "$c")"
  check "$c: its help fits into 80 columns" test "$("$ctl" "$c" --help | wc -L)" -le 80
  check "$c: what it does is said as in the list" grep -qF -- "$("$ctl" "$c" --help | sed -n '3s/\.$//p')" \
    <("$ctl" --help)
done
check "--help fits into 80 columns" test "$("$ctl" --help | wc -L)" -le 80
check "--version" grep -qE '^ballastctl [0-9]+\.[0-9]+\.[0-9]+$' <("$ctl" --version)
check "completion of values" same $'high\nlow\nnormal' "$(completes set web1 --shares '')"
check "completion of tiers" same $'rollback\nsetup' "$(completes tiers '')"
check "completion of its kinds" same $'swapfile\nzram\nzswap' "$(completes tiers setup '')"
check "completion of share" same $'resume' "$(completes share '')"
check "completion of act" same $'off\non' "$(completes act o)"

# every exit code of ctl.h is in the man page
mapfile -t codes < <(sed -n 's/^ *CTL_[A-Z_]* = \([0-9]*\),.*/\1/p' daemon/ctl/ctl.h)
check "there are exit codes" test "${#codes[@]}" -ge 7
for code in "${codes[@]}"; do
  check "exit status $code is documented" grep -qx "\\*$code\\*" <(sed -n '/^# EXIT STATUS/,/^# EXAMPLES/p' $man)
done

# the interface and its man page; names from the source of the interface
page=daemon/bus/org.ballast1.5.scd
mapfile -t names < <(sed -n 's/^ *SD_BUS_\(METHOD\|SIGNAL\|PROPERTY\)[A-Z_]*("\([A-Za-z]*\)".*/\2/p' daemon/bus/vtable.c)
check "there are names" test "${#names[@]}" -ge 22
for name in "${names[@]}"; do
  check "org.ballast1: $name is documented" grep -qE "\\*$name\\*(\\(| [a-z])" $page
done
for name in $(sed -n 's/.*BL_BUS_ERROR_PREFIX "\([A-Za-z]*\)".*/\1/p' daemon/bus/errors.c | sort -u) Failed; do
  check "org.ballast1: error $name is documented" grep -q "^\\*.*\\*\\?$name\\*" $page
done
# and the bus's policy: what reads, and nothing else, is for the group
reads=$(grep -oE '\{"[A-Za-z]*", \.read' daemon/bus/methods.c | cut -d '"' -f 2)
check "the policy lets the group read, and read only" same "$reads" \
  "$(sed -n 's/.*interface="org.ballast1.Manager" send_member="\([A-Za-z]*\)".*/\1/p' systemd/org.ballast1.conf)"

# the daemon: its options, and the message ids
if [ -x "$build/ballastd" ]; then
  check "ballastd(8) has the options of ballastd --help" same \
    "$("$build/ballastd" --help | sed -n 's/^  \(--[a-z-]*\).*/\1/p')" \
    "$(sed -n '/^# OPTIONS/,/^# SIGNALS/s/^\*\(--[a-z-]*\)\*.*/\1/p' daemon/ballastd.8.scd)"
else
  echo "ok - ballastd(8) # SKIP ballastd is not built"
fi
if [ -e daemon/log.c ]; then
  check "ballastd(8) has all message ids" same "$(grep -oE '"[0-9a-f]{32}"' daemon/log.c | tr -d '"')" \
    "$(grep -oE '\*[0-9a-f]{32}\*' daemon/ballastd.8.scd | tr -d '*')"
fi

# the fields of the fake's documents, which the contract names, are in the page on them
# shellcheck disable=SC2119
start_fake
for c in status list "show web1" tiers share plan explain config; do
  read -ra words <<< "$c"
  run "${words[@]}" --json
  missing=
  for f in $(jq -r '[paths | map(select(type == "string"))[]] | unique | .[]' <<< "$out"); do
    grep -qE "\\*$f\\*" daemon/ctl/ballastctl-json.7.scd || missing="$missing $f"
  done
  check "ballastctl-json(7) has the fields of '$c':$missing" test -z "$missing"
done

if command -v scdoc > /dev/null; then
  for m in daemon/*.scd daemon/*/*.scd; do
    check "$m is good" bash -c "scdoc < '$m' > /dev/null"
  done
fi
