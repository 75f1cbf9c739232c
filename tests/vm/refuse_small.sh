# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device that is smaller than the volume on it is refused and not touched, and mkfs.rdax refuses
# one that is too small for any.
# volume: none
. "${0%/*}/lib.sh"

sectors=$(blockdev --getsz "$PMEM1")
at_end "umount $MNT; dmsetup remove cut"

must mkfs.rdax -q -f "$PMEM1"
must dmsetup create cut --table "0 $((sectors / 2)) linear $PMEM1 0"
must dmsetup mknodes cut
remember "$PMEM1"
mark_log
mount_refused EINVAL -t rdax /dev/mapper/cut "$MNT"
log_says "too small"
unchanged "$PMEM1" refused
must dmsetup remove cut

must dmsetup create cut --table "0 $(((4 << 20) / 512)) linear $PMEM1 0"
must dmsetup mknodes cut
remember "$PMEM1"
! mkfs.rdax -f /dev/mapper/cut >said 2>&1 || fail "mkfs.rdax makes a volume in 4 MiB"
grep -q 'small' said || fail "mkfs.rdax does not say that 4 MiB are too small: $(<said)"
unchanged "$PMEM1" "refused by mkfs.rdax"
