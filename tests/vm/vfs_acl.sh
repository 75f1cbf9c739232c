# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# POSIX ACLs: permissions, the effect of chmod on them, inheritance by new files, and all of it after a
# remount.
. "${0%/*}/lib.sh"

cat >acl.py <<'END'
import errno, os, stat, struct, sys
from calls import as_user, fails
os.chdir(sys.argv[1])
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NONE = 0xffffffff

def acl(*entries):
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in entries)

def get(name, kind=ACCESS):
    data = os.getxattr(name, kind)
    return [struct.unpack_from('<HHI', data, at) for at in range(4, len(data), 8)]

def perm(name, tag, kind=ACCESS):
    return [p for t, p, i in get(name, kind) if t == tag][0]

def mode(name):
    return stat.S_IMODE(os.lstat(name).st_mode)

def make(name, m=0o666):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, m))

def may(uid, gid, path, how):
    error = as_user(uid, gid, lambda: os.close(os.open(path, how)))
    assert error in (0, errno.EACCES), errno.errorcode[error]
    return error == 0

if sys.argv[2] == 'after':
    assert perm('f', USER) == 6 and perm('f', MASK) == 4 and mode('f') == 0o640
    assert get('d', DEFAULT) == get('d/sub', DEFAULT) and len(get('d', DEFAULT)) == 5
    assert (mode('g'), mode('h')) == (0o755, 0o660), (oct(mode('g')), oct(mode('h')))
    assert may(1000, 1000, 'f', os.O_RDONLY) and not may(1000, 1000, 'f', os.O_RDWR)
    os.umask(0o077); make('d/later'); assert mode('d/later') == 0o660
    assert may(1000, 1000, 'd/later', os.O_RDWR)
    sys.exit()

os.chmod('.', 0o755)
# The umask counts where no ACL is inherited, and for mkdir and mknod too.
os.umask(0o027)
make('f'); os.mkdir('plain'); os.mkfifo('p', 0o666)
assert (mode('f'), mode('plain'), mode('p')) == (0o640, 0o750, 0o640)
fails(errno.ENODATA, os.getxattr, 'f', ACCESS)
# An ACL that a mode can say becomes a mode.
os.setxattr('f', ACCESS, acl((USER_OBJ, 6, NONE), (GROUP_OBJ, 4, NONE), (OTHER, 4, NONE)))
assert mode('f') == 0o644
fails(errno.ENODATA, os.getxattr, 'f', ACCESS)
# One that it cannot: the mask shows as the bits of the group.
os.setxattr('f', ACCESS, acl((USER_OBJ, 6, NONE), (USER, 6, 1000), (GROUP_OBJ, 0, NONE),
                             (MASK, 6, NONE), (OTHER, 0, NONE)))
assert mode('f') == 0o660 and ACCESS in os.listxattr('f')
assert may(1000, 1000, 'f', os.O_RDWR) and not may(1001, 1001, 'f', os.O_RDONLY)
assert not may(1001, 0, 'f', os.O_RDONLY)
# chmod changes the mask, and with it what the user may.
os.chmod('f', 0o640)
assert perm('f', MASK) == 4 and perm('f', USER) == 6 and perm('f', OTHER) == 0
assert may(1000, 1000, 'f', os.O_RDONLY) and not may(1000, 1000, 'f', os.O_RDWR)
# Invalid ACLs; missing permissions; a type without ACLs.
fails(errno.EINVAL, os.setxattr, 'f', ACCESS, acl((USER_OBJ, 6, NONE)))
fails(errno.EACCES, os.setxattr, 'f', DEFAULT, os.getxattr('f', ACCESS))
os.symlink('f', 's')
fails(errno.EOPNOTSUPP, lambda: os.setxattr('s', ACCESS, os.getxattr('f', ACCESS), 0, follow_symlinks=False))
pid = os.fork()
if pid == 0:
    os.setuid(1000)
    fails(errno.EPERM, os.setxattr, 'f', ACCESS, os.getxattr('f', ACCESS))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
# Inheritance: the umask does not count.
os.mkdir('d'); os.chmod('d', 0o755)
os.setxattr('d', DEFAULT, acl((USER_OBJ, 7, NONE), (USER, 7, 1000), (GROUP_OBJ, 5, NONE),
                              (MASK, 7, NONE), (OTHER, 0, NONE)))
os.umask(0o077)
make('d/f'); os.mkdir('d/sub'); os.symlink('x', 'd/s'); os.mkfifo('d/p', 0o600)
assert mode('d/f') == 0o660 and perm('d/f', USER) == 7 and perm('d/f', MASK) == 6
assert get('d/sub', DEFAULT) == get('d', DEFAULT) and perm('d/sub', USER) == 7
fails(errno.ENODATA, os.getxattr, 'd/f', DEFAULT)
assert os.listxattr('d/s', follow_symlinks=False) == []
assert mode('d/p') == 0o600 and perm('d/p', MASK) == 0
assert may(1000, 1000, 'd/f', os.O_RDWR) and not may(1001, 1001, 'd/f', os.O_RDONLY)
fd = os.open('d', os.O_TMPFILE | os.O_RDWR, 0o666)
assert len(os.getxattr(fd, ACCESS)) == 44
os.close(fd)
# Without the default, new ones have none.
os.removexattr('d/sub', DEFAULT); os.removexattr('d/sub', ACCESS)
make('d/sub/f'); assert mode('d/sub/f') == 0o600 and os.listxattr('d/sub/f') == []
os.setxattr('d/sub', DEFAULT, os.getxattr('d', DEFAULT))
# A change of the ACL by a user outside the group clears setgid.
make('g', 0o666); os.chown('g', 1000, 2000); os.chmod('g', 0o2755)
pid = os.fork()
if pid == 0:
    os.setgroups([]); os.setgid(1000); os.setuid(1000)
    os.setxattr('g', ACCESS, acl((USER_OBJ, 7, NONE), (USER, 4, 5), (GROUP_OBJ, 5, NONE),
                                 (MASK, 5, NONE), (OTHER, 5, NONE)))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert mode('g') == 0o755, oct(mode('g'))
# A mode that comes with an ACL alone.
make('h'); assert mode('h') == 0o600
os.setxattr('h', ACCESS, acl((USER_OBJ, 6, NONE), (USER, 6, 1000), (GROUP_OBJ, 0, NONE),
                             (MASK, 6, NONE), (OTHER, 0, NONE)))
assert mode('h') == 0o660
END
must python3 acl.py "$MNT" before
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
must python3 acl.py "$MNT" after
