# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A volume that mkfs.rdax -s makes smaller than its device: it has that size, is filled to the last
# block and leaves the rest of the device alone; and no superblock of a former volume serves for it.
# volume: none
. "${0%/*}/lib.sh"

device=$(blockdev --getsize64 "$PMEM1")
must mkfs.rdax -q -f -L former "$PMEM1"
must mkfs.rdax -q -f -s 16M -L smaller "$PMEM1"
head -c $((device - (16 << 20))) /dev/urandom >rest
must dd if=rest of="$PMEM1" bs=1M seek=16 oflag=direct conv=notrunc
must mount -t rdax "$PMEM1" "$MNT"
# What files may use: all but the metadata.
blocks=$(stat -f -c %b "$MNT")
((blocks > 15 << 8 && blocks < 16 << 8)) || fail "the volume has $blocks blocks of 4 KiB"
refused ENOSPC dd if=/dev/zero of="$MNT/file" bs=64K
same "blocks for files" 0 "$(stat -f -c %a "$MNT")"
must umount "$MNT"
must fsck.rdax -n "$PMEM1"
must dd if="$PMEM1" of=found bs=1M skip=16 iflag=direct
must cmp rest found

must mkfs.rdax -q -f -L former "$PMEM1"
must mkfs.rdax -q -f -s 16M -L smaller "$PMEM1"
must dd if=/dev/zero of="$PMEM1" bs=4K count=1 oflag=direct conv=notrunc
mount_refused EINVAL -t rdax "$PMEM1" "$MNT"
if mkfs.rdax -q -f -s $((device + 4096)) "$PMEM1" >said 2>&1; then
	fail "mkfs.rdax makes a volume larger than its device"
fi
grep -q "$device bytes" said || fail "mkfs.rdax does not say how large the device is: $(<said)"
