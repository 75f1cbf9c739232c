# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Damage that is found while mounted: the call fails, one line in the log says what and where, and
# then happens what errors= says.
# volume: none
. "${0%/*}/lib.sh"

name=${PMEM1##*/}
must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
at_end umount "$MNT"
echo sound >"$MNT/sound"
truncate -s 123456789012345 "$MNT/damaged"
must umount "$MNT"
cat >damage.py <<'END'
# Flips a bit of the checksum of the inode that has this size; says where it is.
import struct, sys
with open(sys.argv[1], 'r+b', buffering=0) as device:
    found = None
    for block in range(device.seek(0, 2) // 4096):
        device.seek(block * 4096)
        data = device.read(4096)
        at = data.find(struct.pack('<Q', 123456789012345))
        # An inode is 256 bytes, its size at byte 8.
        if at % 256 == 8:
            assert data[at - 8:at - 4] != bytes(4)
            found = block * 4096 + at - 8
            device.seek(found)
            device.write(bytes([data[at - 8] ^ 1]))
    assert found is not None
    print('%#x' % found)
END
at=$(python3 damage.py "$PMEM1") || fail "no inode found"
sync

for on_error in remount-ro continue; do
	must mount -t rdax -o "errors=$on_error" "$PMEM1" "$MNT"
	mark_log
	! output=$(stat "$MNT/damaged" 2>&1) || fail "a damaged inode is shown"
	[[ $output == *"Structure needs cleaning"* ]] || fail "stat: $output"
	log_says "$name: .*inode at byte $at.*fsck\.rdax"
	same "a sound file" sound "$(<"$MNT/sound")"
	if [ $on_error = continue ]; then
		must touch "$MNT/new"
	else
		log_says "$name: read-only from now on"
		! output=$(touch "$MNT/new" 2>&1) || fail "written to in spite of errors=remount-ro"
		[[ $output == *"Read-only file system"* ]] || fail "touch: $output"
		grep " $MNT " /proc/mounts | grep -qE ' ro,' || fail "$(grep " $MNT " /proc/mounts)"
		! mount -o remount,rw "$MNT" 2>/dev/null || fail "writable again after an error"
	fi
	must umount "$MNT"
done
! fsck.rdax -n "$PMEM1" >found 2>&1 || fail "fsck.rdax finds nothing"
