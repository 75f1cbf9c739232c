# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The device is removed under mappings that are in use: SIGBUS and errors, and a
# file system that can be unmounted.
# order: first
. "${0%/*}/lib.sh"

mkdir share
cat >share/remove.py <<'END'
import mmap, os, signal, subprocess, time

f = open("/mnt/pmem/a", "w+b")
f.write(b"x" * 64 * 4096)
f.flush()
m = mmap.mmap(f.fileno(), 64 * 4096)
pid = os.fork()
if pid == 0:
    n = 0
    while True:
        m[n % 64 * 4096] = n % 251
        n += 1
reader = os.fork()
if reader == 0:
    end = time.monotonic() + 8
    while time.monotonic() < end:
        m[5 * 4096]
    os._exit(0)
time.sleep(0.5)
namespace = os.path.basename(os.path.realpath("/sys/block/pmem0/device"))
driver = "/sys/bus/nd/drivers/nd_pmem/unbind"
subprocess.run(["bash", "-c", f"echo {namespace} >{driver}"], check=True)
for pid in pid, reader:
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
for work in (lambda: open("/mnt/pmem/b", "w"), lambda: f.seek(0) or f.read(10),
             lambda: os.pwrite(f.fileno(), b"y", 0)):
    try:
        work()
    except OSError as error:
        print(error)
    else:
        raise AssertionError("the device is gone, and nothing failed")
END
cat >share/remove <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
python3 /share/remove.py
umount /mnt/pmem
END
vm --pmem 128M -- bash /share/remove

# The device comes back, and is somebody else's, while the mount that had it is in use.
cat >share/again <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
cd /tmp
rdax-dax-test removal
umount /mnt/pmem
END
rm image
vm --pmem 128M -- bash /share/again
