# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device that is mounted can be mounted in a second place, as the same volume, but not with other
# options; it is not overwritten, nor given to fsck.
# volume: none
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
mkdir second
for options in ro dax=always errors=panic; do
	mark_log
	mount_refused EBUSY -t rdax -o $options "$PMEM1" second
	log_says "${PMEM1##*/}: .*mounted already"
done
for options in rw dax=inode,errors=remount-ro; do
	must mount -t rdax -o $options "$PMEM1" second
	echo $options >"$MNT/file"
	same "the file in the second place" $options "$(cat second/file)"
	must umount second
done
must mount -o remount,dax=never "$MNT"
mount_refused EBUSY -t rdax -o dax=inode "$PMEM1" second
must mount -t rdax "$PMEM1" second
must umount "$MNT"
echo before >second/file
must umount second
must mount -t rdax "$PMEM1" "$MNT"
same "the file" before "$(cat "$MNT/file")"
! mkfs.rdax -f "$PMEM1" >/dev/null 2>&1 || fail "mkfs.rdax -f overwrites a mounted device"
same "the file" before "$(cat "$MNT/file")"
! fsck.rdax "$PMEM1" >/dev/null 2>&1 || fail "fsck.rdax works on a mounted device"
