# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The 2 MiB of zeros that a mount maps for holes are given back with it.
# volume: none
. "${0%/*}/lib.sh"

cat >zeros.py <<'END'
import ctypes, mmap, os, sys
device, root = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
ROUNDS, HUGE = 20, 2 << 20

def check(status):
    if status != 0:
        raise OSError(ctypes.get_errno(), 'mount or umount')

def free():
    with open('/proc/sys/vm/drop_caches', 'w') as drop:
        drop.write('3')
    with open('/proc/meminfo') as info:
        return next(int(line.split()[1]) << 10 for line in info if line.startswith('MemFree:'))

def mount():
    check(libc.mount(device.encode(), root.encode(), b'rdax', 0, None))
    with open(f'{root}/hole', 'w+b') as f:
        f.truncate(2 * HUGE)
        m = mmap.mmap(f.fileno(), 2 * HUGE)
        assert m[HUGE - 1] == 0 and m[2 * HUGE - 1] == 0
        m.close()
    with open(f'/sys/fs/rdax/{os.path.basename(device)}/huge_faults') as counter:
        assert int(counter.read()) > 0, 'no zeros of 2 MiB were mapped'
    check(libc.umount(root.encode()))

for _ in range(2):
    mount()
before = free()
for _ in range(ROUNDS):
    mount()
lost = before - free()
assert lost < ROUNDS * HUGE // 2, f'{lost >> 10} KiB less are free after {ROUNDS} mounts'
END
must mkfs.rdax -q -f "$PMEM1"
at_end "umount $MNT"
must python3 zeros.py "$PMEM1" "$MNT"
