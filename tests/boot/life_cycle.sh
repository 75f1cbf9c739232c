# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Every two events in the life of a mount against each other, under load, for a while; first those
# that found removal of the device under the feet of a mount, and a fault in a chunk that was being
# given back.
# order: first
. "${0%/*}/lib.sh"

races() { "$TOP/tests/races/run" --kernel "$KERNEL" "$@"; }

races --seconds 30 --pair unmount,unbind --pair mount,unbind --pair mount,rebind
races --seconds 30 --pair unmount,eviction --pair syncfs,eviction
races --seconds 45 --seed "${STRESS_SEED:-1}"
