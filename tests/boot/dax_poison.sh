# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A memory error in a mapped page: SIGBUS for whoever touches it, in every
# process, and nothing else. Its own boot: the page stays poisoned.
. "${0%/*}/lib.sh"

mkdir share
cat >share/poison.py <<'END'
import ctypes, mmap, os, signal

libc = ctypes.CDLL(None, use_errno=True)
MADV_HWPOISON = 100

def child(access):
    pid = os.fork()
    if pid == 0:
        access()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

f = open("/mnt/pmem/a", "w+b")
f.write(b"x" * 8 * 4096)
f.flush()
m = mmap.mmap(f.fileno(), 8 * 4096)
other = mmap.mmap(f.fileno(), 8 * 4096)
m[0] = other[4096] = m[3 * 4096] = 1
base = ctypes.addressof(ctypes.c_char.from_buffer(m))
assert libc.madvise(ctypes.c_void_p(base + 3 * 4096), 4096, MADV_HWPOISON) == 0, ctypes.get_errno()
for access in (
    lambda: m[3 * 4096],
    lambda: other[3 * 4096],
    lambda: other.__setitem__(3 * 4096, 2),
    lambda: m.__setitem__(3 * 4096, 2),
):
    status = child(access)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
assert child(lambda: m[0] + m[4096] + m[7 * 4096]) == 0
m[0] = 7
os.fsync(f.fileno())
f.truncate(4096)
f.truncate(8 * 4096)
assert other[0] == 7 and other[3 * 4096] == 0
END
cat >share/poison <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
python3 /share/poison.py
dmesg | grep 'rdax: pmem0: memory error in block .*, inode'
rm /mnt/pmem/a
umount /mnt/pmem
fsck.rdax -n /dev/pmem0
END
vm --pmem 128M -- bash /share/poison
