# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# System calls that sync what a mapping has dirtied, and those that do not.
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
mkdir other
must mount -t rdax "$PMEM1" other
export OTHER_MNT=$PWD/other
rdax-dax-test calls
must umount other
