# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Memory errors: SIGBUS for whoever maps the page, EIO for whoever reads it, until it
# is overwritten whole; no bad block in a new file; damage, and no crash, where
# metadata was. On an NVDIMM, which cannot clear errors that the driver knows of, and
# on virtio-pmem, which can. Its own boots: pages stay poisoned.
. "${0%/*}/lib.sh"

mkdir share
cat >share/lib.py <<'END'
import ctypes, errno, mmap, os, re, signal, subprocess

PAGE = 4096
DIR = "/mnt/pmem"
libc = ctypes.CDLL(None, use_errno=True)
MADV_HWPOISON = 100
PUNCH_HOLE, ZERO_RANGE, WRITE_ZEROES = 3, 16, 128

def address(m, page):
    return ctypes.addressof(ctypes.c_char.from_buffer(m)) + page * PAGE

def poison(m, page):
    status = libc.madvise(ctypes.c_void_p(address(m, page)), PAGE, MADV_HWPOISON)
    assert status == 0, os.strerror(ctypes.get_errno())

def pfn(m, page):
    m[page * PAGE]
    with open("/proc/self/pagemap", "rb") as f:
        f.seek(address(m, page) // PAGE * 8)
        return int.from_bytes(f.read(8), "little") & (1 << 55) - 1

def reported():
    """The block of the last memory error that rdax has reported."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
    return int(re.findall(r"rdax: pmem0: memory error in block (\d+)", log)[-1])

def list_as_bad(block):
    """Adds a sector of the block to the driver's list."""
    with open("/sys/block/pmem0/badblocks", "w") as f:
        f.write(f"{block * 8 + 3} 1")

def listed():
    return open("/sys/block/pmem0/badblocks").read()

def sigbus(*accesses):
    for access in accesses:
        pid = os.fork()
        if pid == 0:
            access()
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status

def fails(number, call, *args):
    try:
        result = call(*args)
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"{call.__name__} returned {result}")

def fallocate(fd, mode, at, size):
    if libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")

def filled(name, pages):
    fd = os.open(f"{DIR}/{name}", os.O_RDWR | os.O_CREAT)
    for page in range(pages):
        os.pwrite(fd, bytes([page + 1]) * PAGE, page * PAGE)
    return fd, mmap.mmap(fd, pages * PAGE)

def free():
    return os.statvfs(DIR).f_bavail

def fill_up():
    """Takes all free blocks; all of them can be read, and mapped. Returns how many there were."""
    fd = os.open(f"{DIR}/fill", os.O_RDWR | os.O_CREAT)
    size = 0
    try:
        while True:
            size += os.pwrite(fd, b"f" * (1 << 20), size)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    m = mmap.mmap(fd, size)
    for at in range(0, size, PAGE):
        assert m[at] == ord("f")
    at = 0
    while at < size:
        data = os.pread(fd, 1 << 20, at)
        assert data == b"f" * len(data) and data
        at += len(data)
    m.close()
    os.close(fd)
    os.unlink(f"{DIR}/fill")
    return size // PAGE
END
cat >share/nvdimm.py <<'END'
from lib import *

a, m = filled("a", 8)
other = mmap.mmap(a, 8 * PAGE)
frames = [pfn(m, page) for page in range(8)]
m[0] = other[PAGE] = m[3 * PAGE] = 100
poison(m, 3)
block = reported()
sigbus(lambda: m[3 * PAGE], lambda: other[3 * PAGE],
       lambda: other.__setitem__(3 * PAGE, 2), lambda: m.__setitem__(3 * PAGE, 2))
assert m[0] == m[PAGE] == 100 and m[7 * PAGE] == 8
# The store is lost: the next sync says so, once. Clean pages are nothing to it.
m[0] = 7
fails(errno.EIO, os.fsync, a)
os.fsync(a)
poison(m, 5)
os.fsync(a)

# read(2) up to the bad page, in it, behind it, and with another's memory for a buffer.
assert os.pread(a, 8 * PAGE, PAGE) == b"d" + b"\2" * (PAGE - 1) + b"\3" * PAGE
for at in 3 * PAGE, 3 * PAGE + 100, 4 * PAGE - 1:
    fails(errno.EIO, os.pread, a, 10, at)
assert os.pread(a, PAGE, 4 * PAGE) == b"\5" * PAGE
with open(f"{DIR}/b", "wb", buffering=0) as b:
    fails(errno.EFAULT, b.write, memoryview(m)[3 * PAGE:4 * PAGE])
# A part of the page cannot be written: the rest would have to be kept. All before it can.
for at, size in (3 * PAGE, PAGE - 1), (3 * PAGE + 1, PAGE), (3 * PAGE, 1):
    fails(errno.EIO, os.pwrite, a, b"w" * size, at)
assert os.pwrite(a, b"w" * PAGE, 3 * PAGE - 10) == 10
fails(errno.EIO, fallocate, a, PUNCH_HOLE, 3 * PAGE + 5, 100)
sigbus(lambda: m[3 * PAGE])
# All of it can, and that heals.
assert os.pwrite(a, b"w" * (PAGE + 1), 3 * PAGE) == PAGE + 1
assert os.pread(a, PAGE + 2, 3 * PAGE) == b"w" * (PAGE + 1) + b"\5"
assert m[3 * PAGE] == other[4 * PAGE - 1] == ord("w")
m[3 * PAGE] = 1
os.fsync(a)
# So does zeroing it: it is unwritten then, and healed by a write to a part of it, or a store.
fallocate(a, ZERO_RANGE, 5 * PAGE, PAGE)
assert os.pread(a, PAGE, 5 * PAGE) == bytes(PAGE) and m[5 * PAGE] == 0
assert os.pwrite(a, b"p", 5 * PAGE + 7) == 1
assert os.pread(a, PAGE, 5 * PAGE) == bytes(7) + b"p" + bytes(PAGE - 8) and m[5 * PAGE + 7] == ord("p")
poison(m, 5)
fails(errno.EIO, os.pread, a, 1, 5 * PAGE)
fallocate(a, ZERO_RANGE, 5 * PAGE, PAGE)
m[5 * PAGE + 8] = 9
assert os.pread(a, PAGE, 5 * PAGE) == bytes(8) + b"\x09" + bytes(PAGE - 9)

# The end of the file may be in a bad page.
poison(m, 6)
os.ftruncate(a, 6 * PAGE + 50)
os.ftruncate(a, 6 * PAGE + 100)
os.ftruncate(a, 8 * PAGE)
fails(errno.EIO, os.pread, a, 1, 6 * PAGE + 60)
assert os.pread(a, PAGE, 7 * PAGE) == bytes(PAGE)

# Blocks that are given back while bad are good when they are given out.
os.ftruncate(a, 3 * PAGE)
blocks = free()
assert fill_up() > blocks - 100
assert free() == blocks

# For later: the leaf of a directory, not where it was logged.
os.mkdir(f"{DIR}/dir")
open(f"{DIR}/dir/a-name-to-look-for", "w").close()
with open("/dev/pmem0", "rb") as device:
    leaf = device.read().rfind(b"a-name-to-look-for") // PAGE

# A page within a mapping of 2 MiB: the others stay. A file with a bad block is not mapped so.
def counter(name):
    return int(open(f"/sys/fs/rdax/pmem0/{name}").read())
huge = os.open(f"{DIR}/huge", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(huge, 0, 4 << 20)
h = mmap.mmap(huge, 4 << 20)
before = counter("huge_faults")
h[::PAGE] = b"h" * 1024
assert counter("huge_faults") == before + 2
os.fsync(huge)
poison(h, 600)
sigbus(lambda: h[600 * PAGE], lambda: h.__setitem__(600 * PAGE, 1))
for page in range(1024):
    assert page == 600 or h[page * PAGE] == ord("h")
h[601 * PAGE] = 1
os.fsync(huge)
fails(errno.EIO, os.pread, huge, 1, 600 * PAGE)
assert os.pwrite(huge, b"w" * PAGE, 600 * PAGE) == PAGE and h[600 * PAGE] == ord("w")
list_as_bad(block + pfn(h, 5) - frames[3])
h.close()
h = mmap.mmap(huge, 4 << 20)
sigbus(lambda: h[5 * PAGE], lambda: h.__setitem__(5 * PAGE, 1))
assert h[4 * PAGE] == h[6 * PAGE] == ord("h")
h[6 * PAGE] = 1
os.fsync(huge)
h.close()
os.ftruncate(huge, 0)

# What the driver lists: as above, but this device cannot heal.
c, n = filled("c", 8)
bad = [block + pfn(n, page) - frames[3] for page in (2, 4)]
for each in bad:
    list_as_bad(each)
n.close()
n = mmap.mmap(c, 8 * PAGE)
os.fsync(c)
assert n[PAGE] == 2 and n[3 * PAGE] == 4
sigbus(lambda: n[2 * PAGE], lambda: n.__setitem__(4 * PAGE, 1))
assert os.pread(c, 8 * PAGE, 0) == b"\1" * PAGE + b"\2" * PAGE
fails(errno.EIO, os.pread, c, 1, 2 * PAGE)
fails(errno.EIO, os.pwrite, c, b"w" * PAGE, 2 * PAGE)
fails(errno.EIO, fallocate, c, WRITE_ZEROES, 2 * PAGE, PAGE)
# Unwritten it reads as zeros, but nothing can be stored there.
fallocate(c, ZERO_RANGE, 2 * PAGE, PAGE)
assert os.pread(c, PAGE, 2 * PAGE) == bytes(PAGE) and n[2 * PAGE] == 0
fails(errno.EIO, os.pwrite, c, b"w" * PAGE, 2 * PAGE)
fails(errno.EIO, fallocate, c, WRITE_ZEROES, 2 * PAGE, PAGE)
sigbus(lambda: n.__setitem__(2 * PAGE, 1))
os.ftruncate(c, 0)
blocks = free()
fill_up()
assert free() == blocks - 3, (free(), blocks)

# Metadata: the leaf of a directory.
def hard_offline(bad):
    with open("/sys/devices/system/memory/hard_offline_page", "w") as f:
        f.write(hex((frames[3] - block + bad) * PAGE))
hard_offline(leaf)
fails(errno.EIO, os.listdir, f"{DIR}/dir")
fails(errno.EIO, open, f"{DIR}/dir/new", "w")
assert m[0] == 7 and os.listdir(DIR)
open(f"{DIR}/new", "w").close()
# For the script: the address of block 2, which is in the journal.
with open("/tmp/journal", "w") as f:
    f.write(hex((frames[3] - block + 2) * PAGE))
END
cat >share/nvdimm <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax -o errors=continue /dev/pmem0 /mnt/pmem
python3 /share/nvdimm.py || { dmesg | grep rdax: ; exit 1; }
dmesg | grep 'rdax: pmem0: memory error in block .*, inode'
dmesg | grep 'rdax: pmem0: memory error at byte .*fsck.rdax'
mount -o remount,errors=remount-ro /mnt/pmem
touch /mnt/pmem/other
cat /tmp/journal >/sys/devices/system/memory/hard_offline_page
dmesg | grep 'rdax: pmem0: read-only from now on'
if touch /mnt/pmem/another 2>/tmp/touch; then
	echo "changed after an error"
	exit 1
fi
grep 'Read-only' /tmp/touch
umount /mnt/pmem
END
cat >share/virtio.py <<'END'
from lib import *

a, m = filled("a", 8)
frames = [pfn(m, page) for page in range(8)]
poison(m, 3)
for page in range(4, 8):
    list_as_bad(reported() + frames[page] - frames[3])
for page in range(3, 8):
    fails(errno.EIO, os.pread, a, 1, page * PAGE)
assert os.pwrite(a, b"w" * 2 * PAGE, 3 * PAGE) == 2 * PAGE
assert os.pread(a, 8 * PAGE, 3 * PAGE) == b"w" * 2 * PAGE
assert m[4 * PAGE] == ord("w")
os.ftruncate(a, 0)
blocks = free()
fill_up()
assert free() == blocks
assert listed() == "", listed()
END
cat >share/virtio <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
python3 /share/virtio.py
umount /mnt/pmem
fsck.rdax -n /dev/pmem0
END
vm --pmem 128M -- bash /share/nvdimm
rm image
vm --virtio-pmem --pmem 128M -- bash /share/virtio
