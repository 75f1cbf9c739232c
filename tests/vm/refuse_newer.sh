# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Another version of the format and unknown features are refused; where only writing is impossible, a read-only
# mount works, and writes nothing either.
# volume: none
. "${0%/*}/lib.sh"

for change in version=4 version=6 version=0xffffffff incompat=1 incompat=0x8000000000000000; do
	must mkfs.rdax -q -f "$PMEM1"
	must python3 "${0%/*}/superblock.py" "$PMEM1" both "$change"
	remember "$PMEM1"
	for options in rw ro; do
		mark_log
		mount_refused EINVAL -t rdax -o $options "$PMEM1" "$MNT"
		log_says "${PMEM1##*/}: .*(not supported|newer)"
	done
	unchanged "$PMEM1" "refused, $change"
done

must mkfs.rdax -q -f "$PMEM1"
must python3 "${0%/*}/superblock.py" "$PMEM1" both ro_compat=4
remember "$PMEM1"
mark_log
# mount(8) tries again read-only after EROFS, unless it is told not to.
mount_refused EROFS -w -t rdax "$PMEM1" "$MNT"
log_says "${PMEM1##*/}: .*read-only"
must mount -t rdax -o ro "$PMEM1" "$MNT"
must ls "$MNT"
mount_refused EROFS -o remount,rw "$MNT"
must umount "$MNT"
unchanged "$PMEM1" "mounted read-only"

must mkfs.rdax -q -f "$PMEM1"
must python3 "${0%/*}/superblock.py" "$PMEM1" both compat=8
must mount -t rdax "$PMEM1" "$MNT"
must touch "$MNT/file"
must umount "$MNT"
