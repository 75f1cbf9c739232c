# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Files without mappings: read, write, append, O_TRUNC, O_DIRECT, truncate, sparse files, SEEK_HOLE
# and SEEK_DATA, fallocate, limits, against a model in memory; and again after a remount.
# timeout: 300
. "${0%/*}/lib.sh"

cat >files.py <<'END'
import ctypes, errno, os, random, resource, signal, sys
from calls import fails, fallocate, libc
os.chdir(sys.argv[1])
KEEP, PUNCH, ZERO = 1, 2, 16

def content(name):
    with open(name, 'rb') as f:
        return f.read()

# Against a model.
for seed in range(8):
    rng = random.Random(seed)
    limit = rng.choice([20000, 300000, 6 << 20])
    flags = os.O_RDWR | os.O_CREAT | (os.O_DIRECT if seed % 2 else 0)
    name, model = 'model%d' % seed, bytearray()
    fd = os.open(name, flags)
    for step in range(300):
        at, n = rng.randrange(limit), rng.randrange(1, limit // 4)
        what = rng.choice(['write', 'write', 'write', 'append', 'truncate', 'punch', 'zero',
                           'allocate', 'read', 'seek'])
        if what in ('write', 'append'):
            if what == 'append':
                at = len(model)
            data = rng.randbytes(min(n, limit - at)) if at < limit else b''
            if rng.random() < 0.3:
                cut = rng.randrange(len(data) + 1)
                assert os.pwritev(fd, [data[:cut], data[cut:]], at) == len(data)
            elif what == 'append':
                other = os.open(name, os.O_WRONLY | os.O_APPEND)
                assert os.write(other, data) == len(data)
                os.close(other)
            else:
                assert os.pwrite(fd, data, at) == len(data)
            if data:
                model.extend(bytes(max(0, at - len(model))))
                model[at:at + len(data)] = data
        elif what == 'truncate':
            os.ftruncate(fd, at)
            del model[at:]
            model.extend(bytes(at - len(model)))
        elif what == 'punch':
            fallocate(fd, PUNCH | KEEP, at, n)
            end = min(at + n, len(model))
            model[at:end] = bytes(max(0, end - at))
        elif what in ('zero', 'allocate'):
            keep = rng.choice([0, KEEP])
            fallocate(fd, (ZERO if what == 'zero' else 0) | keep, at, n)
            if not keep:
                model.extend(bytes(max(0, at + n - len(model))))
            if what == 'zero':
                end = min(at + n, len(model))
                model[at:end] = bytes(max(0, end - at))
        elif what == 'seek' and at < len(model):
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            assert at <= hole <= len(model)
            try:
                data = os.lseek(fd, at, os.SEEK_DATA)
                assert at <= data < len(model) and (data == at) == (hole != at)
            except OSError as e:
                assert e.errno == errno.ENXIO
                data = len(model)
            assert not any(model[at:data]), 'data in a hole'
        got = os.pread(fd, n, at)
        assert got == bytes(model[at:at + n]), (seed, step, what)
        assert os.fstat(fd).st_size == len(model), (seed, step, what)
    assert content(name) == bytes(model)
    os.close(fd)
# Sparse and huge.
fd = os.open('huge', os.O_RDWR | os.O_CREAT)
for at in 0, 1 << 40, 2**63 - 1 - 10:
    assert os.pwrite(fd, b'0123456789', at) == 10
assert os.fstat(fd).st_size == 2**63 - 1 and os.fstat(fd).st_blocks <= 8 * 8
assert os.pread(fd, 10, 2**63 - 1 - 10) == b'0123456789' and os.pread(fd, 4, 1 << 39) == bytes(4)
assert os.lseek(fd, 4096, os.SEEK_DATA) == 1 << 40
assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
fails(errno.ENXIO, os.lseek, fd, 2**63 - 1, os.SEEK_DATA)
fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
os.ftruncate(fd, 0); assert os.fstat(fd).st_blocks == 0
fails(errno.EINVAL, os.ftruncate, fd, -1)
fails(errno.EOPNOTSUPP, fallocate, fd, 256, 0, 4096)
os.close(fd)
# O_TRUNC, and what cannot be read or written.
assert content('model0') or True
os.close(os.open('model0', os.O_WRONLY | os.O_TRUNC)); assert content('model0') == b''
fd = os.open('model0', os.O_RDONLY); fails(errno.EBADF, os.write, fd, b'x'); os.close(fd)
fails(errno.EISDIR, os.read, os.open('.', os.O_RDONLY), 1)
# Bad addresses: an error, or what was done before it.
fd = os.open('fault', os.O_RDWR | os.O_CREAT)
assert libc.pwrite(fd, ctypes.c_void_p(8), 4096, 0) == -1 and ctypes.get_errno() == errno.EFAULT
assert os.fstat(fd).st_size == 0 and os.fstat(fd).st_blocks == 0
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
page = libc.mmap(None, 8192, 3, 0x22, -1, 0)
ctypes.memset(page, 0x41, 8192)
assert libc.munmap(page + 4096, 4096) == 0
assert libc.pwrite(fd, ctypes.c_void_p(page), 8192, 100) == 4096
assert content('fault') == bytes(100) + b'A' * 4096
os.close(fd)
# RLIMIT_FSIZE.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
fd = os.open('limited', os.O_RDWR | os.O_CREAT)
assert os.write(fd, bytes(6000)) == 5000
fails(errno.EFBIG, os.write, fd, b'x'); fails(errno.EFBIG, os.ftruncate, fd, 5001)
fails(errno.EFBIG, fallocate, fd, 0, 0, 5001)
END
must python3 files.py "$MNT"
sums() { (cd "$MNT" && sha256sum -- *); }
before=$(sums) known=$(inodes)
must umount "$MNT"
must fsck.rdax -n "$PMEM"
must mount -t rdax "$PMEM" "$MNT"
same "contents after a remount" "$before" "$(sums)"
same "inodes after a remount" "$known" "$(inodes)"

# No space: an error, what was written before it stays, and removing gives it back.
free() { df --output=avail "$MNT" | tail -n 1 | tr -d ' '; }
rm "$MNT"/*
before=$(free)
dd if=/dev/zero of="$MNT/full" bs=1M 2>error && fail "a write of more than there is succeeded"
grep -q 'No space left' error || fail "$(<error)"
same "space left" 0 "$(free)"
! touch "$MNT"/{1..300} 2>/dev/null || fail "inodes without space for them"
rm -f "$MNT"/*
sync
[ $((before - $(free))) -le 1024 ] || fail "space was lost: $before before, $(free) after"

# splice, sendfile, copy_file_range.
dd if=/dev/urandom of=source bs=1M count=3 status=none
cp source "$MNT/copy"
python3 - "$MNT" <<'END'
import os, sys
os.chdir(sys.argv[1])
src, size = os.open('copy', os.O_RDONLY), os.stat('copy').st_size
for name, call in (('sent', lambda d, n, at: os.sendfile(d, src, at, n)),
                   ('ranged', lambda d, n, at: os.copy_file_range(src, d, n, at, at))):
    dst, at = os.open(name, os.O_CREAT | os.O_WRONLY), 0
    while at < size:
        n = call(dst, size - at, at)
        assert n > 0
        at += n
r, w = os.pipe()
dst, at = os.open('spliced', os.O_CREAT | os.O_WRONLY), 0
while at < size:
    n = os.splice(src, w, 65536, offset_src=at)
    at += n
    while n:
        n -= os.splice(r, dst, n)
END
for name in copy sent ranged spliced; do
	must cmp source "$MNT/$name"
done
