# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device with asynchronous flush: every durability point reaches the host, MAP_SYNC
# is refused, all else is as on an NVDIMM, and the volume is whole after a reboot.
. "${0%/*}/lib.sh"

make_check
cat >share/test <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
[ -b /dev/nbd0 ] || modprobe nbd nbds_max=1 max_part=0
for group in flush sync no_cache dirty holes times; do
	rdax-dax-test $group
done
rdax-stress --dir /mnt/pmem --seconds 10 --seed 3 --ledger /share/ledger --only mixed
python3 /share/libpmem.py
umount /mnt/pmem
END
cat >share/libpmem.py <<'END'
# libpmem falls back on msync where DAX is not synchronous.
import ctypes, os
pmem = ctypes.CDLL("libpmem.so.1", use_errno=True)
pmem.pmem_map_file.restype = ctypes.c_void_p
size, is_pmem = ctypes.c_size_t(), ctypes.c_int(7)
at = pmem.pmem_map_file(b"/mnt/pmem/libpmem", ctypes.c_size_t(1 << 20), 1, 0o600,
                        ctypes.byref(size), ctypes.byref(is_pmem))
assert at, os.strerror(ctypes.get_errno())
assert (size.value, is_pmem.value) == (1 << 20, 0), (size, is_pmem)
def counter():
    return int(open("/sys/fs/rdax/pmem0/pages_written_back").read())
before = counter()
ctypes.memset(at + 5000, 7, 100)
assert pmem.pmem_msync(ctypes.c_void_p(at + 5000), ctypes.c_size_t(100)) == 0
assert counter() == before + 1
END
vm --virtio-pmem --pmem 256M -- SLOWDOWN="$SLOWDOWN" bash /share/test
vm --virtio-pmem -- bash /share/check
