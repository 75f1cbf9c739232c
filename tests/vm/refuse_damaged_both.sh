# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# With both superblocks damaged the mount is refused and the device not touched.
# volume: none
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
must python3 "${0%/*}/superblock.py" "$PMEM1" both damage
remember "$PMEM1"
mark_log
mount_refused EUCLEAN -t rdax "$PMEM1" "$MNT"
log_says "${PMEM1##*/}: .*superblock.*fsck.rdax"
unchanged "$PMEM1" refused
