# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Reading a large directory, in small pieces, while it changes: what is there all the time is seen
# exactly once, and positions stay good.
. "${0%/*}/lib.sh"

cat >readdir.py <<'END'
import ctypes, os, random, struct, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.lseek.restype = ctypes.c_long
libc.lseek.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]

def entries(fd, size):
    """Entries as (name, position after it), by getdents64 with a buffer of size bytes."""
    buf = ctypes.create_string_buffer(size)
    while True:
        n = libc.syscall(217, fd, buf, size)
        assert n >= 0, os.strerror(ctypes.get_errno())
        if n == 0:
            return
        at = 0
        while at < n:
            ino, off, reclen, kind = struct.unpack_from('<QqHB', buf.raw, at)
            name = buf.raw[at + 19:at + reclen].split(b'\0')[0]
            assert ino and off >= 0
            yield name, off
            at += reclen

random.seed(1)
os.mkdir('big')
stay = {b'stay%d' % i for i in range(3000)}
for name in stay:
    os.close(os.open(b'big/' + name, os.O_CREAT))
come = 0
for size in 300, 4096, 32768:
    fd = os.open('big', os.O_RDONLY)
    seen, positions = [], []
    for name, off in entries(fd, size):
        seen.append(name)
        positions.append((name, off))
        if random.random() < 0.2:
            come += 1
            os.close(os.open('big/come%d' % come, os.O_CREAT))
            if random.random() < 0.7:
                os.unlink('big/come%d' % come)
    found = [n for n in seen if n in stay]
    assert len(found) == len(set(found)) == len(stay), (len(found), len(set(found)))
    assert len(seen) == len(set(seen)), 'an entry was seen twice'
    assert seen[:2] == [b'.', b'..']
    # From any position the rest follows.
    for i in random.sample(range(len(positions)), 40):
        libc.lseek(fd, positions[i][1], 0)
        rest = [n for n, _ in entries(fd, size) if n in stay]
        want = [n for n, _ in positions[i + 1:] if n in stay]
        assert rest == want, i
    os.close(fd)
# Removing while reading.
fd = os.open('big', os.O_RDONLY)
for name, _ in entries(fd, 1000):
    if name not in (b'.', b'..'):
        os.unlink(b'big/' + name)
os.close(fd)
assert os.listdir('big') == []
os.rmdir('big')
END
must python3 readdir.py "$MNT"
