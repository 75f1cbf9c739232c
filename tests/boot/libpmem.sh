# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# libpmem recognises a file of rdax as persistent memory and flushes its caches from user
# space. No system call syncs, the power fails, and the stores are there: size and
# blocks were durable before each store could happen.
. "${0%/*}/lib.sh"

mkdir share
cat >share/store.py <<'END'
import ctypes, os, time
pmem = ctypes.CDLL("libpmem.so.1", use_errno=True)
pmem.pmem_map_file.restype = ctypes.c_void_p
pmem.pmem_memset_persist.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
CREATE, SPARSE = 1, 4
def counter(name):
    return int(open(f"/sys/fs/rdax/pmem0/{name}").read())
for name, flags in ("allocated", CREATE), ("sparse", CREATE | SPARSE):
    size, is_pmem = ctypes.c_size_t(), ctypes.c_int()
    at = pmem.pmem_map_file(f"/mnt/pmem/{name}".encode(), ctypes.c_size_t(8 << 20), flags, 0o600,
                            ctypes.byref(size), ctypes.byref(is_pmem))
    assert at, os.strerror(ctypes.get_errno())
    assert (size.value, is_pmem.value) == (8 << 20, 1), (size, is_pmem)
    assert pmem.pmem_is_pmem(ctypes.c_void_p(at), ctypes.c_size_t(8 << 20)) == 1
    syncs = counter("sync_calls")
    for page in range(0, 2048, 3):
        pmem.pmem_memset_persist(at + page * 4096 + 100, page % 251 + 1, 300)
    assert counter("sync_calls") == syncs
open("/share/stored", "w").close()
time.sleep(600)
END
cat >share/check.py <<'END'
for name in "allocated", "sparse":
    data = open(f"/mnt/pmem/{name}", "rb").read()
    assert len(data) == 8 << 20
    for page in range(2048):
        expect = bytearray(4096)
        if page % 3 == 0:
            expect[100:400] = bytes([page % 251 + 1]) * 300
        assert data[page * 4096:(page + 1) * 4096] == expect, (name, page)
END
cat >share/store <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
exec python3 /share/store.py
END
cat >share/check <<'END'
set -e
mount -t rdax /dev/pmem0 /mnt/pmem
python3 /share/check.py
umount /mnt/pmem
fsck.rdax -n /dev/pmem0
END
vm --pmem 64M -- bash /share/store >log 2>&1 &
pid=$!
until [ -e share/stored ]; do
	kill -0 $pid 2>/dev/null || {
		cat log
		fail "the VM ended before it was killed"
	}
	sleep 0.2
done
kill_vm $pid
vm -- bash /share/check
