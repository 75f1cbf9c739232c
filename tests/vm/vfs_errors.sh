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
mkdir "$MNT/empty"
touch "$MNT"/{renamed,removed,attributed,chmod,cut}
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

# A page that is stored to all the time; what has become of that goes to `stored`.
cat >store.py <<'END'
import mmap, os, sys, time
with open(sys.argv[1], 'w+b') as file:
    file.write(bytes(4096))
    file.flush()
    m = mmap.mmap(file.fileno(), 4096)
    n = 0
    while True:
        n += 1
        m[0] = n % 251
        if n % 3 == 0:
            os.fsync(file.fileno())
        if n == 30:
            open('storing', 'w').close()
        time.sleep(0.001)
END
store() {
	rm -f storing
	python3 store.py "$MNT/stored" &
	storer=$!
	for ((i = 0; i < 600; i++)); do
		[ ! -e storing ] || return 0
		sleep 0.1
	done
	fail "nothing is stored"
}
shown_ro() { grep " $MNT " /proc/mounts | grep -qE ' ro,'; }
# It becomes so soon.
becomes_ro() {
	for ((i = 0; i < 100; i++)); do
		! shown_ro || return 0
		sleep 0.1
	done
	fail "$(grep " $MNT " /proc/mounts)"
}

for on_error in remount-ro continue; do
	must mount -t rdax -o "errors=$on_error" "$PMEM1" "$MNT"
	[ $on_error = continue ] || store
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
		becomes_ro
		status=0
		wait "$storer" || status=$?
		same "status of who stores, 128 + SIGBUS" 135 $status
		! mount -o remount,rw "$MNT" 2>/dev/null || fail "writable again after an error"
	fi
	must umount "$MNT"
done
# Found while the file system is frozen: writers are refused, and wait for nothing, when it is not any
# more.
must mount -t rdax "$PMEM1" "$MNT"
must fsfreeze -f "$MNT"
at_end "fsfreeze -u $MNT; umount $MNT"
! stat "$MNT/damaged" 2>/dev/null || fail "a damaged inode is shown"
! shown_ro || fail "read-only, and frozen as writable"
# Each waits for the thaw, and continues before the VFS knows.
mkdir outputs
writes() {
	local name=$1
	shift
	timeout $((20 * SLOWDOWN)) "$@" >"outputs/$name" 2>&1 &
	writers[$!]=$name
}
writers=()
writes ln ln "$MNT/sound" "$MNT/linked"
writes mv mv "$MNT/renamed" "$MNT/elsewhere"
writes rm rm -f "$MNT/removed"
writes rmdir rmdir "$MNT/empty"
writes setxattr python3 -c "import os; os.setxattr('$MNT/attributed', 'user.a', b'')"
writes chmod chmod 600 "$MNT/chmod"
writes truncate truncate -s 1 "$MNT/cut"
writes touch touch "$MNT/new"
sleep $((2 * SLOWDOWN))
must fsfreeze -u "$MNT"
wrong=()
for writer in "${!writers[@]}"; do
	status=0
	wait "$writer" || status=$?
	output=$(<"outputs/${writers[writer]}")
	[[ $status = 1 && $output == *"Read-only file system"* ]] ||
		wrong+=("${writers[writer]}: status $status: $output")
done
[ ${#wrong[@]} = 0 ] || fail "$(printf '%s\n' "${wrong[@]}")"
becomes_ro
must umount "$MNT"
! fsck.rdax -n "$PMEM1" >found 2>&1 || fail "fsck.rdax finds nothing"
