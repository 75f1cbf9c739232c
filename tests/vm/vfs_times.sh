# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# When access times move: relatime, strictatime, noatime; lazytime, which keeps them in memory; and
# that all are on the media after an unmount, and with fsync.
. "${0%/*}/lib.sh"

atime() { stat -c %.9X "$MNT/f"; }
mtime() { stat -c %.9Y "$MNT/f"; }
with() {
	must umount "$MNT"
	must mount -t rdax -o "$1" "$PMEM" "$MNT"
}
old() { touch -a -d '2001-02-03 04:05:06' "$MNT/f"; }

echo content >"$MNT/f"
# relatime, the default: once after a change, and once a day.
[[ $(grep " $MNT " /proc/mounts) == *relatime* ]] || fail "relatime is not the default"
touch "$MNT/f"
sleep 0.1
echo more >>"$MNT/f"
before=$(atime)
cat "$MNT/f" >/dev/null
moved=$(atime)
[ "$before" != "$moved" ] || fail "a read after a change does not move atime"
sleep 0.1
cat "$MNT/f" >/dev/null
same "atime after a second read" "$moved" "$(atime)"
old
cat "$MNT/f" >/dev/null
[ "$(atime)" != "$moved" ] || fail "an atime of long ago stays"
moved=$(atime)
with relatime
same "atime after an unmount" "$moved" "$(atime)"
with strictatime
sleep 0.1
cat "$MNT/f" >/dev/null
[ "$(atime)" != "$moved" ] || fail "strictatime: a read does not move atime"
with noatime
old
moved=$(atime)
cat "$MNT/f" >/dev/null
same "atime with noatime" "$moved" "$(atime)"

# lazytime: no transaction for times until the inode is written for another reason, the file is
# synced, or the volume unmounted.
with lazytime,strictatime
[[ $(grep " $MNT " /proc/mounts) == *lazytime* ]] || fail "lazytime is not shown"
cat "$MNT/f" >/dev/null
before=$(counter fences)
for _ in 1 2 3; do
	sleep 0.05
	cat "$MNT/f" >/dev/null
	printf x | dd of="$MNT/f" conv=notrunc status=none
done
same "fences: one a write, none for times" $((before + 3)) "$(counter fences)"
a=$(atime) m=$(mtime)
must sync "$MNT/f"
[ "$(counter fences)" -gt $((before + 3)) ] || fail "fsync does not write the times"
same "times after fsync" "$a $m" "$(atime) $(mtime)"
sleep 0.05
cat "$MNT/f" >/dev/null
a=$(atime)
with relatime
same "times after an unmount" "$a $m" "$(atime) $(mtime)"

# Leases and locks.
cat >locks.py <<'END'
import errno, fcntl, os, signal, struct, sys, time
os.chdir(sys.argv[1])
F_SETLEASE, F_GETLEASE, F_OFD_SETLK = 1024, 1025, 37

def fails(numbers, call, *args):
    try:
        call(*args)
    except OSError as e:
        assert e.errno in numbers, errno.errorcode[e.errno]
    else:
        raise AssertionError(args)

def child(call):
    pid = os.fork()
    if pid == 0:
        call()
        os._exit(0)
    return pid

broken = []
signal.signal(signal.SIGIO, lambda *_: broken.append(1))
a = os.open('f', os.O_RDONLY)
fcntl.fcntl(a, F_SETLEASE, fcntl.F_RDLCK)
assert fcntl.fcntl(a, F_GETLEASE) == fcntl.F_RDLCK
pid = child(lambda: os.close(os.open('f', os.O_WRONLY)))
while not broken:
    time.sleep(0.01)
fcntl.fcntl(a, F_SETLEASE, fcntl.F_UNLCK)
assert os.waitpid(pid, 0)[1] == 0
os.close(a)
w = os.open('f', os.O_RDWR)
fcntl.fcntl(w, F_SETLEASE, fcntl.F_WRLCK)
fails([errno.EAGAIN], lambda: os.open('f', os.O_RDONLY | os.O_NONBLOCK))
fcntl.fcntl(w, F_SETLEASE, fcntl.F_UNLCK)
# Locks of processes, of open files, and flock.
fcntl.lockf(w, fcntl.LOCK_EX, 10, 5)
def others():
    f = os.open('f', os.O_RDWR)
    fails([errno.EAGAIN, errno.EACCES], fcntl.lockf, f, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 14)
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
assert os.waitpid(child(others), 0)[1] == 0
fcntl.lockf(w, fcntl.LOCK_UN)
lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0)
fcntl.fcntl(w, F_OFD_SETLK, lock)
other = os.open('f', os.O_RDWR)
fails([errno.EAGAIN], fcntl.fcntl, other, F_OFD_SETLK, lock)
fcntl.flock(w, fcntl.LOCK_EX)
fails([errno.EAGAIN], fcntl.flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB)
fcntl.flock(w, fcntl.LOCK_UN)
fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
END
for dax in always never; do
	with "dax=$dax"
	must python3 locks.py "$MNT"
done
