# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The bundled stress tests, all of them.
# timeout: 3600
. "${0%/*}/lib.sh"

rdax-stress --dir "$MNT" --seconds "${STRESS_SECONDS:-60}" --seed "${STRESS_SEED:-1}"
