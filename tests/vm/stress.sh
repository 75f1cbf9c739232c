# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The bundled stress tests, all of them.
# timeout: 3600
# order: first
. "${0%/*}/lib.sh"

# However little time there is, the volume has been full.
rdax-stress --dir "$MNT" --seconds 0 --only enospc
rdax-stress --dir "$MNT" --seconds "${STRESS_SECONDS:-60}" --seed "${STRESS_SEED:-1}"
