# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device that is write-protected: mounted read-only, or refused with one line if its
# journal has to be recovered; in no case written to.
# volume: none
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
at_end "umount $MNT; blockdev --setrw $PMEM1"
echo content >"$MNT/file"
must umount "$MNT"
remember "$PMEM1"
must blockdev --setro "$PMEM1"

# With -w mount does not try again read-only.
mount_refused EACCES -w -t rdax "$PMEM1" "$MNT"
must mount -t rdax -o ro "$PMEM1" "$MNT"
same "a file" content "$(<"$MNT/file")"
mount_refused EACCES -o remount,rw "$MNT"
must umount "$MNT"
unchanged "$PMEM1" "clean"

# As a crash leaves it: the last transactions are logged, and not retired. To replay them
# changes nothing but that.
must blockdev --setrw "$PMEM1"
cat >unretire.py <<'END'
import struct, sys
from superblock import crc32c

def unretired_word(seq):
    before = struct.pack("<q", seq - 2)
    return before[:4] + struct.pack("<I", crc32c(before))

with open(sys.argv[1], "r+b", buffering=0) as device:
    block, lanes, size = struct.unpack_from("<QII", device.read(512), 104)
    for lane in range(lanes):
        at = block * 4096 + lane * size
        device.seek(at)
        headers = device.read(128)
        # The newer of the two headers; seq at byte 16, retired at 56.
        seq, which = max((struct.unpack_from("<Q", headers, 64 * i + 16)[0], i) for i in (0, 1))
        if seq > 1:
            device.seek(at + 64 * which + 56)
            device.write(unretired_word(seq))
END
must python3 unretire.py "$PMEM1"
remember "$PMEM1"
must blockdev --setro "$PMEM1"
mark_log
mount_refused EROFS -t rdax -o ro "$PMEM1" "$MNT"
log_says "${PMEM1##*/}: .*write-protected.*journal.*blockdev --setrw"
same "lines in the log" 1 "$(log_since | grep -c 'rdax: ')"
unchanged "$PMEM1" "journal not recovered"

# Read-only for the user alone: recovered.
must blockdev --setrw "$PMEM1"
must mount -t rdax -o ro "$PMEM1" "$MNT"
log_says "${PMEM1##*/}: recovered: [1-9]"
same "a file" content "$(<"$MNT/file")"
must umount "$MNT"
must fsck.rdax -n "$PMEM1"
