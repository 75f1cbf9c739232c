# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device without rdax is refused, with a line that says so, and not touched.
# volume: none
. "${0%/*}/lib.sh"

mib=$(($(blockdev --getsize64 "$PMEM1") >> 20))
for content in nothing ext4 noise; do
	case $content in
	nothing) must dd if=/dev/zero of="$PMEM1" bs=1M count="$mib" conv=fsync ;;
	ext4) must mkfs.ext4 -q -F "$PMEM1" ;;
	noise) must dd if=/dev/urandom of="$PMEM1" bs=1M count=8 conv=fsync ;;
	esac
	remember "$PMEM1"
	mark_log
	mount_refused EINVAL -t rdax "$PMEM1" "$MNT"
	log_says "${PMEM1##*/}: .*no rdax volume.*mkfs.rdax"
	unchanged "$PMEM1" "refused, $content"
done
