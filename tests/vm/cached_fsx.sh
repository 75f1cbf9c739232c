# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A file against a model of its bytes, through the page cache, mapped directly, and through the page
# cache again: random reads, writes, mapped stores (also beyond the end), truncation, holes, ranges
# of zeros, O_DIRECT, syncs. What a mode leaves behind, the next has to cope with.
# volume: none
# timeout: 300
. "${0%/*}/lib.sh"

cat >fsx.py <<'END'
import ctypes, fcntl, mmap, os, random, struct, sys

path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rnd = random.Random(seed)
MAX, PAGE = 200000, 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
KEEP, PUNCH, ZERO = 1, 2, 16

fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
model = bytearray(os.pread(fd, MAX, 0))
buffer = mmap.mmap(-1, 65536)
log = []

def spot(end):
    """A range up to end: small, at the edges of pages, or large."""
    a = rnd.randrange(end + 1)
    if rnd.random() < 0.3:
        a = min(a // PAGE * PAGE + rnd.choice((0, 0, 1, PAGE - 1)), end)
    length = rnd.choice((rnd.randrange(1, 64), rnd.randrange(1, 3 * PAGE), rnd.randrange(1, 40000)))
    return a, min(end, a + length)

def grow(size):
    if size > len(model):
        model.extend(bytes(size - len(model)))

def noise(n):
    return rnd.randbytes(n)

def compare(data, a, what):
    expect = bytes(model[a:a + len(data)])
    if data != expect:
        at = next(i for i in range(len(data)) if data[i] != expect[i])
        sys.exit(f'seed {seed}, {what}: byte {a + at} is {data[at]}, not {expect[at]}; '
                 f'size {len(model)}; before: {log[-12:]}')

def write():
    a, b = spot(MAX)
    data = noise(b - a)
    if not data:
        return
    assert os.pwrite(fd, data, a) == b - a
    grow(b)
    model[a:b] = data
    return a, b
def append():
    data = noise(rnd.randrange(1, 6000))
    if len(model) + len(data) > MAX:
        return
    a = len(model)
    assert os.pwrite(fd, data, a) == len(data)
    model.extend(data)
    return a, len(model)
def write_direct():
    a = rnd.randrange(MAX // PAGE) * PAGE
    n = rnd.randrange(1, 9) * PAGE
    buffer[:n] = data = noise(n)
    assert os.pwritev(direct, [memoryview(buffer)[:n]], a) == n
    grow(a + n)
    model[a:a + n] = data
    return a, a + n
def read():
    a, b = spot(MAX)
    data = os.pread(fd, b - a, a)
    assert len(data) == max(0, min(b, len(model)) - a), (len(data), a, b)
    compare(data, a, 'read')
    return a, b
def read_direct():
    a = rnd.randrange(MAX // PAGE) * PAGE
    n = os.preadv(direct, [buffer], a)
    assert n == max(0, min(65536, len(model) - a)), (n, a, len(model))
    compare(buffer[:n], a, 'O_DIRECT read')
    return a, a + n
def map_store():
    if not model:
        return
    a, b = spot(len(model))
    with mmap.mmap(fd, 0) as m:
        data = noise(b - a)
        m[a:b] = data
        model[a:b] = data
        if rnd.random() < 0.2:
            m.flush()
    return a, b
def map_beyond():
    """A store beyond the end, which must never show in the file."""
    if len(model) % PAGE:
        # mmap.mmap() refuses to map beyond the end.
        last = len(model) // PAGE * PAGE
        page = libc.mmap(None, PAGE, 3, mmap.MAP_SHARED, fd, last)
        ctypes.memset(page + len(model) - last, 35, last + PAGE - len(model))
        libc.munmap(page, PAGE)
    return len(model)
def map_load():
    if model:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
            compare(m[:], 0, 'load')
def truncate():
    size = spot(MAX)[0]
    os.ftruncate(fd, size)
    del model[size:]
    grow(size)
    return size
def change(mode, zero):
    a, b = spot(MAX)
    if a == b:
        return
    if libc.fallocate(fd, mode, a, b - a) != 0:
        raise OSError(ctypes.get_errno(), 'fallocate')
    if not mode & KEEP:
        grow(b)
    if zero:
        end = min(b, len(model))
        model[a:end] = bytes(max(0, end - a))
    return mode, a, b
def punch(): return change(PUNCH | KEEP, True)
def zero(): return change(rnd.choice((ZERO, ZERO | KEEP)), True)
def allocate(): return change(rnd.choice((0, KEEP)), False)
def sync():
    rnd.choice((os.fsync, os.fdatasync))(fd)
def sync_range():
    a, b = spot(MAX)
    libc.sync_file_range(fd, ctypes.c_long(a), ctypes.c_long(b - a), 7)
    return a, b
def drop():
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
def seek():
    """What SEEK_HOLE calls a hole is zero, and all of the file is one or the other."""
    at = 0
    while at < len(model):
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            data = len(model)
        assert not any(model[at:data]), (at, data)
        if data == len(model):
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        assert data < at <= len(model), (data, at)

operations = [write] * 4 + [append] * 3 + [read] * 3 + [map_store] * 4 + [
    write_direct, read_direct, map_beyond, map_beyond, map_load, truncate, truncate, punch, zero,
    allocate, sync, sync_range, drop, seek]
for n in range(count):
    operation = rnd.choice(operations)
    log.append((operation.__name__, operation()))
    assert os.fstat(fd).st_size == len(model), (seed, n, log[-5:])
compare(os.pread(fd, MAX, 0), 0, 'at the end')
os.close(direct)
os.close(fd)
with open(path + '.model', 'wb') as f:
    f.write(model)
END

seeds=$(sized 5 1)
for ((seed = 1; seed <= seeds; seed++)); do
	must mkfs.rdax -q -f "$PMEM1"
	for mode in never always never always never; do
		must mount -t rdax -o dax=$mode "$PMEM1" "$MNT"
		at_end umount "$MNT"
		[ ! -e "$MNT/file" ] || must cmp "$MNT/file" "$MNT/file.model"
		must python3 fsx.py "$MNT/file" $seed 400
		must umount "$MNT"
	done
	must fsck.rdax -n "$PMEM1"
	must mount -t rdax "$PMEM1" "$MNT"
	must cmp "$MNT/file" "$MNT/file.model"
	must umount "$MNT"
done
