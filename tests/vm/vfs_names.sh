# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Names: create, link, unlink, mkdir, rmdir, rename in its kinds, symlinks, device nodes, files
# without a name; and what of it is there after a remount.
. "${0%/*}/lib.sh"

remount() {
	must umount "$MNT"
	must mount -t rdax "$PMEM" "$MNT"
}
links() { stat -c %h "$MNT/$1"; }

cat >names.py <<'END'
import errno, os, stat, sys
from calls import check, fails, libc
os.chdir(sys.argv[1])
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4

def rename(old, new, flags):
    check(libc.renameat2(-100, old.encode(), -100, new.encode(), flags), old, None, new)

def link_open(fd, name):
    check(libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, name.encode(), 0x400))

def write(name, text):
    with open(name, 'w') as f:
        f.write(text)

def read(name):
    with open(name) as f:
        return f.read()

# Plain rename: to a free name, over a file, over an empty directory, across directories.
write('a', 'A'); write('b', 'B'); os.mkdir('d1'); os.mkdir('d2'); os.mkdir('d1/sub')
os.rename('a', 'c'); assert read('c') == 'A' and not os.path.exists('a')
fd = os.open('b', os.O_RDONLY); os.link('b', 'b2')
os.rename('c', 'b'); assert read('b') == 'A' and os.fstat(fd).st_nlink == 1
write('c', 'A'); os.rename('c', 'b2'); assert os.fstat(fd).st_nlink == 0; os.close(fd)
fails(errno.EISDIR, os.rename, 'b', 'd1')
fails(errno.ENOTDIR, os.rename, 'd1', 'b')
fails(errno.ENOTEMPTY, os.rename, 'd2', 'd1')
os.rename('d1/sub', 'd2/sub')
assert (os.stat('d1').st_nlink, os.stat('d2').st_nlink) == (2, 3)
assert os.stat('d2/sub/..').st_ino == os.stat('d2').st_ino
fails(errno.EINVAL, os.rename, 'd2', 'd2/sub/x')
fd = os.open('d1', os.O_RDONLY)
os.rename('d2', 'd1'); assert os.fstat(fd).st_nlink == 0; os.close(fd)
assert os.path.isdir('d1/sub') and os.stat('d1').st_nlink == 3 and not os.path.exists('d2')
os.rename('b', 'b')
# RENAME_NOREPLACE, RENAME_EXCHANGE.
write('x', 'X'); write('y', 'Y')
fails(errno.EEXIST, rename, 'x', 'y', NOREPLACE)
rename('x', 'z', NOREPLACE); assert read('z') == 'X'
rename('z', 'y', EXCHANGE); assert read('z') == 'Y' and read('y') == 'X'
fails(errno.ENOENT, rename, 'z', 'nothing', EXCHANGE)
rename('z', 'd1/sub', EXCHANGE)
assert os.path.isdir('z') and read('d1/sub') == 'Y' and os.stat('d1').st_nlink == 2
assert os.stat('z/..').st_ino == os.stat('.').st_ino
# RENAME_WHITEOUT: what is left at the old name is a character device of number 0.
def is_whiteout(name):
    s = os.lstat(name)
    return stat.S_ISCHR(s.st_mode) and s.st_rdev == 0 and s.st_nlink == 1
write('w1', 'W1'); write('w2', 'W2'); os.mkdir('wd'); os.mkdir('wd/sub')
inode = os.stat('w1').st_ino
rename('w1', 'w3', WHITEOUT); assert read('w3') == 'W1' and os.stat('w3').st_ino == inode
assert is_whiteout('w1') and os.lstat('w1').st_ino != inode
rename('w3', 'w2', WHITEOUT); assert read('w2') == 'W1' and is_whiteout('w3')
rename('wd/sub', 'w1', EXCHANGE); assert is_whiteout('wd/sub') and os.path.isdir('w1')
rename('w1', 'wd/dir', WHITEOUT | NOREPLACE); assert os.path.isdir('wd/dir') and is_whiteout('w1')
assert os.stat('wd').st_nlink == 3 and os.stat('wd/dir/..').st_ino == os.stat('wd').st_ino
fails(errno.EINVAL, rename, 'w1', 'w2', WHITEOUT | EXCHANGE)
fails(errno.EEXIST, rename, 'w1', 'w2', WHITEOUT | NOREPLACE)
assert sorted(n for n in os.listdir('.') if n[0] == 'w') == ['w1', 'w2', 'w3', 'wd']
os.unlink('w3')
# Links.
os.link('y', 'y2'); os.link('y', 'd1/y3'); assert os.stat('y').st_nlink == 3
fails(errno.EEXIST, os.link, 'y', 'y2')
fails(errno.EPERM, os.link, 'd1', 'd3')
os.unlink('y'); assert read('d1/y3') == 'X' and os.stat('y2').st_nlink == 2
# Directories.
fails(errno.ENOTEMPTY, os.rmdir, 'd1')
fails(errno.EEXIST, os.mkdir, 'd1')
fails(errno.ENOTDIR, os.rmdir, 'y2')
fails(errno.EISDIR, os.unlink, 'd1')
fails(errno.ENOENT, os.unlink, 'nothing')
gone = os.open('z', os.O_RDONLY); os.rmdir('z')
fails(errno.ENOENT, lambda: os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=gone))
assert os.fstat(gone).st_nlink == 0; os.close(gone)
# Names of every length and most bytes.
os.mkdir('names')
size = os.stat('names').st_size
odd = [b'n' * n for n in range(1, 256)] + [b'_' + bytes([c]) for c in range(1, 256) if c not in b'/.']
for name in odd:
    os.close(os.open(b'names/' + name, os.O_CREAT | os.O_EXCL))
assert sorted(os.listdir(b'names')) == sorted(set(odd))
assert os.stat('names').st_size > size
fails(errno.ENAMETOOLONG, os.mkdir, 'n' * 256)
fails(errno.ENAMETOOLONG, os.stat, 'n' * 256)
# Symlinks, short and long.
for n in 1, 127, 128, 129, 4095:
    os.symlink('t' * n, 'link%d' % n)
    assert os.readlink('link%d' % n) == 't' * n and os.lstat('link%d' % n).st_size == n
os.symlink('d1/y3', 's'); assert read('s') == 'X'
os.symlink('s2', 's2'); fails(errno.ELOOP, os.open, 's2', os.O_RDONLY)
# Nodes.
os.mknod('fifo', 0o600 | stat.S_IFIFO)
os.mknod('null', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod('block', 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
os.mknod('socket', 0o600 | stat.S_IFSOCK)
write('null', 'lost')
# A file without a name, given one later; one that stays without.
fd = os.open('.', os.O_TMPFILE | os.O_RDWR)
os.write(fd, b'late'); assert os.fstat(fd).st_nlink == 0
link_open(fd, 'late')
assert read('late') == 'late' and os.fstat(fd).st_nlink == 1; os.close(fd)
fd = os.open('.', os.O_TMPFILE | os.O_RDWR | os.O_EXCL)
fails(errno.ENOENT, link_open, fd, 'never')
os.close(fd)
# Unlinked while open.
fd = os.open('gone', os.O_CREAT | os.O_RDWR); os.write(fd, b'still'); os.unlink('gone')
assert os.pread(fd, 9, 0) == b'still' and os.fstat(fd).st_nlink == 0; os.close(fd)
END
must python3 names.py "$MNT"

size=$(stat -c %s "$MNT/names")
remount
same "size of a directory after a remount" "$size" "$(stat -c %s "$MNT/names")"
same "late" late "$(cat "$MNT/late")"
same "a whiteout" "character special file 0:0" "$(stat -c '%F %t:%T' "$MNT/w1")"
same "through a symlink" X "$(cat "$MNT/s")"
same "links of y2" 2 "$(links y2)"
same "names" $((255 + 253)) "$(find "$MNT/names" -type f -printf x | wc -c)"
same "a long target" 4095 "$(readlink "$MNT/link4095" | tr -d '\n' | wc -c)"
same "block device" "block special file 103:11170" "$(stat -c '%F %t:%T' "$MNT/block")"
same "character device" "character special file 1:3" "$(stat -c '%F %t:%T' "$MNT/null")"
same "fifo and socket" "fifo socket" "$(stat -c %F "$MNT/fifo" "$MNT/socket" | tr '\n' ' ' | sed 's/ $//')"

# All of it can go, and the space with it.
used=$(df --output=used "$MNT" | tail -n 1)
find "$MNT" -mindepth 1 -delete
same "what is left" 0 "$(find "$MNT" -mindepth 1 | wc -l)"
[ "$(df --output=used "$MNT" | tail -n 1)" -lt "$used" ] || fail "no space came back"
same "inodes in use" 1 "$(df --output=iused "$MNT" | tail -n 1 | tr -d ' ')"
