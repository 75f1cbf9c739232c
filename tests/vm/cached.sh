# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Which files are DAX (dax=always, inode, never, FS_XFLAG_DAX), as statx tells, and what those that
# are not promise: space is missed at the store, syncs write back what is dirty, nothing is written
# twice, a freeze stops stores, a shutdown loses what was not synced.
# volume: none
# timeout: 300
. "${0%/*}/lib.sh"

cat >tool.py <<'END'
import ctypes, errno, fcntl, mmap, os, signal, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
FREEZE, THAW, SHUTDOWN = 0xc0045877, 0xc0045878, 0x8004587d

def is_dax(path):
    buf = ctypes.create_string_buffer(256)
    assert libc.syscall(332, -100, path.encode(), 0, 0xfff, buf) == 0
    attributes, mask = struct.unpack_from('<Q', buf.raw, 8)[0], struct.unpack_from('<Q', buf.raw, 56)[0]
    assert mask >> 21 & 1
    return attributes >> 21 & 1

def xflags(path, change=None):
    """FS_IOC_FSGETXATTR, and FS_IOC_FSSETXATTR with the DAX flag set or not."""
    fd = os.open(path, os.O_RDONLY)
    data = bytearray(28)
    fcntl.ioctl(fd, 0x801c581f, data)
    flags = struct.unpack_from('I', data)[0]
    if change is not None:
        struct.pack_into('I', data, 0, flags | 0x8000 if change else flags & ~0x8000)
        fcntl.ioctl(fd, 0x401c5820, bytes(data))
    os.close(fd)
    return flags >> 15 & 1

def counter(name):
    return int(open(f'/sys/fs/rdax/{device}/{name}').read())

def moved(name, work):
    before = counter(name)
    work()
    return counter(name) - before

def sigbus(access):
    pid = os.fork()
    if pid == 0:
        access()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS

def new(name, size):
    f = open(name, 'w+b', buffering=0)
    f.truncate(size)
    return f, mmap.mmap(f.fileno(), size)

def syncs():
    f, m = new('s', 64 * PAGE)
    tagged = counter('pages_tagged')
    for page in 3, 5, 40:
        m[page * PAGE] = 1
    # A range: that page and no other. Then the rest, and then nothing.
    page = ctypes.addressof(ctypes.c_char.from_buffer(m)) + 5 * PAGE
    msync = lambda: libc.msync(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 4)
    assert moved('cached_pages_written_back', msync) == 1
    assert moved('cached_pages_written_back', lambda: os.fsync(f.fileno())) == 2
    assert moved('cached_pages_written_back', lambda: os.fsync(f.fileno())) == 0
    m[3 * PAGE] = 2
    assert moved('cached_pages_written_back', os.sync) == 1
    # What is written back below the size is durable.
    m[3 * PAGE] = 3
    assert moved('fences', lambda: os.fdatasync(f.fileno())) == 1
    f.write(b'x' * 100)
    assert moved('cached_pages_written_back', lambda: os.fdatasync(f.fileno())) == 1
    fd = os.open('s', os.O_WRONLY | os.O_SYNC)
    assert moved('cached_pages_written_back', lambda: os.pwrite(fd, b'y' * 2 * PAGE, 0)) == 2
    # Page faults and syncs of it leave the DAX side alone.
    assert counter('pages_tagged') == tagged
    # mtime follows a store, and only that.
    before = os.fstat(f.fileno())
    time.sleep(0.02)
    m.flush()
    assert os.fstat(f.fileno()).st_mtime_ns == before.st_mtime_ns
    m[0] = 7
    os.fsync(f.fileno())
    assert os.fstat(f.fileno()).st_mtime_ns > before.st_mtime_ns

def private():
    f, m = new('p', 2 * PAGE)
    m[0] = 1
    p = mmap.mmap(f.fileno(), 2 * PAGE, flags=mmap.MAP_PRIVATE)
    p[0] = 9
    assert (m[0], p[0], p[PAGE]) == (1, 9, 0)
    os.pwrite(f.fileno(), b'\x05', PAGE)
    assert (m[PAGE], p[PAGE]) == (5, 5)

def mapped_as_source():
    """write(2) from a mapping of the very page that is written to."""
    f, m = new('w', 4 * PAGE)
    m[0:PAGE] = bytes(range(256)) * 16
    os.pwritev(f.fileno(), [memoryview(m)[0:1024]], 3000)
    assert m[3000:3000 + 1024] == bytes(range(256)) * 4
    os.pwritev(f.fileno(), [memoryview(m)[3 * PAGE:4 * PAGE]], 2 * PAGE)
    assert m[2 * PAGE:] == bytes(2 * PAGE)

def refuses_map_sync():
    f, _ = new('y', PAGE)
    libc.mmap.restype = ctypes.c_void_p
    assert libc.mmap(None, PAGE, 3, 0x80003, f.fileno(), 0) == ctypes.c_void_p(-1).value
    assert ctypes.get_errno() == errno.EOPNOTSUPP

def failed_writes():
    """They leave the file as it is, but for what they have written."""
    libc.mmap.restype = ctypes.c_void_p
    source = libc.mmap(None, 8 << 20, 3, 0x22, -1, 0)
    ctypes.memset(source, 0x41, 4 * PAGE)
    assert libc.munmap(ctypes.c_void_p(source + 4 * PAGE), (8 << 20) - 4 * PAGE) == 0
    wrong = []
    for name, address, length, at, expected in (
            ('beyond the end', 8, 10, 1 << 20, (-1, 0, 0)),
            ('long', 8, 8 << 20, 0, (-1, 0, 0)),
            ('in part', source, 8 << 20, 0, (4 * PAGE, 4 * PAGE, 4 * 8))):
        f = open(name, 'w+b', buffering=0)
        done = libc.pwrite(f.fileno(), ctypes.c_void_p(address), ctypes.c_size_t(length),
                           ctypes.c_long(at))
        assert done >= 0 or ctypes.get_errno() == errno.EFAULT
        stat = os.fstat(f.fileno())
        if (done, stat.st_size, stat.st_blocks) != expected:
            wrong.append((name, done, stat.st_size, stat.st_blocks))
    assert not wrong, wrong
    # Those that do not fail leave a hole, and zeros for what a mapping stored beyond the end.
    f, m = new('behind a hole', 100)
    m[0:100] = b'a' * 100
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(m)) + 100, 0x23, PAGE - 100)
    os.pwrite(f.fileno(), b'b', 10 * PAGE)
    assert os.pread(f.fileno(), 11 * PAGE, 0) == b'a' * 100 + bytes(10 * PAGE - 100) + b'b'
    os.fsync(f.fileno())
    assert os.fstat(f.fileno()).st_blocks == 2 * 8

def no_space():
    free = lambda: os.statvfs('.').f_bavail
    f, m = new('n', 64 * PAGE)
    m[0] = 1
    os.fsync(f.fileno())
    before = free()
    filler = open('filler', 'wb')
    try:
        os.posix_fallocate(filler.fileno(), 0, before * PAGE)
    except OSError:
        pass
    at = os.fstat(filler.fileno()).st_size
    try:
        while True:
            at += os.pwrite(filler.fileno(), b'z' * PAGE, at)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert free() == 0, free()
    assert sigbus(lambda: m.__setitem__(10 * PAGE, 1)), 'a store without space'
    assert m[10 * PAGE] == 0 and not sigbus(lambda: m.__setitem__(0, 2))
    try:
        os.pwrite(f.fileno(), b'q', 20 * PAGE)
        raise AssertionError('a write without space')
    except OSError as error:
        assert error.errno == errno.ENOSPC
    try:
        os.pwrite(f.fileno(), b'q', 90 * PAGE)
        raise AssertionError('a write without space')
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert os.fstat(f.fileno()).st_size == 64 * PAGE
    filler.close()
    os.unlink('filler')
    assert free() == before, (free(), before)

def freeze():
    f, m = new('f', 2 * PAGE)
    os.sync()
    m[0] = 1
    root = os.open('.', os.O_RDONLY)
    written = moved('cached_pages_written_back', lambda: fcntl.ioctl(root, FREEZE, 0))
    pid = os.fork()
    if pid == 0:
        m[0] = 2
        os._exit(0)
    time.sleep(0.3)
    waits = os.waitpid(pid, os.WNOHANG) == (0, 0)
    seen = m[0]
    fcntl.ioctl(root, THAW, 0)
    os.waitpid(pid, 0)
    assert written == 1 and waits and seen == 1 and m[0] == 2, (written, waits, seen)

def background():
    """Dirty pages reach the media without a sync."""
    f, m = new('b', PAGE)
    def wait():
        m[0] = 1
        end = time.monotonic() + 20
        while counter('cached_pages_written_back') == before and time.monotonic() < end:
            time.sleep(0.1)
    os.sync()
    before = counter('cached_pages_written_back')
    settings = {'dirty_expire_centisecs': '50', 'dirty_writeback_centisecs': '20'}
    old = {}
    for name, value in settings.items():
        old[name] = open(f'/proc/sys/vm/{name}').read()
        open(f'/proc/sys/vm/{name}', 'w').write(value)
    written = moved('cached_pages_written_back', wait)
    for name, value in old.items():
        open(f'/proc/sys/vm/{name}', 'w').write(value)
    assert written >= 1

def shut_down():
    """Stores, loads and calls end; what was synced is there (the caller looks), the rest is lost."""
    f, m = new("shut", 8 * PAGE)
    m[0:8] = b'synced..'
    os.fsync(f.fileno())
    m[PAGE:PAGE + 4] = b'lost'
    os.pwrite(f.fileno(), b'lost', 8 * PAGE)
    progress = mmap.mmap(-1, PAGE)
    pids = []
    for work in (lambda n: m.__setitem__(n % 4 * PAGE + 4096 * 4, n % 251), lambda n: m[0]):
        pid = os.fork()
        if pid == 0:
            n = 0
            while True:
                n += 1
                work(n)
                progress[0] = 1
        pids.append(pid)
    while not progress[0]:
        time.sleep(0.01)
    written = moved('cached_pages_written_back',
                    lambda: fcntl.ioctl(f.fileno(), SHUTDOWN, struct.pack('I', 2)))
    assert written == 0
    for pid in pids:
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
    for call in (lambda: os.pread(f.fileno(), 10, 0), lambda: os.pwrite(f.fileno(), b'x', 0),
                 lambda: os.pwrite(f.fileno(), b'x' * PAGE, 0), lambda: os.fsync(f.fileno()),
                 lambda: os.ftruncate(f.fileno(), 0), lambda: mmap.mmap(f.fileno(), PAGE)):
        try:
            call()
            raise AssertionError('after a shutdown')
        except OSError as error:
            assert error.errno == errno.EIO, error

def leave_beyond():
    """A DAX file of 100 bytes with stores beyond its end, in its last block."""
    with open('tail', 'w+b') as f:
        f.write(b'a' * 100)
        f.flush()
        libc.mmap.restype = ctypes.c_void_p
        page = libc.mmap(None, PAGE, 3, mmap.MAP_SHARED, f.fileno(), 0)
        ctypes.memset(page + 100, ord('#'), PAGE - 100)
        libc.munmap(ctypes.c_void_p(page), PAGE)

def append_over():
    """Its size moves on, with the last page of three, and the others are lost."""
    f = open('tail', 'ab', buffering=0)
    f.write(b'b' * (3 * PAGE - 100))
    assert libc.sync_file_range(f.fileno(), ctypes.c_long(2 * PAGE), ctypes.c_long(PAGE), 7) == 0
    fcntl.ioctl(f.fileno(), SHUTDOWN, struct.pack('I', 2))

def look_at_tail():
    data = open('tail', 'rb').read()
    assert data == b'a' * 100 + bytes(2 * PAGE - 100) + b'b' * PAGE, (len(data), data[90:110])

def write_behind_gap():
    """To a file whose last page was written back before a crash, and its size was not."""
    os.pwrite(os.open('gap', os.O_WRONLY), b'b', 3 * PAGE + 10)
    look_at_gap()

def look_at_gap():
    data = open('gap', 'rb').read()
    assert data == b'#' * 100 + bytes(3 * PAGE - 90) + b'b', data.replace(bytes(100), b'')

if __name__ == '__main__':
    what, device, root = sys.argv[1], os.path.basename(sys.argv[2]), sys.argv[3]
    os.chdir(root)
    result = globals()[what](*sys.argv[4:])
    if result is not None:
        print(result)
END
tool() { python3 tool.py "$1" "$PMEM1" "$MNT" "${@:2}" || fail "$*"; }
mounted() {
	must mount -t rdax ${1:+-o "$1"} "$PMEM1" "$MNT"
	grep " $MNT " /proc/mounts | grep -q ",dax=${2:-${1#dax=}}," || fail "$(grep " $MNT " /proc/mounts)"
}
remounted() {
	must umount "$MNT"
	mounted "$@"
}

must mkfs.rdax -q -f "$PMEM1"
at_end umount "$MNT"

mounted dax=never
for scenario in syncs private mapped_as_source refuses_map_sync failed_writes no_space freeze \
	background; do
	tool $scenario
done
head -c 100000 /dev/urandom >data
cp data "$MNT/file"
same "a file of dax=never" 0 "$(tool is_dax file)"
must cmp data "$MNT/file"
remounted dax always
same "the same of dax" 1 "$(tool is_dax file)"
must cmp data "$MNT/file"
remounted dax=always
same "the same of dax=always" 1 "$(tool is_dax file)"
same "a directory" 0 "$(tool is_dax .)"

# The wish of a file, and of a directory for what is made in it.
remounted "" inode
same "with the flag of the root" "1 1 1" "$(tool is_dax file) $(tool xflags file) $(tool xflags .)"
tool xflags . '' >/dev/null
tool xflags file '' >/dev/null
remounted dax=inode
same "without a flag" "0 0" "$(tool is_dax file) $(tool xflags file)"
for flag in 1 '' 1; do
	tool xflags file "$flag" >/dev/null
	# Nobody has the file open: the next look finds it changed.
	same "with the flag '$flag'" "${flag:-0} ${flag:-0}" "$(tool is_dax file) $(tool xflags file)"
	must cmp data "$MNT/file"
	python3 - "$MNT/file" data <<-'END'
		import mmap, random, sys
		for name in sys.argv[1:]:
		    with open(name, 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
		        rnd = random.Random(len(m))
		        for _ in range(200):
		            m[rnd.randrange(len(m))] ^= 255
		        f.seek(0, 2)
		        f.write(b'more' * 500)
	END
	must cmp data "$MNT/file"
done
# One that is open stays what it is until it is closed.
exec 3<"$MNT/file"
tool xflags file '' >/dev/null
same "an open file" "1 0" "$(tool is_dax file) $(tool xflags file)"
exec 3<&-
same "the file when it is closed" "0 0" "$(tool is_dax file) $(tool xflags file)"
must mkdir "$MNT/d"
tool xflags d 1 >/dev/null
must mkdir "$MNT/d/e"
echo text >"$MNT/d/e/f"
must mkfifo "$MNT/d/p"
same "inherited" "1 1 1" "$(tool xflags d/e) $(tool xflags d/e/f) $(tool is_dax d/e/f)"
# The flag is kept, and can be changed, where it has no effect.
remounted dax=never
same "kept" "1 0" "$(tool xflags d/e/f) $(tool is_dax d/e/f)"
tool xflags file 1 >/dev/null
same "changed" "1 0" "$(tool xflags file) $(tool is_dax file)"
must cmp data "$MNT/file"
mount_refused EINVAL -o remount,dax=perhaps "$MNT"

tool shut_down
remounted dax=never
same "what was synced" "synced.. 32768" "$(head -c 8 "$MNT/shut") $(stat -c %s "$MNT/shut")"
same "what was not" 0000 "$(od -An -tx1 -j4096 -N2 "$MNT/shut" | tr -d ' ')"
# Nothing that was beyond the end before shows, however far the pages came.
remounted dax=always
tool leave_beyond
remounted dax=never
tool append_over
remounted dax=never
tool look_at_tail
head -c 16384 /dev/zero | tr '\0' '#' >"$MNT/gap"
ino=$(stat -c %i "$MNT/gap")
must umount "$MNT"
must python3 "${0%/*}/damage.py" "$PMEM1" field "$ino" 8 8 100
mounted dax=never
tool write_behind_gap
remounted dax=never
tool look_at_gap
must umount "$MNT"
must fsck.rdax -n "$PMEM1"
