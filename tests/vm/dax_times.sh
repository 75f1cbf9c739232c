# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# mtime and ctime move with stores to mappings, and only with them; what fsync and sync have moved is
# there after a crash.
. "${0%/*}/lib.sh"

rdax-dax-test times

# A page that is hot is stored to without a fault: the sync finds out, and moves the times. The
# volume is shut down then, with nothing written.
cat >times.py <<'END'
import fcntl, mmap, os, struct, sys, time
SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2
path, how = sys.argv[1:]
f = open(path, 'w+b')
f.write(bytes(8192))
f.flush()
m = mmap.mmap(f.fileno(), 8192)
sync = {
    'fsync': lambda: os.fsync(f.fileno()),
    'sync': os.sync,
}[how]
for value in range(6):
    m[0] = value
    sync()
before = os.fstat(f.fileno()).st_mtime_ns
time.sleep(0.1)
m[0] = 99
sync()
after = os.fstat(f.fileno())
assert after.st_mtime_ns > before, 'the sync moves no time'
fcntl.ioctl(f.fileno(), SHUTDOWN, struct.pack('I', NOLOGFLUSH))
print(after.st_mtime_ns, after.st_ctime_ns)
END
for how in fsync sync; do
	expected=$(python3 times.py "$MNT/f" "$how") || fail "$how"
	must umount "$MNT"
	must mount -t rdax "$PMEM" "$MNT"
	found=$(python3 -c 'import os, sys; s = os.stat(sys.argv[1]); print(s.st_mtime_ns, s.st_ctime_ns)' "$MNT/f")
	same "times after $how and a crash" "$expected" "$found"
done
