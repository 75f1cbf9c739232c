# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# mkfs.rdax does not overwrite anything else, or another rdax, without -f. It is found as
# mkfs -t rdax and fsck -t rdax.
# volume: none
. "${0%/*}/lib.sh"

for maker in 'mkfs.ext4 -q -F' 'mkfs.rdax -q -f'; do
	# The words of the command.
	# shellcheck disable=SC2086
	must $maker "$PMEM1"
	remember "$PMEM1"
	! mkfs.rdax "$PMEM1" >said 2>&1 || fail "mkfs.rdax overwrites what $maker made"
	grep -q -- '-f' said || fail "mkfs.rdax does not say how: $(<said)"
	unchanged "$PMEM1" refused
done
must mkfs -t rdax -f "$PMEM1"
must fsck -t rdax -n "$PMEM1"
must mkfs.rdax -q -f -L name -U 01234567-89ab-cdef-0123-456789abcdef "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
must umount "$MNT"
