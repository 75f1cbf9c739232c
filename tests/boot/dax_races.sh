# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Stores that race with syncs, on several processors, on a module that keeps a copy of
# what is durable (SHADOW=1): unmounting it reports every line that was stored to and
# never written back. A mistake that is built into the module has to be reported, too.
# order: first
. "${0%/*}/lib.sh"

case $KERNEL in
stock) target=module release=$(<"$("$TOP/scripts/kernel")/release") ;;
debug) target=debug-module release=$(<"$("$TOP/scripts/debug-kernel" --find)/release") ;;
esac

# on MODULE COMMAND: what it prints goes to `log`. Exits with 99 if the kernel reported
# something, as the module does when lines are missing.
on() {
	vm --pmem 512M --timeout $((600 * SLOWDOWN)) --module "$TOP/build/shadow/$1/rdax.ko" -- "
		set -e
		export SLOWDOWN=$SLOWDOWN
		mkfs.rdax -q /dev/pmem0
		mount -t rdax /dev/pmem0 /mnt/pmem
		$2
		umount /mnt/pmem
		fsck.rdax -n /dev/pmem0" >log 2>&1
}

# The block of a page becomes bad when all around it are dirty.
mkdir share
cat >share/bad.py <<'END'
import fcntl, mmap, os, struct, sys
PAGE, PAGES, BAD, FIBMAP = 4096, 16, 3, 1
f = os.open("/mnt/pmem/bad", os.O_RDWR | os.O_CREAT)
if sys.argv[1] == "before":
    os.pwrite(f, bytes(PAGES * PAGE), 0)
    sys.exit()
def block(page):
    return struct.unpack("I", fcntl.ioctl(f, FIBMAP, struct.pack("I", page)))[0]
assert block(PAGES - 1) == block(0) + PAGES - 1, "not in one piece"
m = mmap.mmap(f, PAGES * PAGE)
for page in range(PAGES):
    m[page * PAGE] = 1
with open("/sys/block/pmem0/badblocks", "w") as bad:
    bad.write(f"{block(BAD) * PAGE // 512} 1")
os.fsync(f)
END

make -C "$TOP" "$target" SHADOW=1
on "$release" "python3 /share/bad.py before
	rdax-dax-test races; rdax-dax-test concurrent; rdax-dax-test huge
	[ -b /dev/nbd0 ] || modprobe nbd nbds_max=1 max_part=0
	rdax-dax-test pins 'DMA that ends when its file has left memory'
	rdax-stress --dir /mnt/pmem --seconds ${STRESS_SECONDS:-60} --seed ${STRESS_SEED:-1}
	python3 /share/bad.py now" || {
	cat log
	fail "stores were lost, or the kernel reported something else"
}
rm image
make -C "$TOP" "$target" SHADOW=1 MUTATE=write-back-early
status=0
on mutants/write-back-early "rdax-dax-test races" || status=$?
if [ $status != 99 ] || ! grep -q 'WARNING: .*pmem/shadow.rs' log; then
	cat log
	fail "nobody saw that pages were written back before they were write-protected"
fi
