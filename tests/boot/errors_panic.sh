# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# errors=panic stops the machine when damage is found, and not before.
. "${0%/*}/lib.sh"

mkdir share
cat >share/damage.py <<'END'
# Flips a bit of the checksum of the inode that has this size.
import struct
with open("/dev/pmem0", "r+b", buffering=0) as device:
    for block in range(device.seek(0, 2) // 4096):
        device.seek(block * 4096)
        data = device.read(4096)
        at = data.find(struct.pack("<Q", 123456789012345))
        # An inode is 256 bytes, its size at byte 8.
        if at % 256 == 8:
            device.seek(block * 4096 + at - 8)
            device.write(bytes([data[at - 8] ^ 1]))
            break
    else:
        raise SystemExit("no such inode")
END
cat >share/panic <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
truncate -s 123456789012345 /mnt/pmem/damaged
umount /mnt/pmem
python3 /share/damage.py
mount -t rdax -o errors=panic /dev/pmem0 /mnt/pmem
touch /mnt/pmem/sound
touch /share/mounted
stat /mnt/pmem/damaged
touch /share/survived
END
status=0
vm --pmem 64M -- bash /share/panic 2>log || status=$?
[ -e share/mounted ] || fail "it does not mount: $(<log)"
[ ! -e share/survived ] || fail "it goes on after damage"
# A kernel report.
[ $status = 99 ] || fail "status $status: $(<log)"
grep -q 'Kernel panic - not syncing: rdax: pmem0: errors=panic' log || fail "no panic: $(<log)"
