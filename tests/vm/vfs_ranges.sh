# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Ranges of files: collapse, insert, unshare and write zeroes against a model, with mappings and
# through the page cache; FIEMAP, SEEK_HOLE and SEEK_DATA to the block, also while faults fill holes;
# the label; FITRIM.
# timeout: 300
. "${0%/*}/lib.sh"

cat >ranges.py <<'END'
import errno, fcntl, mmap, os, random, struct, sys
from calls import fails, fallocate
os.chdir(sys.argv[1])
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE, WRITE_ZEROES = 1, 2, 8, 16, 32, 64, 128
B = 4096

def fiemap(fd, start=0, length=2**64 - 1, room=64, flags=1):
    """(file block, block, blocks, last) of each extent; last is 2 or 3 if it is unwritten."""
    buf = bytearray(struct.pack('<QQIIII', start, length, flags, 0, room, 0) + bytes(56 * room))
    fcntl.ioctl(fd, 0xc020660b, buf)
    n = struct.unpack_from('<I', buf, 20)[0]
    found = []
    for i in range(min(n, room)):
        logical, physical, size = struct.unpack_from('<QQQ', buf, 32 + 56 * i)
        bits = struct.unpack_from('<I', buf, 32 + 56 * i + 40)[0]
        assert (logical | physical | size) % B == 0 and bits & ~0x801 == 0
        found.append((logical // B, physical // B, size // B, bits & 1 | bits >> 10))
    return found if room else n

def seeks(fd):
    """The file blocks that are data, by SEEK_DATA and SEEK_HOLE."""
    at, end, data = 0, os.fstat(fd).st_size, set()
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO
            break
        to = os.lseek(fd, at, os.SEEK_HOLE)
        assert to > at
        data.update(range(at // B, -(-to // B)))
        at = to
    return data

# Against a model.
for seed in range(3):
    rng = random.Random(seed)
    name, model, mapped = 'model%d' % seed, bytearray(), {}
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    for step in range(80):
        size = len(model)
        blocks = size // B
        what = rng.choice(['write', 'write', 'punch', 'collapse', 'insert', 'zeroes', 'unshare', 'map',
                           'allocate', 'zero'])
        if what == 'write':
            at = rng.randrange(60 * B)
            data = rng.randbytes(rng.randrange(1, 10 * B))
            os.pwrite(fd, data, at)
            model.extend(bytes(max(0, at + len(data) - size)))
            model[at:at + len(data)] = data
        elif what == 'punch' and size:
            at = rng.randrange(size); n = rng.randrange(1, 8 * B)
            fallocate(fd, PUNCH | KEEP, at, n)
            end = min(size, at + n); model[at:end] = bytes(end - at)
        elif what == 'collapse' and blocks > 2:
            at = rng.randrange(blocks - 1)
            n = rng.randrange(1, min(blocks - at, 12))
            if (at + n) * B < size:
                fallocate(fd, COLLAPSE, at * B, n * B)
                del model[at * B:(at + n) * B]
            else:
                fails(errno.EINVAL, fallocate, fd, COLLAPSE, at * B, n * B)
        elif what == 'insert' and blocks > 1 and size < 200 * B:
            at, n = rng.randrange(blocks), rng.randrange(1, 12)
            fallocate(fd, INSERT, at * B, n * B)
            model[at * B:at * B] = bytes(n * B)
        elif what == 'zeroes':
            at, n = rng.randrange(60 * B), rng.randrange(1, 8 * B)
            fallocate(fd, WRITE_ZEROES, at, n)
            model.extend(bytes(max(0, at + n - size)))
            model[at:at + n] = bytes(n)
            assert set(range(at // B, -(-(at + n) // B))) <= seeks(fd)
        elif what == 'zero':
            at, n = rng.randrange(60 * B), rng.randrange(1, 8 * B)
            keep = rng.choice([0, KEEP])
            fallocate(fd, ZERO | keep, at, n)
            if not keep:
                model.extend(bytes(max(0, at + n - size)))
            end = min(len(model), at + n); model[at:end] = bytes(max(0, end - at))
            assert not set(range(-(-at // B), (at + n) // B)) & seeks(fd)
        elif what == 'allocate':
            at, n = rng.randrange(60 * B), rng.randrange(1, 16 * B)
            keep = rng.choice([0, KEEP])
            before = seeks(fd)
            fallocate(fd, keep, at, n)
            if not keep:
                model.extend(bytes(max(0, at + n - size)))
            assert seeks(fd) == before
        elif what == 'unshare':
            at, n = rng.randrange(60 * B), rng.randrange(1, 8 * B)
            fallocate(fd, UNSHARE, at, n)
            model.extend(bytes(max(0, at + n - size)))
        elif what == 'map' and blocks:
            # A mapping that stays, and is stored to.
            m = mmap.mmap(fd, blocks * B)
            at = rng.randrange(blocks * B); m[at] = 0x55; model[at] = 0x55
            mapped[m] = blocks * B
        for m, n in mapped.items():
            n = min(n, len(model) // B * B)
            assert m[:n] == bytes(model[:n]), (seed, step, what, 'mapping')
        assert os.fstat(fd).st_size == len(model), (seed, step, what)
        assert os.pread(fd, len(model) + 1, 0) == bytes(model), (seed, step, what)
    os.fsync(fd)
    # What FIEMAP shows within the size is what SEEK_DATA does.
    extents = fiemap(fd, room=1000)
    end = -(-len(model) // B)
    shown = {b for first, _, n, bits in extents if bits < 2 for b in range(first, min(first + n, end))}
    assert shown == seeks(fd)
    assert len(shown) <= os.fstat(fd).st_blocks // 8
    os.close(fd)
# Arguments.
fd = os.open('a', os.O_RDWR | os.O_CREAT)
os.pwrite(fd, b'x' * (4 * B), 0)
for mode in COLLAPSE, INSERT:
    fails(errno.EINVAL, fallocate, fd, mode, 1, B)
    fails(errno.EINVAL, fallocate, fd, mode, 0, B + 1)
    fails(errno.EINVAL, fallocate, fd, mode, 4 * B, B)
fails(errno.EINVAL, fallocate, fd, COLLAPSE, 0, 4 * B)
fails(errno.EFBIG, fallocate, fd, INSERT, B, 2**63 - B)
assert os.fstat(fd).st_size == 4 * B
os.ftruncate(fd, 2**63 - 1)
fails(errno.EFBIG, fallocate, fd, INSERT, B, B)
fallocate(fd, COLLAPSE, 0, 2**62)
assert os.fstat(fd).st_size == 2**62 - 1 and os.fstat(fd).st_blocks == 0
os.close(fd)

# SEEK_HOLE, SEEK_DATA and FIEMAP exactly.
fd = os.open('sparse', os.O_RDWR | os.O_CREAT)
for block in 3, 4, 9, 30:
    os.pwrite(fd, b'd' * B, block * B)
os.ftruncate(fd, 40 * B + 5)
assert seeks(fd) == {3, 4, 9, 30}
assert os.lseek(fd, 3 * B + 7, os.SEEK_DATA) == 3 * B + 7
assert os.lseek(fd, 4 * B + 7, os.SEEK_HOLE) == 5 * B
assert os.lseek(fd, 40 * B + 1, os.SEEK_HOLE) == 40 * B + 1
fails(errno.ENXIO, os.lseek, fd, 31 * B, os.SEEK_DATA)
os.fsync(fd)
extents = fiemap(fd)
assert [(a, n) for a, _, n, _ in extents if a < 9] in ([(3, 2)], [(3, 1), (4, 1)])
assert [(a, n, last) for a, _, n, last in extents][-2:] == [(9, 1, 0), (30, 1, 1)]
assert fiemap(fd, 5 * B, 4 * B) == [] and fiemap(fd, 5 * B, 4 * B + 1)[0][0] == 9
assert fiemap(fd, 31 * B) == []
assert fiemap(fd, room=0) == len(extents) and fiemap(fd, room=1) == extents[:1]
fails(errno.EBADR, fiemap, fd, 0, B, 4, 2)
# Preallocated beyond the end.
fallocate(fd, KEEP, 50 * B, 2 * B)
beyond = [(a, n, last) for a, _, n, last in fiemap(fd) if a > 40]
assert beyond in ([(50, 2, 3)], [(50, 1, 2), (51, 1, 3)]), beyond
os.close(fd)

# Unwritten blocks: written by write(2), and back.
fd = os.open('ahead', os.O_RDWR | os.O_CREAT)
def kinds():
    """The blocks that are data, and those that are unwritten."""
    os.fsync(fd)
    found = fiemap(fd, room=100)
    blocks = lambda bits: [b for f, _, n, k in found if k & 2 == bits for b in range(f, f + n)]
    return blocks(0), blocks(2)
fallocate(fd, 0, 0, 10 * B)
assert kinds() == ([], list(range(10))) and seeks(fd) == set()
free = os.statvfs('.').f_bfree
os.pwrite(fd, b'x' * 100, 3 * B + 50)
os.pwrite(fd, b'y' * 2 * B, 6 * B - 1)
assert kinds() == ([3, 5, 6, 7], [0, 1, 2, 4, 8, 9]) and seeks(fd) == {3, 5, 6, 7}
expected = bytearray(10 * B)
expected[3 * B + 50:3 * B + 150] = b'x' * 100
expected[6 * B - 1:8 * B - 1] = b'y' * 2 * B
assert os.pread(fd, 11 * B, 0) == bytes(expected)
fallocate(fd, ZERO, 3 * B + 100, 4 * B)
expected[3 * B + 100:7 * B + 100] = bytes(4 * B)
assert kinds() == ([3, 7], [0, 1, 2, 4, 5, 6, 8, 9]), kinds()
assert os.pread(fd, 11 * B, 0) == bytes(expected)
fallocate(fd, WRITE_ZEROES, 0, 2 * B)
fallocate(fd, COLLAPSE, 2 * B, 2 * B)
del expected[2 * B:4 * B]
assert kinds() == ([0, 1, 5], [2, 3, 4, 6, 7]) and os.pread(fd, 11 * B, 0) == bytes(expected)
# The end moves over them.
fallocate(fd, KEEP, 8 * B, 4 * B)
os.pwrite(fd, b'z', 9 * B + 7)
assert os.fstat(fd).st_size == 9 * B + 8
expected.extend(bytes(B + 8)); expected[9 * B + 7] = ord('z')
os.ftruncate(fd, 11 * B + 1)
expected.extend(bytes(11 * B + 1 - len(expected)))
assert os.pread(fd, 12 * B, 0) == bytes(expected)
assert kinds() == ([0, 1, 5, 9], [2, 3, 4, 6, 7, 8, 10, 11])
# Two blocks went, and four came.
assert os.statvfs('.').f_bfree == free + 2 - 4
os.close(fd)

# While another process fills holes by faults.
fd = os.open('race', os.O_RDWR | os.O_CREAT)
size = 16 << 20
os.ftruncate(fd, size)
pid = os.fork()
if pid == 0:
    m = mmap.mmap(fd, size)
    order = list(range(0, size // B, 2))
    random.Random(1).shuffle(order)
    for block in order:
        m[block * B] = 1
    os._exit(0)
done, rounds = 0, 0
while not done:
    fiemap(fd, room=8, start=random.randrange(size))
    os.lseek(fd, random.randrange(size - B), os.SEEK_HOLE)
    rounds += 1
    done = os.waitpid(pid, os.WNOHANG)[0]
assert rounds > 10
os.close(fd)

# The label, and what there is no use for.
fd = os.open('.', os.O_RDONLY)
GET, SET, TRIM = 0x81009431, 0x41009432, 0xc0185879
def label():
    return fcntl.ioctl(fd, GET, bytes(256)).rstrip(b'\0')
for text in b'a label', 'Etikett äöü'.encode(), b'', b'x' * 32:
    fcntl.ioctl(fd, SET, text.ljust(256, b'\0')); assert label() == text
fails(errno.EINVAL, fcntl.ioctl, fd, SET, (b'x' * 33).ljust(256, b'\0'))
fails(errno.EINVAL, fcntl.ioctl, fd, SET, b'\xff'.ljust(256, b'\0'))
assert label() == b'x' * 32
fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, TRIM, bytearray(24))
pid = os.fork()
if pid == 0:
    os.setuid(1000)
    fails(errno.EPERM, fcntl.ioctl, fd, SET, b'no'.ljust(256, b'\0'))
    assert label() == b'x' * 32
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
END
mark_log
for dax in always never; do
	must umount "$MNT"
	must mount -t rdax -o "dax=$dax" "$PMEM" "$MNT"
	rm -rf "${MNT:?}"/*
	must python3 ranges.py "$MNT"
	if log_since | grep -q 'rdax: .*damaged'; then
		fail "$(log_since)"
	fi
	sums=$(cd "$MNT" && sha256sum -- model* sparse ahead)
	must umount "$MNT"
	must fsck.rdax -n "$PMEM"
	must mount -t rdax "$PMEM" "$MNT"
	same "contents after a remount" "$sums" "$(cd "$MNT" && sha256sum -- model* sparse ahead)"
done

# More than there is: refused before a block is taken. Where the file has blocks already, none is
# needed.
cat >full.py <<'END'
import errno, os, sys
from calls import fails, fallocate
os.chdir(sys.argv[1])
KEEP, ZERO, WRITE_ZEROES, B = 1, 16, 128, 4096
fd = os.open('full', os.O_RDWR | os.O_CREAT)
fallocate(fd, 0, 100 * B, 3000 * B)
data = b'data' * 1024
os.pwrite(fd, data, 1000 * B)
free = os.statvfs('.').f_bavail
for mode in 0, KEEP, ZERO, WRITE_ZEROES:
    fails(errno.ENOSPC, fallocate, fd, mode, 0, (free + 3001) * B)
    assert (os.statvfs('.').f_bavail, os.fstat(fd).st_size) == (free, 3100 * B), mode
    assert os.pread(fd, B, 1000 * B) == data, mode
fallocate(fd, KEEP, 0, (free + 2900) * B)
assert os.statvfs('.').f_bavail <= 100 and os.fstat(fd).st_blocks >= (free + 2900) * 8
END
must umount "$MNT"
must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
must python3 full.py "$MNT"
must umount "$MNT"
must fsck.rdax -n "$PMEM1"
