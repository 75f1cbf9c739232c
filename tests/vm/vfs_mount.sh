# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A mount from beginning to end: options, read-only and back, freezing, sizes, counters, files that
# are open when it goes away.
. "${0%/*}/lib.sh"

# fails_with TEXT COMMAND...
fails_with() {
	local text=$1 output
	shift
	! output=$("$@" 2>&1) || fail "$* succeeded instead of failing with: $text"
	[[ ${output,,} == *"${text,,}"* ]] || fail "$* failed with: $output"
}

# What is mounted keeps the module.
! rmmod rdax 2>/dev/null || fail "the module went while it was in use"
read -r _ _ type options _ < <(grep " $MNT " /proc/mounts)
same "type" rdax "$type"
[[ ,$options, == *,dax=inode,* && ,$options, == *,errors=remount-ro,* ]] || fail "options: $options"

# Sizes: exact.
free() { stat -f -c %f "$MNT"; }
inodes() { stat -f -c '%c %d' "$MNT"; }
before=$(free)
dd if=/dev/zero of="$MNT/file" bs=4096 count=1000 status=none
same "blocks of a file of 1000" $((before - 1000)) "$(free)"
read -r total unused < <(inodes)
touch "$MNT/other"
read -r total2 unused2 < <(inodes)
same "inodes in use" $((total - unused + 1)) $((total2 - unused2))
same "longest name, block size" "255 4096" "$(stat -f -c '%l %s' "$MNT")"

# Read-only and back.
exec 3>>"$MNT/file"
fails_with busy mount -o remount,ro "$MNT"
exec 3>&-
must mount -o remount,ro,errors=continue "$MNT"
grep " $MNT " /proc/mounts | grep -q 'ro,.*errors=continue' || fail "$(grep " $MNT " /proc/mounts)"
fails_with "read-only file system" touch "$MNT/new"
fails_with "read-only file system" truncate -s 0 "$MNT/file"
fails_with "read-only file system" rm -f "$MNT/file"
must cmp -n 4096000 "$MNT/file" /dev/zero
must mount -o remount,rw "$MNT"
must touch "$MNT/new"
fails_with bogus mount -o remount,bogus "$MNT"
# A read-only mount writes nothing; that is looked at on the small device.
must mkfs.rdax -q -f "$PMEM1"
mkdir small
must mount -t rdax "$PMEM1" small
cp -r /etc/default small/
must umount small
sum=$(sha256sum <"$PMEM1")
must mount -t rdax -o ro "$PMEM1" small
find small -type f -exec cat {} + >/dev/null
must umount small
same "device after a read-only mount" "$sum" "$(sha256sum <"$PMEM1")"

# What a program has written to the device and has open since does not come over what is made after.
must mkfs.rdax -q -f "$PMEM1"
cat >writer.py <<'END'
import sys, time
device = open(sys.argv[1], 'r+b', buffering=0)
while piece := device.read(1 << 20):
    device.seek(-len(piece), 1)
    device.write(piece)
open('written', 'w').close()
time.sleep(1000)
END
python3 writer.py "$PMEM1" &
writer=$!
for ((i = 0; i < 600; i++)); do
	[ ! -e written ] || break
	sleep 0.1
done
[ -e written ] || fail "the device is not written"
must mount -t rdax "$PMEM1" small
cp -r /etc/default small/
must umount small
kill $writer
wait $writer || true
must fsck.rdax -n "$PMEM1"
must mount -t rdax -o ro "$PMEM1" small
must diff -r --no-dereference /etc/default small/default
must umount small

# A frozen file system waits.
must fsfreeze -f "$MNT"
(echo thawed >"$MNT/frozen") &
sleep 0.5
kill -0 $! 2>/dev/null || fail "a frozen file system was written to"
must cat "$MNT/file" >/dev/null
must fsfreeze -u "$MNT"
wait $!
same "what was written after the thaw" thawed "$(<"$MNT/frozen")"

# Anyone may read the counters, nobody write them.
for file in "/sys/fs/rdax/${PMEM##*/}"/*; do
	same "mode of $file" 444 "$(stat -c %a "$file")"
	[[ $(<"$file") =~ ^[0-9]+$ ]] || fail "$file: $(<"$file")"
done
same "a sync call" $(($(counter sync_calls) + 1)) "$(sync "$MNT/file" && counter sync_calls)"

# A program on it runs.
cp /bin/true "$MNT/true"
must "$MNT/true"

# A file that is open and has no name when the file system is detached lives on, and is gone after.
used=$(($(stat -f -c %b "$MNT") - $(free)))
exec 3<>"$MNT/last"
dd if=/dev/zero bs=4096 count=100 status=none >&3
rm "$MNT/last"
must umount -l "$MNT"
same "size of a detached file" 409600 "$(stat -L -c %s /proc/self/fd/3)"
exec 3>&-
for _ in {1..600}; do
	[ -e "/sys/fs/rdax/${PMEM##*/}" ] || break
	sleep 0.1
done
must mount -t rdax "$PMEM" "$MNT"
same "blocks in use" "$used" $(($(stat -f -c %b "$MNT") - $(free)))
