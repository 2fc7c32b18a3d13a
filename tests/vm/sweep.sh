#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sweep.sh DIR...: ends environments whose owner did not. The reaper runs it when
# a test was killed outright; by hand it ends what VM_KEEP=1 kept.
set -euo pipefail

# shellcheck source=lib.sh source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

for dir; do
  vm_env_stop_one "$dir"
done
