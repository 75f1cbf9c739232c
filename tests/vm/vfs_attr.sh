# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Owner, mode, setgid, sticky and times as POSIX says, and durable.
. "${0%/*}/lib.sh"

remount() {
	must umount "$MNT"
	must mount -t rdax "$PMEM" "$MNT"
}
cat >attr.py <<'END'
import errno, fcntl, os, stat, struct, sys, time
from calls import as_user, fails
os.chdir(sys.argv[1])
os.umask(0)

def mode(name):
    return stat.S_IMODE(os.lstat(name).st_mode)

def make(name, m=0o644):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, m))

os.chmod('.', 0o777)
# umask, chmod, chown.
os.umask(0o027); make('f', 0o666); os.mkdir('d'); os.umask(0)
assert mode('f') == 0o640 and mode('d') == 0o750
os.chmod('f', 0o4755); os.chown('f', 1000, 1001)
s = os.stat('f'); assert (s.st_uid, s.st_gid) == (1000, 1001)
assert mode('f') == 0o755, 'chown leaves setuid'
assert as_user(1002, 1002, lambda: os.chmod('f', 0o777)) == errno.EPERM
assert as_user(1002, 1002, lambda: os.chown('f', 1002, -1)) == errno.EPERM
assert as_user(1000, 1001, lambda: os.chmod('f', 0o600)) == 0 and mode('f') == 0o600
assert as_user(1002, 1002, lambda: os.open('f', os.O_RDONLY)) == errno.EACCES
# setuid and setgid go when another writes.
os.chmod('f', 0o6777)
def write():
    fd = os.open('f', os.O_WRONLY); os.write(fd, b'x')
assert as_user(1002, 1002, write) == 0 and mode('f') == 0o777, oct(mode('f'))
os.chmod('f', 0o6777)
assert as_user(1002, 1002, lambda: os.truncate('f', 0)) == 0 and mode('f') == 0o777
os.chmod('f', 0o6777)
def allocate():
    os.posix_fallocate(os.open('f', os.O_WRONLY), 0, 4096)
assert as_user(1002, 1002, allocate) == 0 and mode('f') == 0o777
# setgid directories pass on their group; to directories also the bit.
os.mkdir('g'); os.chown('g', 0, 1005); os.chmod('g', 0o2777)
def inside():
    make('g/f', 0o2755); os.mkdir('g/d'); os.symlink('x', 'g/s')
assert as_user(1002, 1002, inside) == 0
for name in 'g/f', 'g/d', 'g/s':
    s = os.lstat(name); assert (s.st_uid, s.st_gid) == (1002, 1005), name
assert mode('g/d') & stat.S_ISGID and not mode('g/f') & stat.S_ISGID
# A sticky directory.
os.mkdir('t'); os.chmod('t', 0o1777); make('t/f'); os.chown('t/f', 1000, 1000)
assert as_user(1002, 1002, lambda: os.unlink('t/f')) == errno.EPERM
assert as_user(1002, 1002, lambda: os.rename('t/f', 't/g')) == errno.EPERM
assert as_user(1000, 1000, lambda: os.unlink('t/f')) == 0
# Times: set, far away, and moved by what moves them.
make('u')
for t in 0, -1, -2**40, 2**33 + 1, 2**40:
    ns = t * 10**9 + 123456789
    os.utime('u', ns=(ns, ns + 1)); s = os.stat('u')
    assert (s.st_atime_ns, s.st_mtime_ns) == (ns, ns + 1), t
def moved(call, path='u'):
    """Which of mtime and ctime move."""
    a = os.stat(path); time.sleep(0.02); call(); b = os.stat(path)
    return b.st_mtime_ns != a.st_mtime_ns, b.st_ctime_ns > a.st_ctime_ns
def overwrite():
    fd = os.open('u', os.O_WRONLY); os.write(fd, b'data'); os.close(fd)
assert moved(overwrite) == (True, True) and moved(overwrite) == (True, True)
assert moved(lambda: os.truncate('u', 10)) == (True, True)
assert moved(lambda: os.truncate('u', 20)) == (True, True)
assert moved(lambda: os.chmod('u', 0o600)) == (False, True)
assert moved(lambda: os.link('u', 'v')) == (False, True)
assert moved(lambda: os.rename('v', 'w')) == (False, True)
assert moved(lambda: os.unlink('w')) == (False, True)
assert moved(lambda: open('u').read()) == (False, False)
for call in (lambda: make('d/x'), lambda: os.rename('d/x', 'd/y'), lambda: os.link('d/y', 'd/z'),
             lambda: os.unlink('d/z'), lambda: os.mkdir('d/m'), lambda: os.rmdir('d/m'),
             lambda: os.symlink('q', 'd/q')):
    assert moved(call, 'd') == (True, True)
# A call that fails moves none, and a file without a name none of the directory.
os.makedirs('k/full/x'); os.mkdir('k/e'); make('k/f')
def times():
    return [(p, os.lstat(p).st_mtime_ns, os.lstat(p).st_ctime_ns)
            for p in ('k', 'k/full', 'k/e', 'k/f')]
def fill():
    for n in range(1000):
        os.setxattr('k/f', 'user.%d' % n, b'')
def set_acl(path):
    entries = (1, 6, -1), (2, 4, 7), (4, 4, -1), (16, 4, -1), (32, 4, -1)
    acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *e) for e in entries)
    os.setxattr(path, 'system.posix_acl_access', acl)
fails(errno.ENOSPC, fill)
wrong = []
for name, number, call in (
        ('rmdir', errno.ENOTEMPTY, lambda: os.rmdir('k/full')),
        ('rename', errno.ENOTEMPTY, lambda: os.rename('k/e', 'k/full')),
        ('removexattr', errno.ENODATA, lambda: os.removexattr('k/f', 'user.none')),
        ('setxattr', errno.EEXIST, lambda: os.setxattr('k/f', 'user.1', b'', os.XATTR_CREATE)),
        ('an ACL', errno.ENOSPC, lambda: set_acl('k/f')),
        ('O_TMPFILE', 0, lambda: os.close(os.open('k', os.O_TMPFILE | os.O_RDWR)))):
    before = times(); time.sleep(0.02)
    if number:
        fails(number, call)
    else:
        call()
    wrong += [(name, a[0]) for a, b in zip(before, times()) if a != b]
assert not wrong, wrong
fd = os.open('k', os.O_TMPFILE | os.O_RDWR); s = os.fstat(fd); os.close(fd)
assert s.st_ctime_ns == s.st_mtime_ns > os.stat('k').st_ctime_ns
# For a look after the remount: one change each, which moves ctime.
for name in 'ctime-xattr', 'ctime-acl', 'ctime-flags':
    make(name)
time.sleep(0.02)
os.setxattr('ctime-xattr', 'user.x', b'')
set_acl('ctime-acl')
# nodump, and DAX as it was: else the inode would leave memory.
fcntl.ioctl(os.open('ctime-flags', os.O_RDONLY), 0x40086602, struct.pack('q', 0x02000040))
os.utime('u', ns=(10**18 + 5, 10**18 + 7)); os.chmod('u', 0o1421); os.chown('u', 70000, 80000)
END
must python3 attr.py "$MNT"
describe() { stat -c '%a %u %g %x %y %w' "$MNT/u"; }
changed() { stat -c '%n %z' "$MNT"/ctime-*; }
before=$(describe) changed=$(changed)
remount
same "ctime after a remount" "$changed" "$(changed)"
same "attributes after a remount" "$before" "$(describe)"
[[ $before == "1421 70000 80000 "* ]] || fail "attributes: $before"
[ "$(stat -c %W "$MNT/u")" -gt 1000000000 ] || fail "no time of birth"
same "STATX_ATTR_DAX" 1 "$(python3 - "$MNT/u" <<'END'
import ctypes, struct, sys
buf = ctypes.create_string_buffer(256)
assert ctypes.CDLL(None).syscall(332, -100, sys.argv[1].encode(), 0, 0xfff, buf) == 0
print(struct.unpack_from('<Q', buf.raw, 8)[0] >> 21 & 1)
END
)"

# An overwrite moves mtime in memory at once; fsync, and sync, make that durable.
echo one >"$MNT/lazy"
sleep 0.1
python3 -c 'import os,sys
f = os.open(sys.argv[1], os.O_WRONLY); os.write(f, b"two"); os.fsync(f)' "$MNT/lazy"
before=$(stat -c '%y %z' "$MNT/lazy")
remount
same "times after a remount" "$before" "$(stat -c '%y %z' "$MNT/lazy")"
