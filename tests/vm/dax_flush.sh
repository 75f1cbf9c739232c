# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# MAP_SYNC, and no flush of the device, on NVDIMMs. tests/boot/virtio_pmem.sh has the
# other half.
. "${0%/*}/lib.sh"

exec rdax-dax-test flush
