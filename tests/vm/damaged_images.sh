# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Many volumes with random damage, mounted, walked and written to: the kernel refuses them or serves
# what is sound, and calls fail with EUCLEAN or EIO where it is not. Then fsck.rdax -y mends them,
# and they are mounted again, whole.
# volume: none
# timeout: 600
. "${0%/*}/lib.sh"

here=${0%/*}
at_end umount "$MNT"
must mkfs.rdax -q -f "$PMEM1"
must mount -t rdax "$PMEM1" "$MNT"
python3 - "$MNT" <<'PY'
import os, sys
top = sys.argv[1]
for d in range(8):
    os.makedirs(f"{top}/dir{d}/sub")
    for n in range(60):
        with open(f"{top}/dir{d}/{n:030}", "w") as file:
            file.write(f"file {d} {n}")
    os.symlink("x" * (50 + 100 * d), f"{top}/dir{d}/link")
    os.link(f"{top}/dir{d}/{0:030}", f"{top}/dir{d}/sub/linked")
    with open(f"{top}/dir{d}/holes", "wb") as file:
        for n in range(20):
            os.pwrite(file.fileno(), b"data", 8192 * n)
PY
must umount "$MNT"
must dd if="$PMEM1" of=image bs=1M

cat >walk.py <<'PY'
# Looks at everything, then changes something everywhere. What fails must fail because of damage.
import errno, os, sys
top, strict = sys.argv[1], sys.argv[2] == "strict"
DAMAGE = {errno.EUCLEAN, errno.EIO}
AFTER = {errno.EROFS}
count = 0

def attempt(call, *args, may=frozenset()):
    global count
    try:
        return call(*args)
    except OSError as e:
        count += 1
        if strict or e.errno not in DAMAGE | AFTER | may:
            sys.exit(f"{call.__name__}{args}: {e}")

def read(path):
    with open(path, "rb") as file:
        while file.read(1 << 16):
            pass

def look(path):
    info = attempt(os.lstat, path)
    if info is None:
        return
    kind = info.st_mode & 0o170000
    if kind == 0o120000:
        attempt(os.readlink, path)
    elif kind == 0o100000:
        attempt(read, path)
    elif kind == 0o040000:
        for name in attempt(os.listdir, path) or []:
            look(f"{path}/{name}")
        if not strict:
            attempt(change, path)

def change(path):
    with open(f"{path}/new", "w") as file:
        file.write("new")
    os.mkdir(f"{path}/newdir")
    os.rename(f"{path}/new", f"{path}/newdir/moved")
    os.unlink(f"{path}/newdir/moved")
    os.rmdir(f"{path}/newdir")

look(top)
print(count)
PY

refused=0 met=0 seeds=$(sized 12 4) limit=$((60 * SLOWDOWN))
for ((seed = 1; seed <= seeds; seed++)); do
	echo "seed $seed"
	must dd if=image of="$PMEM1" bs=1M conv=fsync
	must python3 "$here/damage.py" "$PMEM1" random $seed
	on_error=$([ $((seed % 2)) = 0 ] && echo continue || echo remount-ro)
	if mount -t rdax -o "errors=$on_error" "$PMEM1" "$MNT" 2>mount.log; then
		errors=$(timeout $limit python3 walk.py "$MNT" damaged 2>&1) ||
			fail "seed $seed: $errors"
		[ "$errors" = 0 ] || met=$((met + 1))
		must umount "$MNT"
	else
		grep -qE 'Structure needs cleaning|I/O error' mount.log ||
			fail "seed $seed: $(<mount.log)"
		refused=$((refused + 1))
	fi
	status=0
	timeout $limit fsck.rdax -y "$PMEM1" >found 2>&1 || status=$?
	[ $status -le 1 ] || fail "seed $seed: fsck.rdax -y, status $status: $(<found)"
	must fsck.rdax -n "$PMEM1"
	must mount -t rdax "$PMEM1" "$MNT"
	walked=$(timeout $limit python3 walk.py "$MNT" strict 2>&1) ||
		fail "seed $seed, repaired: $walked"
	must umount "$MNT"
done
echo "$met volumes had errors, $refused were refused"
[ $met -gt 0 ] || fail "no damage was met"
