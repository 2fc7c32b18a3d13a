#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The policy may need nothing but memory, strings and integer formatting from
# libc: no clock, file, locale, environment, random number or thread.
set -euo pipefail
cd "$(dirname "$0")/../.."
lib=${BUILD:-build}/libpolicy.a
allowed='^(malloc|calloc|realloc|reallocarray|free|mem(cpy|set|cmp|move)|str(cmp|len|ncmp|dup|chr)|v?snprintf|qsort|bsearch|abort|__(memcpy|memset|memmove|v?snprintf)_chk|__stack_chk_fail|__assert_fail|_GLOBAL_OFFSET_TABLE_)$'

defined=$(nm --defined-only "$lib" | awk 'NF == 3 { print $3 }' | sort -u)
undefined=$(nm --undefined-only "$lib" | awk '$1 == "U" { print $2 }' | sort -u)
bad=$(comm -23 <(printf '%s\n' "$undefined") <(printf '%s\n' "$defined") | grep -vE "$allowed" || true)
if [ -n "$bad" ]; then
  echo "not ok - policy needs: $(tr '\n' ' ' <<< "$bad")"
  exit 1
fi
echo "ok - policy needs libc's memory and strings only ($(wc -l <<< "$undefined") symbols looked at)"

# and the check can fail: a library that asks for the time is seen
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '#include <time.h>\ntime_t f(void);\ntime_t f(void) { return time(0); }\n' > "$dir/t.c"
cc -c -o "$dir/t.o" "$dir/t.c"
if nm --undefined-only "$dir/t.o" | awk '$1 == "U" { print $2 }' | grep -vqE "$allowed"; then
  echo "ok - a call of time() would be seen"
else
  echo "not ok - a call of time() is not seen"
  exit 1
fi
