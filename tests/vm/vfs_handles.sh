# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Files by handle, as an NFS server finds them: from memory, from the media, after a remount; and
# handles of what is gone, also when another file has its number.
. "${0%/*}/lib.sh"

cat >handles.py <<'END'
import ctypes, errno, os, pickle, random, struct, sys, time
from calls import check, libc
AT_EMPTY_PATH, AT_HANDLE_CONNECTABLE = 0x1000, 2
os.chdir(sys.argv[1])
mnt = os.open('.', os.O_RDONLY | os.O_DIRECTORY)

def handle(path, flags=0):
    buf = ctypes.create_string_buffer(struct.pack('<Ii', 128, 0), 8 + 128)
    mount = ctypes.c_int()
    check(libc.name_to_handle_at(-100, path.encode(), buf, ctypes.byref(mount), flags), path)
    return buf.raw[:8 + struct.unpack_from('<I', buf.raw)[0]]

def by_handle(handle, flags=os.O_RDONLY):
    return check(libc.open_by_handle_at(mnt, handle, flags))

def ino(handle):
    fd = by_handle(handle)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)

def stale(handle):
    try:
        by_handle(handle)
    except OSError as e:
        assert e.errno == errno.ESTALE, e
    else:
        raise AssertionError('not stale')

def drop():
    os.sync()
    with open('/proc/sys/vm/drop_caches', 'w') as f:
        f.write('2')

def write(name, text):
    with open(name, 'w') as f:
        f.write(text)

if sys.argv[2] == 'after':
    with open(sys.argv[3], 'rb') as f:
        kept, inos = pickle.load(f)
    for name, h in kept.items():
        if name.startswith('gone'):
            stale(h)
        else:
            assert ino(h) == inos[name], name
    # The path of a directory is found from its handle alone.
    fd = by_handle(kept['a/b/c'])
    path = os.readlink('/proc/self/fd/%d' % fd)
    assert path == os.path.join(sys.argv[1], 'a/b/c'), path
    sys.exit()

os.makedirs('a/b/c'); write('a/b/c/f', 'content'); write('gone', 'old'); os.symlink('x', 's')
kept = {n: handle(n) for n in ('.', 'a', 'a/b/c', 'a/b/c/f', 'gone')}
inos = {n: os.stat(n).st_ino for n in kept}
for n, h in kept.items():
    assert ino(h) == inos[n], n
try:
    connectable = handle('a/b/c/f', AT_HANDLE_CONNECTABLE)
    assert len(connectable) == 8 + 24 and ino(connectable) == inos['a/b/c/f']
    kept['connectable'], inos['connectable'] = connectable, inos['a/b/c/f']
except OSError as e:
    assert e.errno == errno.EINVAL, e
drop()
fd = by_handle(kept['a/b/c/f'], os.O_RDWR)
assert os.pread(fd, 99, 0) == b'content'
os.close(fd)
# Unlinked and open: the handle works. After the close it does not, nor for the number's next inode.
fd = os.open('gone', os.O_RDONLY); os.unlink('gone')
assert ino(kept['gone']) == inos['gone']
os.close(fd); drop()
stale(kept['gone'])
for n in range(300):
    write('new%d' % n, '')
    if os.stat('new%d' % n).st_ino == inos['gone']:
        break
else:
    raise AssertionError('the number does not come back')
stale(kept['gone']); drop(); stale(kept['gone'])
assert ino(handle('new%d' % n)) == inos['gone']
# Numbers that no inode has; a removed directory.
os.mkdir('d'); kept['gone d'] = handle('d'); os.rmdir('d'); drop(); stale(kept['gone d'])
head, gen = kept['a'][:8], kept['a'][16:20]
for number in 0, 256, 255, 2**32 + 2, 2**63:
    stale(head + struct.pack('<Q', number) + gen)
# While files get these numbers, are new, and are removed.
for n in range(100):
    write('often%d' % n, '')
old = [handle('often%d' % n) for n in range(100)]
for n in range(100):
    os.unlink('often%d' % n)
end = time.monotonic() + 3
pid = os.fork()
if pid == 0:
    while time.monotonic() < end:
        for n in range(20):
            os.close(os.open('often%d' % n, os.O_CREAT | os.O_EXCL))
        for n in range(20):
            os.unlink('often%d' % n)
    os._exit(0)
while time.monotonic() < end:
    stale(random.choice(old))
assert os.waitpid(pid, 0)[1] == 0
with open(sys.argv[3], 'wb') as f:
    pickle.dump((kept, inos), f)
END
mark_log
must python3 handles.py "$MNT" before "$PWD/kept"
! log_since | grep 'rdax: ' || fail "something in the log"
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
must python3 handles.py "$MNT" after "$PWD/kept"
