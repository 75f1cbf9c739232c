# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# With a damaged or erased first superblock the copy serves, and the kernel's log says so; with a
# damaged copy nothing is amiss. fsck.rdax finds both.
# volume: none
. "${0%/*}/lib.sh"

for change in 'first damage' 'first erase' 'copy damage' 'copy erase'; do
	read -r which what <<<"$change"
	must mkfs.rdax -q -f "$PMEM1"
	must mount -t rdax "$PMEM1" "$MNT"
	echo kept >"$MNT/file"
	must umount "$MNT"
	must python3 "${0%/*}/superblock.py" "$PMEM1" "$which" "$what"
	! fsck.rdax -n "$PMEM1" >/dev/null 2>&1 || fail "fsck.rdax is content with: $change"
	mark_log
	must mount -t rdax "$PMEM1" "$MNT"
	if [ "$which" = first ]; then
		log_says "${PMEM1##*/}: .*superblock.*copy serves"
	fi
	same "the file after: $change" kept "$(cat "$MNT/file")"
	must umount "$MNT"
done
