# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device whose flush takes as long as the test wants, or fails: a device of the device mapper on
# virtio-pmem. So a sync, or a fault that fills a hole, is stopped in its fence; what a mount does that
# ends meanwhile has to wait for the fault, and to fail the sync.
. "${0%/*}/lib.sh"

mkdir share
cat >share/flush.py <<'END'
import errno, fcntl, mmap, os, signal, struct, subprocess, sys, time

PAGE, ROOT = 4096, '/mnt/pmem'
SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2

def device(*command):
    subprocess.run(('dmsetup',) + command, check=True)

class Held:
    """No flush ends meanwhile."""
    def __enter__(self):
        device('suspend', '--nolockfs', '--noflush', 'held')
    def __exit__(self, *_):
        device('resume', 'held')

def failure(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return 0

def child(call, *args):
    pid = os.fork()
    if pid == 0:
        os._exit(failure(call, *args))
    return pid

def ended(pid):
    """An errno, or the number of a signal with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def until(done, what):
    for _ in range(2000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError(f'waited for too long: {what}')

def sleeps(pid):
    """Until it sleeps in rdax."""
    def there():
        with open(f'/proc/{pid}/stat') as stat, open(f'/proc/{pid}/stack') as stack:
            return ') D ' in stat.read() and '[rdax]' in stack.read()
    until(there, 'a call of rdax that sleeps')

def opened(data, size):
    """A file of `size` bytes with `data` at its end, and a hole before."""
    fd = os.open(f'{ROOT}/file', os.O_RDWR | os.O_CREAT)
    os.truncate(fd, size)
    os.pwrite(fd, data, size - len(data))
    os.fsync(fd)
    return fd, mmap.mmap(fd, size)

def shut_down(fd):
    fcntl.ioctl(fd, SHUTDOWN, struct.pack('I', NOLOGFLUSH))

def is_shut_down(fd):
    return failure(os.fstat, fd) == errno.EIO

# What another process does when it is told to.
go = mmap.mmap(-1, PAGE)
def when_told(call, *args):
    while not go[0]:
        time.sleep(0.01)
    return call(*args)

def same(what, expected, found):
    assert found == expected, f'{what}: {found} instead of {expected}'

def sync():
    """A sync whose fence has not ended when the mount is shut down has not made anything durable."""
    fd, m = opened(b'x' * PAGE, PAGE)
    m[0] = 1
    with Held():
        # After fsync, the times would be made durable as well.
        syncer = child(os.fdatasync, fd)
        sleeps(syncer)
        ender = child(shut_down, fd)
        until(lambda: is_shut_down(fd), 'the shutdown')
    same('fdatasync', errno.EIO, ended(syncer))
    same('shutdown', 0, ended(ender))

def fault():
    """A fault that has seen the mount alive maps nothing that stays."""
    fd, m = opened(b'x' * PAGE, 2 * PAGE)
    # Then nothing is read when it is mapped again.
    assert m[PAGE] == ord('x')
    def fill():
        mmap.mmap(fd, PAGE)[0] = 1
    def load():
        mine = mmap.mmap(fd, 2 * PAGE)
        mine[PAGE]
        when_told(lambda: mine[PAGE])
    with Held():
        # The first fault is in its fence, and has the chunk; the second waits for that.
        filler = child(fill)
        sleeps(filler)
        loader = child(load)
        sleeps(loader)
        ender = child(shut_down, fd)
        until(lambda: is_shut_down(fd), 'the shutdown')
        # A shutdown that does not wait for faults would be finished by now.
        time.sleep(0.3)
    same('shutdown', 0, ended(ender))
    go[0] = 1
    same('a store to a hole', -signal.SIGBUS, ended(filler))
    same('loads from before to after', -signal.SIGBUS, ended(loader))

def read_only():
    """Nor does one that has seen it writable leave anything writable."""
    fd, _ = opened(b'', PAGE)
    def open_and_close():
        os.close(os.open(f'{ROOT}/file', os.O_RDWR))
    def store():
        mine = mmap.mmap(fd, PAGE)
        mine[0] = 1
        when_told(mine.__setitem__, 0, 2)
    with Held():
        storer = child(store)
        sleeps(storer)
        with open('/proc/sysrq-trigger', 'w') as trigger:
            trigger.write('u')
        until(lambda: failure(open_and_close) == errno.EROFS, 'the emergency')
        time.sleep(0.3)
    until(lambda: os.statvfs(ROOT).f_flag & os.ST_RDONLY, 'its end')
    go[0] = 1
    same('stores from before to after', -signal.SIGBUS, ended(storer))

def fails():
    """A flush that fails is told to each open file, once."""
    fd, m = opened(b'x' * PAGE, PAGE)
    other = os.open(f'{ROOT}/file', os.O_RDWR)
    m[0] = 1
    # The device below goes, as far as it can: its memory stays as long as the mount uses it, but no
    # request is served any more.
    namespace = os.path.basename(os.path.realpath('/sys/block/pmem0/device'))
    unbind = f'echo {namespace} >/sys/bus/nd/drivers/nd_pmem/unbind'
    subprocess.Popen(('bash', '-c', unbind))
    until(lambda: not os.path.exists('/sys/block/pmem0'), 'removal of the device below')
    for each in fd, other:
        same('fsync', errno.EIO, failure(os.fsync, each))
    for each in fd, other:
        same('the next fsync', 0, failure(os.fsync, each))

globals()[sys.argv[1]]()
END
cat >share/flush <<'END'
set -e
dmsetup create held --table "0 $(blockdev --getsz /dev/pmem0) linear /dev/pmem0 0"
dmsetup mknodes held
status=0
# The last takes the device below away.
for what in sync fault read_only fails; do
	mkfs.rdax -q -f /dev/mapper/held
	mount -t rdax /dev/mapper/held /mnt/pmem
	python3 /share/flush.py $what || status=1
	umount /mnt/pmem
done
exit $status
END
vm --virtio-pmem --pmem 64M --timeout $((180 * SLOWDOWN)) -- bash /share/flush
