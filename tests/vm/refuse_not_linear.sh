# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device that is not one linear piece of memory from end to end is refused, wherever it bends, and
# nothing is written to it; one that is, by whatever table, is mounted. If its table changes while it
# is mounted, the mount ends.
# volume: none
# timeout: 240
. "${0%/*}/lib.sh"

at_end "umount $MNT; dmsetup remove device"
# In sectors; six parts of the device, and what is left.
part=$(($(blockdev --getsz "$PMEM1") / 6 / 8 * 8))
[ $part -gt $(((4 << 20) / 512)) ] || fail "$PMEM1 is too small"

# table PLACE...: a table of one part for each place, which is a number of parts and sectors beyond.
table() {
	local at=0 place
	for place; do
		[[ $place == *+* ]] || place+=+0
		echo "$at $part linear $PMEM1 $((${place%+*} * part + ${place#*+}))"
		at=$((at + part))
	done
}

# make TABLE
make() {
	must dmsetup create device --table "$1"
	must dmsetup mknodes device
}

# refuse PATTERN TABLE: the device is made, is refused, and says why; it has not changed.
refuse() {
	make "$2"
	must mkfs.rdax -q -f /dev/mapper/device
	sync "$PMEM1"
	remember "$PMEM1"
	mark_log
	mount_refused EOPNOTSUPP -t rdax /dev/mapper/device "$MNT"
	log_says "$1"
	unchanged "$PMEM1" "$2"
	must dmsetup remove device
}

# accept TABLE: it is mounted, and used.
accept() {
	make "$1"
	must mkfs.rdax -q -f /dev/mapper/device
	must mount -t rdax /dev/mapper/device "$MNT"
	dd if=/dev/urandom of="$MNT/file" bs=1M count=8 2>/dev/null || fail "8 MiB cannot be written"
	before=$(sha256sum <"$MNT/file")
	must umount "$MNT"
	must fsck.rdax -n /dev/mapper/device
	must mount -t rdax /dev/mapper/device "$MNT"
	same "the file" "$before" "$(sha256sum <"$MNT/file")"
	must umount "$MNT"
	must dmsetup remove device
}

elsewhere='not one linear piece of memory: .*elsewhere'
# Linear at both ends, but not between; by a block; backwards; the end is on another device.
refuse "$elsewhere" "$(table 0 4 2)"
refuse "$elsewhere" "$(table 0 1+8 2+8)"
refuse "$elsewhere" "$(table 1 0)"
refuse "$elsewhere" "$(table 0 1)
$((2 * part)) $part linear $PMEM $part"
stripe=$((part * 2 / 16 * 16))
refuse "$elsewhere" "0 $stripe striped 2 8 $PMEM1 0 $PMEM1 $stripe"
# The kernel rounds such a start down for DAX, and lets the mapping begin in the block before.
refuse 'not aligned to 4 KiB' "$(table 0 1+3 2)"

# One piece, from somewhere on, or of several that follow each other.
accept "0 $((3 * part)) linear $PMEM1 8"
accept "$(table 1 2 3)"

# A part of it moves, and comes back.
make "$(table 0 1)"
must mkfs.rdax -q -f /dev/mapper/device
must mount -t rdax /dev/mapper/device "$MNT"
echo before >"$MNT/file"
must dmsetup suspend device
must dmsetup load device --table "$(table 0 1 2)"
must dmsetup resume device
same "the file, when the device has grown" before "$(cat "$MNT/file")"
echo after >"$MNT/file"
must dmsetup suspend device
must dmsetup load device --table "$(table 0 3)"
remember "$PMEM1"
mark_log
must dmsetup resume device
log_says "${elsewhere}"
! cat "$MNT/file" 2>/dev/null || fail "a device that has moved is still read"
! mkdir "$MNT/directory" 2>/dev/null || fail "a device that has moved is still written to"
must umount "$MNT"
unchanged "$PMEM1" "the device has moved"
must dmsetup suspend device
must dmsetup load device --table "$(table 0 1)"
must dmsetup resume device
must fsck.rdax -n /dev/mapper/device
must mount -t rdax /dev/mapper/device "$MNT"
same "the file" after "$(cat "$MNT/file")"
