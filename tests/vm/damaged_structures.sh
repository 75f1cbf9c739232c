# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# One structure of each kind damaged: the call that needs it fails with EUCLEAN, the log says which
# structure and where, and everything else is still served. fsck.rdax -y mends it.
# volume: none
# timeout: 300
. "${0%/*}/lib.sh"

name=${PMEM1##*/}
here=${0%/*}
at_end umount "$MNT"
must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
echo sound >"$MNT/sound"
mkdir "$MNT/dir" "$MNT/many"
touch "$MNT/dir/name"
ln -s sound "$MNT/link"
python3 - "$MNT" <<'PY'
import os, sys
top = sys.argv[1]
for n in range(400):
    open(f"{top}/many/{n:040}", "w").close()
with open(f"{top}/holes", "wb") as file:
    for n in range(40):
        os.pwrite(file.fileno(), b"data", 8192 * n)
PY
last=$(printf '%s/many/%040d' "$MNT" 399)
link=$(stat -c %i "$MNT/link")
touch "$MNT/gone"
gone=$(stat -c %i "$MNT/gone")
rm "$MNT/gone"
holes=$(stat -c %i "$MNT/holes") dir=$(stat -c %i "$MNT/dir") many=$(stat -c %i "$last")
must umount "$MNT"
must dd if="$PMEM1" of=image bs=1M

# needs_cleaning COMMAND...: it fails because of damage.
needs_cleaning() {
	local output
	! output=$("$@" 2>&1) || fail "$* succeeded on a damaged volume"
	[[ $output == *"Structure needs cleaning"* ]] || fail "$*: $output"
}

# damaged STRUCTURE INO SAYS COMMAND...: COMMAND meets the damage, and all else goes on.
damaged() {
	local structure=$1 ino=$2 says=$3 at
	shift 3
	must dd if=image of="$PMEM1" bs=1M conv=fsync
	at=$(python3 "$here/damage.py" "$PMEM1" one "$structure" "$ino") || fail "no $structure"
	met "$structure" "$at" "$says" "$@"
}

# hostile FIELD INO OFFSET BYTES VALUE COMMAND...: likewise, of a field of an inode with a right checksum.
hostile() {
	local field=$1 ino=$2 offset=$3 bytes=$4 value=$5 at
	shift 5
	must dd if=image of="$PMEM1" bs=1M conv=fsync
	at=$(python3 "$here/damage.py" "$PMEM1" field "$ino" "$offset" "$bytes" "$value") ||
		fail "no inode $ino"
	met "$field" "$at" inode "$@"
}

# met WHAT AT SAYS COMMAND...
met() {
	local structure=$1 at=$2 says=$3
	shift 3
	mark_log
	must mount -t rdax -o errors=continue "$PMEM1" "$MNT"
	needs_cleaning "$@"
	log_says "$name: damaged $says at byte $at.*fsck\.rdax"
	same "the sound file with a damaged $structure" sound "$(<"$MNT/sound")"
	must umount "$MNT"
	mended "$structure"
}

mended() {
	local status=0
	fsck.rdax -n "$PMEM1" >found 2>&1 || status=$?
	same "fsck.rdax -n of a damaged $1" 4 $status
	status=0
	fsck.rdax -y "$PMEM1" >found 2>&1 || status=$?
	[ $status = 1 ] || fail "fsck.rdax -y of a damaged $1: status $status: $(<found)"
	must fsck.rdax -n "$PMEM1"
	must mount -t rdax "$PMEM1" "$MNT"
	same "the sound file after the repair of a $1" sound "$(<"$MNT/sound")"
	must umount "$MNT"
}

damaged inode "$holes" inode stat "$MNT/holes"
damaged inode-chunk "$many" 'inode chunk header' stat "$last"
damaged extent-node "$holes" 'extent node' cat "$MNT/holes"
damaged leaf "$dir" 'directory leaf' ls "$MNT/dir"
damaged record "$dir" 'directory leaf' stat "$MNT/dir/name"
damaged bitmap 0 'block bitmap' mkdir "$MNT/new"
# A name of an inode that is not in use.
must dd if=image of="$PMEM1" bs=1M conv=fsync
at=$(python3 "$here/damage.py" "$PMEM1" name "$dir" "$gone") || fail "no name"
met name "$at" 'directory leaf' stat "$MNT/dir/name"
hostile 'size of a symlink' "$link" 8 8 $(((1 << 63) - 4096)) readlink -v "$MNT/link"
hostile 'size of a symlink' "$link" 8 8 5000 readlink -v "$MNT/link"
hostile 'target of a symlink' "$link" 128 1 0 readlink -v "$MNT/link"
hostile 'size of a file' "$holes" 8 8 0x8000000000000000 cat "$MNT/holes"
hostile 'nanoseconds' "$holes" 40 4 1000000000 stat "$MNT/holes"
# fanotify reports errors of the file system to its listeners.
reported() {
	python3 - "$MNT" "$MNT/holes" <<'PY'
import ctypes, os, select, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
FAN_REPORT_FID, FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_FS_ERROR = 0x200, 1, 0x100, 0x8000
fd = libc.fanotify_init(FAN_REPORT_FID, os.O_RDONLY)
assert fd >= 0, os.strerror(ctypes.get_errno())
mark = libc.fanotify_mark
mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
done = mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_FS_ERROR, -100, sys.argv[1].encode())
assert done == 0, os.strerror(ctypes.get_errno())
try:
    os.stat(sys.argv[2])
except OSError as error:
    print(error.strerror)
assert select.select([fd], [], [], 10)[0], "no event"
mask = struct.unpack_from("=IBBHQ", os.read(fd, 4096))[4]
assert mask & FAN_FS_ERROR, mask
sys.exit(1)
PY
}
hostile 'nanoseconds' "$holes" 40 4 2000000000 reported
hostile 'depth of a tree' "$holes" 60 1 200 cat "$MNT/holes"

# Without a journal or an inode table nothing can be served: it is refused, and says why.
for structure in lane table; do
	must dd if=image of="$PMEM1" bs=1M conv=fsync
	at=$(python3 "$here/damage.py" "$PMEM1" one $structure 0)
	mark_log
	mount_refused EUCLEAN -t rdax "$PMEM1" "$MNT"
	log_says "$name: damaged (journal lane|inode) at byte $at.*fsck\.rdax"
	mended $structure
done

# A file that was removed while it was in use when the system stopped, and cannot be freed: that is no
# reason to serve nothing.
must dd if=image of="$PMEM1" bs=1M conv=fsync
must mount -t rdax "$PMEM1" "$MNT"
python3 - "$MNT" <<'PY'
import fcntl, os, struct, sys
os.chdir(sys.argv[1])
file = open("removed", "w")
os.unlink("removed")
# FS_IOC_SHUTDOWN, without a flush.
fcntl.ioctl(file, 0x8004587D, struct.pack("I", 2))
PY
must umount "$MNT"
at=$(python3 "$here/damage.py" "$PMEM1" one orphan 0) || fail "no orphan"
for on_error in continue remount-ro; do
	mark_log
	must mount -t rdax -o "errors=$on_error" "$PMEM1" "$MNT"
	log_says "$name: damaged orphan slot at byte $at.*fsck\.rdax"
	same "the sound file with a damaged orphan slot" sound "$(<"$MNT/sound")"
	if [ $on_error = continue ]; then
		must touch "$MNT/new"
	else
		! touch "$MNT/newer" 2>/dev/null || fail "written to in spite of errors=remount-ro"
	fi
	must umount "$MNT"
done
mended orphan
