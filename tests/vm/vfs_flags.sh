# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# File attributes: immutable, append-only, noatime and nodump hold, are kept, and are inherited as
# far as they should be; others are refused.
. "${0%/*}/lib.sh"

cat >flags.py <<'END'
import ctypes, errno, fcntl, os, struct, sys, time
os.chdir(sys.argv[1])
GET, SET, XGET, XSET = 0x80086601, 0x40086602, 0x801c581f, 0x401c5820
IMMUTABLE, APPEND, NODUMP, NOATIME, DAX, SYNC = 0x10, 0x20, 0x40, 0x80, 0x2000000, 0x8
from calls import fails, libc

def get(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    data = bytearray(8)
    fcntl.ioctl(fd, GET, data)
    os.close(fd)
    return struct.unpack_from('I', data)[0]

def set(path, flags):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, SET, struct.pack('Q', flags))
    finally:
        os.close(fd)

def stat_flags(path):
    buf = ctypes.create_string_buffer(256)
    assert libc.syscall(332, -100, path.encode(), 0, 0xfff, buf) == 0
    attributes, mask = (struct.unpack_from('<Q', buf.raw, at)[0] for at in (8, 56))
    # immutable, append, nodump
    assert mask & 0x70 == 0x70
    return attributes & 0x70

def make(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))

if sys.argv[2] == 'after':
    assert get('i') == IMMUTABLE and stat_flags('i') == 0x10
    fails(errno.EPERM, lambda: open('i', 'r+'))
    assert get('a') == APPEND | NODUMP and stat_flags('a') == 0x60
    assert open('a').read() == 'onetwo'
    fails(errno.EPERM, lambda: os.truncate('a', 0))
    set('i', 0)
    set('a', 0)
    open('i', 'r+').write('x')
    os.unlink('a')
    sys.exit()

for name in 'i', 'a', 'n', 'o':
    make(name)
    # From the root directory.
    assert get(name) == DAX and stat_flags(name) == 0
before = os.stat('i')
time.sleep(0.02)
set('i', IMMUTABLE)
after = os.stat('i')
assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns
for call in (lambda: open('i', 'w'), lambda: os.chmod('i', 0o600), lambda: os.unlink('i'),
             lambda: os.rename('i', 'j'), lambda: os.link('i', 'j'), lambda: os.truncate('i', 0)):
    fails(errno.EPERM, call)
set('a', APPEND | NODUMP)
fails(errno.EPERM, lambda: open('a', 'r+'))
fd = os.open('a', os.O_WRONLY | os.O_APPEND)
os.write(fd, b'one')
os.write(fd, b'two')
fails(errno.EPERM, lambda: os.ftruncate(fd, 1))
fails(errno.EPERM, lambda: os.unlink('a'))
# noatime
os.utime('n', (1, 1))
os.utime('o', (1, 1))
set('n', NOATIME)
for name in 'n', 'o':
    open(name, 'a').write('x')
    os.utime(name, (1, 2))
    open(name).read()
assert os.stat('n').st_atime == 1 and os.stat('o').st_atime != 1
# The two interfaces show the same.
fd = os.open('o', os.O_RDONLY)
x = bytearray(28)
set('o', NODUMP | NOATIME)
fcntl.ioctl(fd, XGET, x)
assert struct.unpack_from('I', x)[0] == 0x40 | 0x80, x
fcntl.ioctl(fd, XSET, struct.pack('I', 0x8000) + bytes(24))
assert get('o') == DAX
# What is not known is refused, and changes nothing.
fails(errno.EOPNOTSUPP, lambda: set('o', SYNC | NODUMP))
for bad in (struct.pack('I', 0x20) + bytes(24), struct.pack('II', 0x800, 4096) + bytes(20),
            struct.pack('IIII', 0, 0, 0, 7) + bytes(12)):
    fails(errno.EOPNOTSUPP, lambda: fcntl.ioctl(fd, XSET, bad))
assert get('o') == DAX
# From the directory.
os.mkdir('d')
set('d', NODUMP | NOATIME | DAX | APPEND)
os.mkdir('d/e')
make('d/f')
os.mkfifo('d/p')
assert get('d/e') == get('d/f') == NODUMP | NOATIME | DAX, hex(get('d/f'))
fails(errno.EPERM, lambda: os.unlink('d/f'))
set('d', 0)
os.unlink('d/f')
# Without permission.
os.chmod('o', 0o666)
pid = os.fork()
if pid == 0:
    os.setuid(65534)
    fails(errno.EPERM, lambda: set('o', NODUMP))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
END
must python3 flags.py "$MNT" before
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
must python3 flags.py "$MNT" after
