# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Extended attributes: all kinds, small and large, on all types of files, and what is left of them
# after a remount.
. "${0%/*}/lib.sh"

remount() {
	must umount "$MNT"
	must mount -t rdax "$PMEM" "$MNT"
}
used() { df --output=used "$MNT" | tail -n 1 | tr -d ' '; }

cat >xattr.py <<'END'
import errno, os, stat, sys, time
from calls import fails, libc
os.chdir(sys.argv[1])

def make(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

def blocks(name):
    return os.lstat(name).st_blocks // 8

make('f')
assert os.listxattr('f') == []
fails(errno.ENODATA, os.getxattr, 'f', 'user.none')
fails(errno.ENODATA, os.removexattr, 'f', 'user.none')
# Flags.
fails(errno.ENODATA, os.setxattr, 'f', 'user.a', b'x', os.XATTR_REPLACE)
os.setxattr('f', 'user.a', b'x', os.XATTR_CREATE)
fails(errno.EEXIST, os.setxattr, 'f', 'user.a', b'y', os.XATTR_CREATE)
both = os.XATTR_CREATE | os.XATTR_REPLACE
fails(errno.EEXIST, os.setxattr, 'f', 'user.a', b'y', both)
fails(errno.ENODATA, os.setxattr, 'f', 'user.b', b'y', both)
os.setxattr('f', 'user.a', b'value', os.XATTR_REPLACE)
assert os.getxattr('f', 'user.a') == b'value' and blocks('f') == 1
# Values of every kind of size.
for size in 0, 1, 7, 8, 511, 512, 513, 4095, 4096, 4097, 65535, 65536:
    value = bytes([size % 251]) * size
    os.setxattr('f', 'user.size', value)
    assert os.getxattr('f', 'user.size') == value, size
    assert blocks('f') == 1 + (-(-size // 4096) if size > 512 else 0), size
fails(errno.E2BIG, os.setxattr, 'f', 'user.size', b'x' * 65537)
os.removexattr('f', 'user.size')
assert os.listxattr('f') == ['user.a'] and blocks('f') == 1
# A buffer that is too small, by the system call itself.
import ctypes
buf = ctypes.create_string_buffer(4)
assert libc.getxattr(b'f', b'user.a', buf, 4) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.getxattr(b'f', b'user.a', None, 0) == 5
assert libc.listxattr(b'f', buf, 4) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.listxattr(b'f', None, 0) == 7
# Names of the longest length; too many; all of them go.
longest = 'user.' + 'n' * 250
os.setxattr('f', longest, b'long'); assert os.getxattr('f', longest) == b'long'
fails(errno.ERANGE, os.setxattr, 'f', longest + 'n', b'')
count = 0
while True:
    try:
        os.setxattr('f', 'user.many%d' % count, b'v%d' % count)
    except OSError as e:
        assert e.errno == errno.ENOSPC
        break
    count += 1
assert count > 110, count
assert os.getxattr('f', 'user.many%d' % (count - 1)) == b'v%d' % (count - 1)
assert len(os.listxattr('f')) == count + 2
os.removexattr('f', 'user.many7')
os.setxattr('f', 'user.other', b'fits')
for name in os.listxattr('f'):
    os.removexattr('f', name)
assert blocks('f') == 0 and os.listxattr('f') == []
# Types of files and kinds of attributes.
os.mkdir('d'); os.symlink('f', 's'); os.mkfifo('p')
os.mknod('c', 0o600 | stat.S_IFCHR, os.makedev(1, 3))
for name in 'f', 'd':
    os.setxattr(name, 'user.x', b'u')
fails(errno.EPERM, os.setxattr, 's', 'user.x', b'', follow_symlinks=False)
fails(errno.EPERM, os.setxattr, 'p', 'user.x', b'')
for name in 'f', 'd', 's', 'p', 'c':
    os.setxattr(name, 'trusted.x', b't' + name.encode(), follow_symlinks=False)
    os.setxattr(name, 'security.x', b's', follow_symlinks=False)
    assert os.getxattr(name, 'trusted.x', follow_symlinks=False) == b't' + name.encode()
assert sorted(os.listxattr('f')) == ['security.x', 'trusted.x', 'user.x']
fails(errno.EOPNOTSUPP, os.setxattr, 'f', 'other.x', b'')
fails(errno.EINVAL, os.setxattr, 'f', 'user.', b'')
# A user sees what is his to see.
os.chmod('f', 0o666)
pid = os.fork()
if pid == 0:
    os.setgid(1000); os.setuid(1000)
    assert sorted(os.listxattr('f')) == ['security.x', 'user.x']
    fails(errno.ENODATA, os.getxattr, 'f', 'trusted.x')
    fails(errno.EPERM, os.setxattr, 'f', 'trusted.y', b'')
    os.setxattr('f', 'user.y', b'mine')
    fails(errno.EACCES, os.setxattr, 'd', 'user.y', b'')
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
# ctime moves, mtime does not.
a = os.stat('f'); time.sleep(0.02); os.setxattr('f', 'user.y', b'new'); b = os.stat('f')
assert b.st_ctime_ns > a.st_ctime_ns and b.st_mtime_ns == a.st_mtime_ns
# Capabilities go when the file is written.
os.setxattr('f', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))
assert 'security.capability' in os.listxattr('f')
with open('f', 'w') as f:
    f.write('x')
assert 'security.capability' not in os.listxattr('f')
# Two names of one inode; rename; a file without a name.
os.link('f', 'g'); assert os.getxattr('g', 'user.y') == b'new'
os.rename('g', 'd/g'); assert os.getxattr('d/g', 'user.y') == b'new'
fd = os.open('.', os.O_TMPFILE | os.O_RDWR)
os.setxattr(fd, 'user.t', b't' * 5000); assert os.getxattr(fd, 'user.t') == b't' * 5000
os.close(fd)
os.setxattr('d', 'user.large', b'L' * 65536)
make('gone'); os.setxattr('gone', 'user.large', b'G' * 65536)
END
must python3 xattr.py "$MNT"
remount
python3 - "$MNT" <<'END' || fail "attributes after a remount"
import os, sys
os.chdir(sys.argv[1])
assert os.getxattr('d', 'user.large') == b'L' * 65536
assert os.getxattr('d/g', 'user.y') == b'new' and os.getxattr('f', 'user.x') == b'u'
assert os.getxattr('s', 'trusted.x', follow_symlinks=False) == b'ts'
assert sorted(os.listxattr('p')) == ['security.x', 'trusted.x']
END

# What goes with its file gives its blocks back: 16 for the value, one for the name.
before=$(used)
must rm "$MNT/gone"
same "what came back" $((17 * 4)) $((before - $(used)))
find "$MNT" -mindepth 1 -delete

# ENOSPC, and nothing half done.
must fallocate -l "$(($(df --output=avail -B1 "$MNT" | tail -n 1) - 200 * 4096))" "$MNT/fill"
python3 - "$MNT" <<'END' || fail "attributes without space"
import errno, os, sys
os.chdir(sys.argv[1])
open('f', 'w').close()
n = 0
try:
    while True:
        os.setxattr('f', 'user.v%d' % n, bytes([n]) * 65536)
        n += 1
except OSError as e:
    assert e.errno == errno.ENOSPC
assert 5 < n < 15 and len(os.listxattr('f')) == n, n
for i in range(n):
    assert os.getxattr('f', 'user.v%d' % i) == bytes([i]) * 65536
# There is room to take them away.
for i in range(n):
    os.removexattr('f', 'user.v%d' % i)
END
