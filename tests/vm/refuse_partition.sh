# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A DAX device serves one file system: while one of its partitions is mounted, another is refused, with
# the reason; so is one that is not aligned to pages. Each is mounted alone.
# volume: none
. "${0%/*}/lib.sh"

partition=${0%/*}/partition.py
at_end "umount $MNT; umount second; for n in 1 2 3; do python3 $partition del $PMEM1 \$n; done"
bytes=$((8 << 20))
# add NUMBER START: a partition.
add() { must python3 "$partition" add "$PMEM1" "$1" "$2" $bytes; }

add 1 $((1 << 20))
add 2 $(((1 << 20) + bytes))
add 3 $(((1 << 20) + 2 * bytes + 512))
one=${PMEM1}p1 two=${PMEM1}p2 askew=${PMEM1}p3
for device in "$one" "$two"; do
	must mkfs.rdax -q -f "$device"
done
mkdir second
must mount -t rdax "$one" "$MNT"
echo one >"$MNT/file"
remember "$two"
mark_log
mount_refused EBUSY -t rdax "$two" second
log_says "${two##*/}: .*another partition of this device"
unchanged "$two" refused
same "the file of the first" one "$(cat "$MNT/file")"
must umount "$MNT"
must mount -t rdax "$two" second
mark_log
mount_refused EBUSY -t rdax "$one" "$MNT"
log_says "${one##*/}: .*another partition of this device"
must umount second

must mkfs.rdax -q -f "$askew"
mark_log
mount_refused EOPNOTSUPP -t rdax "$askew" "$MNT"
log_says "${askew##*/}: .*not aligned to 4 KiB"
