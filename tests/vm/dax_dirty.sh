# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A page stays dirty until it is written back, whatever happens to its mappings.
. "${0%/*}/lib.sh"

# A device that answers half a second late.
must modprobe null_blk nr_devices=1 irqmode=2 completion_nsec=500000000
export SLOW_DEVICE=/dev/nullb0
rdax-dax-test dirty
must rmmod null_blk
