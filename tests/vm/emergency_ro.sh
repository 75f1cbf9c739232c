# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# An emergency remount (sysrq u) asks nobody: from then on no store and no call changes the volume, and
# what was stored before is there. Afterwards it can be made writable again.
. "${0%/*}/lib.sh"

cat >stores.py <<'END'
# stores.py FILE PAGES sync|no: stores through a mapping, to one page after the other, until SIGBUS;
# calls fsync now and then.
import mmap, os, sys, time
pages, syncs = int(sys.argv[2]), sys.argv[3] == 'sync'
with open(sys.argv[1], 'w+b') as file:
    file.truncate(pages * 4096)
    m = mmap.mmap(file.fileno(), pages * 4096)
    n = 0
    while True:
        n += 1
        m[n % pages * 4096] = n % 251
        if syncs and n % 2 == 0:
            os.fsync(file.fileno())
        if n == 1000:
            open('storing-' + os.path.basename(sys.argv[1]), 'w').close()
        time.sleep(0.0005)
END

free=$(stat -f -c %f "$MNT")
python3 stores.py "$MNT/hot" 1 sync &
storers=($!)
python3 stores.py "$MNT/dirty" 3 no &
storers+=($!)
python3 stores.py "$MNT/huge" 512 no &
storers+=($!)
at_end "kill ${storers[*]}; mount -o remount,rw $MNT"
for ((i = 0; i < 600; i++)); do
	[ "$(echo storing-*)" != "storing-dirty storing-hot storing-huge" ] || break
	sleep 0.1
done
exec 3>>"$MNT/log" 4>>"$MNT/unlinked"
echo before >&3
echo before >&4
rm "$MNT/unlinked"
mark_log
echo 1 >/proc/sys/kernel/sysrq
echo u >/proc/sysrq-trigger

for storer in "${storers[@]}"; do
	status=0
	wait "$storer" || status=$?
	same "status of who stores, 128 + SIGBUS" 135 $status
done
for ((i = 0; i < 100; i++)); do
	[[ ,$(findmnt -no FS-OPTIONS "$MNT"), != *,ro,* ]] || break
	sleep 0.1
done
[[ ,$(findmnt -no FS-OPTIONS "$MNT"), == *,ro,* ]] || fail "not read-only"
before=$(md5sum "$MNT/hot" "$MNT/dirty" "$MNT/huge" "$MNT/log")
! output=$({ echo after >&3; } 2>&1) || fail "a write succeeded"
[[ $output == *"Read-only file system"* ]] || fail "write: $output"
# Waits for nobody, and frees nothing.
exec 4>&-
must sync -f "$MNT"
same "contents" "$before" "$(md5sum "$MNT/hot" "$MNT/dirty" "$MNT/huge" "$MNT/log")"
! log_since | grep -q 'forced remount' || fail "the VFS complains"

exec 3>&-
must mount -o remount,rw "$MNT"
must rm "$MNT/hot" "$MNT/dirty" "$MNT/huge" "$MNT/log"
for ((i = 0; i < 100; i++)); do
	[ "$(stat -f -c %f "$MNT")" != "$free" ] || break
	sleep 0.1
done
same "free blocks" "$free" "$(stat -f -c %f "$MNT")"
