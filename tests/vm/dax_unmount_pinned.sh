# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Pages that are pinned when all else is gone: unmounting waits for them, since the
# next user of the device must find them idle. The blocks of a file that was
# unlinked are free then.
# order: first
. "${0%/*}/lib.sh"

cat >pin.py <<'END'
# Pins a page of two files by a pipe, gives up the files, one of them with its name, and drains the
# pipe when told to.
import ctypes, mmap, os, sys, time

class Iovec(ctypes.Structure):
    _fields_ = ("base", ctypes.c_void_p), ("len", ctypes.c_size_t)

libc = ctypes.CDLL(None)
reader, writer = os.pipe()
for name in "pinned", "unlinked":
    f = open(f"{sys.argv[1]}/{name}", "w+b")
    f.write(b"p" * 4096)
    f.flush()
    m = mmap.mmap(f.fileno(), 4096)
    buffer = ctypes.c_char.from_buffer(m)
    iovec = Iovec(ctypes.addressof(buffer), 4096)
    assert libc.vmsplice(writer, ctypes.byref(iovec), ctypes.c_size_t(1), 0) == 4096
    del buffer
    m.close()
    f.close()
os.unlink(f"{sys.argv[1]}/unlinked")
open("pinned", "w").close()
while not os.path.exists("drain"):
    time.sleep(0.05)
for _ in range(2):
    assert os.read(reader, 4096) == b"p" * 4096
END
python3 pin.py "$MNT" &
pin=$!
until [ -e pinned ]; do
	kill -0 $pin || fail "nothing was pinned"
	sleep 0.1
done
umount "$MNT" &
unmount=$!
sleep 1
kill -0 $unmount 2>/dev/null || fail "unmounting did not wait for the pin"
touch drain
wait $pin || fail "the pinned page has changed"
for _ in {1..600}; do
	kill -0 $unmount 2>/dev/null || break
	sleep 0.1
done
wait $unmount || fail "umount: status $?"
mark_log
must mount -t rdax "$PMEM" "$MNT"
! log_since | grep "without a name" || fail "unmounting left an orphan"
must cmp -n 4096 "$MNT/pinned" <(head -c 4096 /dev/zero | tr '\0' p)
