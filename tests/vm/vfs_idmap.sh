# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A mount with mapped ids: whoever looks or writes through it, what is on the media has the ids of
# the volume.
. "${0%/*}/lib.sh"

mkdir mapped
# What is 1000 to 1009 on the volume is 2000 to 2009 there, and nobody else is anybody.
must mount --bind -o X-mount.idmap=b:1000:2000:10 "$MNT" mapped
chmod 755 .
cat >idmap.py <<'END'
import errno, os, stat, struct, sys
from calls import as_user, libc
plain, mapped = sys.argv[1:]
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
NONE = 0xffffffff

def acl(user, perm=7):
    entries = (1, 7, NONE), (2, perm, user), (4, 5, NONE), (16, 7, NONE), (32, 0, NONE)
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in entries)

def owner(path):
    s = os.lstat(path)
    return s.st_uid, s.st_gid

def make(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

os.umask(0)
os.mkdir(plain + '/d'); os.chown(plain + '/d', 1000, 1000); os.chmod(plain + '/d', 0o755)
P, M = plain + '/d/', mapped + '/d/'
assert owner(M) == (2000, 2000) and owner(plain + '/.') == (0, 0) and owner(mapped) == (65534, 65534)
# Making things of every kind.
def all_kinds():
    os.chdir(M)
    make('f'); os.mkdir('sub'); os.symlink('f', 's'); os.mkfifo('p')
    fd = os.open('.', os.O_TMPFILE | os.O_RDWR)
    assert os.fstat(fd).st_uid == 2000
    assert libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, b't', 0x400) == 0
    make('old'); assert libc.renameat2(-100, b'old', -100, b'renamed', 4) == 0
assert as_user(2000, 2000, all_kinds) == 0
for name in 'f', 'sub', 's', 'p', 't', 'renamed', 'old':
    assert owner(M + name) == (2000, 2000) and owner(P + name) == (1000, 1000), name
assert stat.S_ISCHR(os.lstat(P + 'old').st_mode)
# A user without a mapping creates nothing, and another user is denied.
assert as_user(0, 0, lambda: make(M + 'x')) == errno.EOVERFLOW
assert as_user(1000, 1000, lambda: make(M + 'x')) == errno.EOVERFLOW
assert as_user(2001, 2001, lambda: make(M + 'x')) == errno.EACCES
assert as_user(1000, 1000, lambda: os.chmod(M + 'f', 0o600)) == errno.EPERM
assert as_user(2000, 2000, lambda: os.chmod(M + 'f', 0o640)) == 0
assert stat.S_IMODE(os.stat(P + 'f').st_mode) == 0o640
assert as_user(1000, 1000, lambda: os.chmod(P + 'f', 0o600)) == 0
assert as_user(2000, 2000, lambda: os.close(os.open(M + 'f', os.O_RDWR))) == 0
assert as_user(2001, 2001, lambda: os.close(os.open(M + 'f', os.O_RDWR))) == errno.EACCES
# chown by ids of the mount.
os.chown(M + 'f', 2005, 2006); assert owner(P + 'f') == (1005, 1006)
try:
    os.chown(M + 'f', 3000, -1)
except OSError as e:
    assert e.errno == errno.EOVERFLOW, e
else:
    raise AssertionError('an id that the volume has not')
# setgid directories, and setgid of a user outside the group.
os.chmod(P + 'sub', 0o2777)
assert as_user(2003, 2003, lambda: make(M + 'sub/g')) == 0
assert owner(P + 'sub/g') == (1003, 1000)
# ACLs name users of the mount.
assert as_user(2000, 2000, lambda: os.setxattr(M + 't', ACCESS, acl(2004))) == 0
assert os.getxattr(M + 't', ACCESS) == acl(2004) and os.getxattr(P + 't', ACCESS) == acl(1004)
assert as_user(2004, 2004, lambda: os.close(os.open(M + 't', os.O_RDWR))) == 0
assert as_user(1004, 1004, lambda: os.close(os.open(M + 't', os.O_RDWR))) == errno.EACCES
assert as_user(1004, 1004, lambda: os.close(os.open(P + 't', os.O_RDWR))) == 0
assert as_user(2000, 2000, lambda: os.setxattr(M + 'sub', DEFAULT, acl(2007))) == 0
assert as_user(2003, 2003, lambda: make(M + 'sub/inherits')) == 0
assert os.getxattr(P + 'sub/inherits', ACCESS)[12:20] == struct.pack('<HHI', 2, 7, 1007)
# Attributes of files, and times, belong to the owner.
assert as_user(2000, 2000, lambda: os.utime(M + 't', (5, 5))) == 0
assert as_user(1000, 1000, lambda: os.utime(M + 't', (5, 5))) == errno.EPERM
# A sticky directory.
os.mkdir(plain + '/sticky'); os.chown(plain + '/sticky', 1000, 1000); os.chmod(plain + '/sticky', 0o1777)
assert as_user(2001, 2001, lambda: make(mapped + '/sticky/f')) == 0
assert as_user(2002, 2002, lambda: os.unlink(mapped + '/sticky/f')) == errno.EPERM
assert as_user(1001, 1001, lambda: os.unlink(mapped + '/sticky/f')) == errno.EPERM
assert as_user(2001, 2001, lambda: os.unlink(mapped + '/sticky/f')) == 0
END
must python3 idmap.py "$MNT" "$PWD/mapped"
must umount mapped
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
same "owner after a remount" "1005 1006" "$(stat -c '%u %g' "$MNT/d/f")"
