# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# FS_IOC_SHUTDOWN in its three modes: stores and calls of all kinds end, nothing hangs, unmounting
# writes nothing, and the next mount has what was durable.
# volume: none
. "${0%/*}/lib.sh"

cat >shutdown.py <<'END'
import ctypes, errno, fcntl, mmap, os, signal, struct, sys, time

SHUTDOWN = 0x8004587d
# Whoever does not end, hangs.
signal.alarm(60)
root, mode = sys.argv[1], int(sys.argv[2])
os.chdir(root)
libc = ctypes.CDLL(None, use_errno=True)

def counter(name):
    return int(open(f'/sys/fs/rdax/{os.path.basename(sys.argv[3])}/{name}').read())

def failure(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0

def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid

def shut_down(fd, mode):
    fcntl.ioctl(fd, SHUTDOWN, struct.pack('I', mode))

# What has to be there afterwards, and an inode without a name.
os.mkdir('d')
with open('d/kept', 'wb') as f:
    f.write(b'kept' * 5000)
f = open('mapped', 'w+b')
f.write(bytes(64 * 4096))
f.flush()
gone = open('gone', 'w+b')
gone.write(bytes(1 << 20))
gone.flush()
os.unlink('gone')
m = mmap.mmap(f.fileno(), 64 * 4096)
only = open('d/kept', 'rb')
reader = mmap.mmap(only.fileno(), 4096, prot=mmap.PROT_READ)
private = mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE)
private[0] = 77
# Where the racing task says how far it came.
progress = mmap.mmap(-1, 4096)

# Not for everybody, and three modes only.
directory = os.open('.', os.O_RDONLY)
def as_nobody():
    os.setuid(65534)
    os._exit(failure(lambda: shut_down(directory, mode)))
assert os.waitstatus_to_exitcode(os.waitpid(child(as_nobody), 0)[1]) == errno.EPERM
assert failure(lambda: shut_down(directory, 3)) == errno.EINVAL
assert failure(lambda: fcntl.ioctl(directory, 0x5000, 0)) == errno.ENOTTY

def storing():
    n = 0
    while True:
        n += 1
        m[(n % 32 + 32) * 4096] = n % 251
        progress[0:8] = struct.pack('Q', n)
def loading():
    while True:
        reader[n := 0]
def come(value=0):
    while struct.unpack('Q', progress[0:8])[0] <= value:
        time.sleep(0.01)
    return struct.unpack('Q', progress[0:8])[0]
# A pin of a page outlasts everything.
pipe = os.pipe()
class Iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
base = ctypes.addressof(ctypes.c_char.from_buffer(m))
assert libc.vmsplice(pipe[1], ctypes.byref(Iovec(base + 4 * 4096, 4096)), ctypes.c_size_t(1), 0) == 4096
# Nothing is dirty but what is stored now.
os.fsync(f.fileno())
for page in range(8):
    m[page * 4096 + 1] = 100 + page
before = counter('pages_written_back')
storer, loader = child(storing), child(loading)
come(50)

# By way of a file in the first mode, a directory in the others, in which nothing is written back.
if mode != 0:
    before = counter('pages_written_back')
shut_down(f.fileno() if mode == 0 else directory, mode)

far = struct.unpack('Q', progress[0:8])[0]
for pid in storer, loader:
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
# The store in progress may have been complete when this looked.
assert struct.unpack('Q', progress[0:8])[0] <= far + 1, 'stores went on'
written = counter('pages_written_back') - before
assert written >= 8 if mode == 0 else written == 0, written

def dies(access):
    status = os.waitpid(child(access), 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
dies(lambda: m[0])
dies(lambda: m.__setitem__(0, 1))
dies(lambda: reader[0])
assert private[0] == 77
calls = {
    'read': lambda: os.pread(only.fileno(), 10, 0),
    'read at the end': lambda: os.pread(only.fileno(), 10, 1 << 30),
    'write': lambda: os.pwrite(f.fileno(), b'x', 0),
    'append': lambda: os.pwrite(f.fileno(), b'x', 1 << 20),
    'fsync': lambda: os.fsync(f.fileno()),
    'fdatasync': lambda: os.fdatasync(f.fileno()),
    'fsync of a directory': lambda: os.fsync(directory),
    'msync': lambda: m.flush(),
    'syncfs': lambda: None if libc.syncfs(directory) == 0 else (_ for _ in ()).throw(
        OSError(ctypes.get_errno(), 'syncfs')),
    'truncate': lambda: os.ftruncate(f.fileno(), 4096),
    'fallocate': lambda: os.posix_fallocate(f.fileno(), 0, 1 << 20),
    'seek': lambda: os.lseek(f.fileno(), 0, os.SEEK_DATA),
    'mmap': lambda: mmap.mmap(f.fileno(), 4096),
    'stat': lambda: os.fstat(f.fileno()),
    'chmod': lambda: os.fchmod(f.fileno(), 0o600),
    'utimes': lambda: os.utime(f.fileno()),
    'open': lambda: open('mapped'),
    'create': lambda: open('new', 'w'),
    'lookup': lambda: os.stat('nobody-asked-before'),
    'mkdir': lambda: os.mkdir('e'),
    'symlink': lambda: os.symlink('a', 'b'),
    'link': lambda: os.link('mapped', 'm2'),
    'rename': lambda: os.rename('mapped', 'm2'),
    'unlink': lambda: os.unlink('mapped'),
    'rmdir': lambda: os.rmdir('d'),
    'readdir': lambda: os.listdir(directory),
}
for name, call in calls.items():
    found = failure(call)
    assert found == errno.EIO, (name, found)
os.statvfs('.')
# Once more is no mistake.
shut_down(directory, mode)
END

free() { stat -f -c %f "$MNT"; }

# The flusher, too, writes back what is old, and here "old" comes soon on a slow machine.
flusher=/proc/sys/vm/dirty_writeback_centisecs
before=$(<$flusher)
echo 0 >$flusher
at_end "echo $before >$flusher"

name=${PMEM1##*/}
for mode in 0 1 2; do
	must mkfs.rdax -q -f "$PMEM1"
	must mount -t rdax "$PMEM1" "$MNT"
	at_end "umount $MNT; echo $before >$flusher"
	empty=$(free)
	mark_log
	must python3 shutdown.py "$MNT" $mode "$PMEM1"
	log_says "$name: .*shut down"
	remember "$PMEM1"
	! mount -o remount,errors=continue "$MNT" 2>/dev/null || fail "remounted after a shutdown"
	must timeout $((20 * SLOWDOWN)) umount "$MNT"
	unchanged "$PMEM1" "unmounted after a shutdown of mode $mode"
	if [ $mode = 1 ]; then
		# Read-only first, which frees nothing.
		must mount -t rdax -o ro "$PMEM1" "$MNT"
		! log_since | grep -q 'freed .* inodes' || fail "a read-only mount has freed inodes"
		must mount -o remount,rw "$MNT"
	else
		must mount -t rdax "$PMEM1" "$MNT"
	fi
	log_says "$name: freed 1 inodes without a name"
	same "a file that was written" "$(printf 'kept%.0s' {1..5000})" "$(<"$MNT/d/kept")"
	if [ $mode = 0 ]; then
		python3 - "$MNT/mapped" <<-'END'
			import sys
			data = open(sys.argv[1], 'rb').read()
			assert [data[page * 4096 + 1] for page in range(8)] == list(range(100, 108))
		END
	fi
	must rm -r "$MNT/d" "$MNT/mapped"
	same "free blocks" "$empty" "$(free)"
	must umount "$MNT"
	must fsck.rdax -n "$PMEM1"
done
