# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device that is mounted is not mounted a second time, nor overwritten, nor given to fsck.
# volume: none
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
mkdir second
for options in rw ro; do
	mark_log
	mount_refused EBUSY -t rdax -o $options "$PMEM1" second
	log_says "${PMEM1##*/}: .*mounted already"
done
echo before >"$MNT/file"
! mkfs.rdax -f "$PMEM1" >/dev/null 2>&1 || fail "mkfs.rdax -f overwrites a mounted device"
same "the file" before "$(cat "$MNT/file")"
! fsck.rdax "$PMEM1" >/dev/null 2>&1 || fail "fsck.rdax works on a mounted device"
