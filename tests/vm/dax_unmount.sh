# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Unmounting writes back what mappings left dirty, and leaves the pages of the
# device as the next file system wants to find them.
# order: first
. "${0%/*}/lib.sh"

python3 - "$MNT" <<'END'
import mmap, sys
for n in range(20):
    with open(f"{sys.argv[1]}/{n}", "w+b") as f:
        f.truncate(1 << 20)
        m = mmap.mmap(f.fileno(), 1 << 20)
        for page in range(0, 256, 3):
            m[page * 4096 + n] = n + 1
END
tagged=$(counter pages_tagged)
[ "$tagged" -ge $((20 * 86)) ] || fail "only $tagged pages were tagged"
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
python3 - "$MNT" <<'END'
import sys
for n in range(20):
    with open(f"{sys.argv[1]}/{n}", "rb") as f:
        data = f.read()
    assert len(data) == 1 << 20
    for page in range(256):
        expect = bytearray(4096)
        if page % 3 == 0:
            expect[n] = n + 1
        assert data[page * 4096:(page + 1) * 4096] == expect, (n, page)
END
must umount "$MNT"
# ext4 warns about every page that still belongs to a file.
must mkfs.ext4 -q -F -b 4096 "$PMEM"
must mount -t ext4 -o dax "$PMEM" "$MNT"
python3 - "$MNT" <<'END'
import mmap, os, sys
f = open(f"{sys.argv[1]}/all", "w+b")
size = os.statvfs(sys.argv[1]).f_bavail * 4096 // 2
os.posix_fallocate(f.fileno(), 0, size)
m = mmap.mmap(f.fileno(), size)
for at in range(0, size, 4096):
    m[at] = 1
END
must umount "$MNT"
must mkfs.rdax -f "$PMEM"
must mount -t rdax "$PMEM" "$MNT"
