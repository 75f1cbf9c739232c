# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Allocations of the kernel that fail, on a kernel that can make them (make debug-kernel): the call
# fails with ENOMEM and has changed nothing, nothing is lost, nothing leaks.
# timeout: 900
. "${0%/*}/lib.sh"

knobs=/sys/kernel/debug/failslab
[ -d $knobs ] || skip "this kernel cannot make allocations fail (CONFIG_FAILSLAB)"
must mkfs.rdax -q -f "$PMEM1"
mkdir other
at_end "echo 0 >$knobs/probability; umount other"
# Only of the task that asks for it, also where the kernel could wait for memory.
for knob in task-filter=1 ignore-gfp-wait=0 interval=1 times=-1 verbose=0 probability=10; do
	echo "${knob#*=}" >"$knobs/${knob%=*}"
done
python3 - "$MNT" "$PMEM1" other <<'END'
import ctypes, errno, mmap, os, random, sys
from calls import check, fallocate, libc
top, device, other = sys.argv[1:]
chance = random.Random(1)
switch = os.open("/proc/self/make-it-fail", os.O_WRONLY)
done, failed = {}, {}

def attempt(call, *args, **kw):
    """Whether the call succeeds with failing allocations; if not, they are the cause."""
    name = call.__name__
    os.pwrite(switch, b"1", 0)
    try:
        call(*args, **kw)
        error = 0
    except OSError as e:
        error = e.errno
    finally:
        os.pwrite(switch, b"0", 0)
    assert error in (0, errno.ENOMEM), (name, args, errno.errorcode[error])
    count = failed if error else done
    count[name] = count.get(name, 0) + 1
    return error == 0

def often(percent):
    with open("/sys/kernel/debug/failslab/probability", "w") as knob:
        knob.write(str(percent))

def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))

def write(fd, data, at):
    # Whole, but for an error on the way.
    while data:
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n

def punch(fd, at, length):
    fallocate(fd, 3, at, length)

def store(fd, data, at):
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size) as mapped:
        mapped[at:at + len(data)] = data
        mapped.flush()

def mount():
    check(libc.mount(device.encode(), other.encode(), b"rdax", 0, None))

SIZE = 3 << 20

def old_or_new(data, old, new):
    """Each byte is one of the two, which end in zeroes."""
    old, new = (part + bytes(max(0, len(data) - len(part))) for part in (old, new))
    for at in range(0, len(data), 4096):
        parts = [part[at:min(at + 4096, len(data))] for part in (data, old, new)]
        if parts[0] not in parts[1:] and not all(b in (x, y) for b, x, y in zip(*parts)):
            return False
    return True

# What is there: contents of files, None for a directory.
there = {}

def found():
    names = {}
    for name in os.listdir(top):
        path = f"{top}/{name}"
        names[name] = None if os.path.isdir(path) else os.stat(path).st_size
    return names

for n in range(1500):
    name = f"{chance.randrange(40):03}" * chance.choice((1, 20))
    path, kind = f"{top}/{name}", there.get(name, "absent")
    second = f"second{chance.randrange(40)}"
    if kind == "absent":
        if chance.randrange(3) == 0:
            if attempt(os.mkdir, path):
                there[name] = None
        elif attempt(create, path):
            there[name] = bytearray()
    elif chance.randrange(8) == 0 and second not in there:
        if attempt(os.rename, path, f"{top}/{second}"):
            there[second] = there.pop(name)
    elif kind is None:
        if chance.randrange(3) == 0 and attempt(os.rmdir, path):
            del there[name]
        else:
            attempt(os.setxattr, path, "user.large", b"x" * chance.choice((10, 30000)))
    elif chance.randrange(6) == 0:
        if attempt(os.unlink, path):
            del there[name]
    else:
        fd = os.open(path, os.O_RDWR)
        data = bytes([chance.randrange(256)]) * chance.randrange(1, 20000)
        at = chance.randrange(SIZE)
        op = chance.randrange(6)
        new = bytearray(kind)
        if op <= 1:
            new.extend(bytes(max(0, at + len(data) - len(new))))
            new[at:at + len(data)] = data
            call = (write, fd, data, at)
        elif op == 2:
            new = new[:at] + bytes(max(0, at - len(new)))
            call = (os.ftruncate, fd, at)
        elif op == 3:
            end = min(at + len(data), len(new))
            new[at:end] = bytes(max(0, end - at))
            call = (punch, fd, at, len(data))
        elif op == 4 and len(new) > len(data):
            at = chance.randrange(len(new) - len(data))
            new[at:at + len(data)] = data
            call = (store, fd, data, at)
        else:
            call = (os.fsync, fd)
        if attempt(*call):
            there[name] = new
        else:
            # A write or a store may have got half of the way.
            is_now = os.pread(fd, SIZE * 2, 0)
            assert len(is_now) >= min(len(kind), len(new)), call
            assert old_or_new(is_now, kind, new), call
            there[name] = bytearray(is_now)
        assert os.pread(fd, SIZE * 2, 0) == there[name], call
        os.close(fd)
    if n % 50 == 0:
        expect = {name: content if content is None else len(content) for name, content in there.items()}
        assert found() == expect, (n, found().items() ^ expect.items())
        # It allocates so much that one in ten would never let it through.
        often(1)
        if attempt(mount):
            check(libc.umount(other.encode()))
        often(10)
print("done:", done)
print("failed:", failed)
# The others may have nothing to allocate.
for call in ("create", "mkdir", "rename", "unlink", "setxattr", "store", "mount"):
    assert done.get(call) and failed.get(call), call
END
