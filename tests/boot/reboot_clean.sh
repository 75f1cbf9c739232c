# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What was written, mapped and synced before a shutdown is there after the next
# boot: contents, names, sizes, owners, times.
. "${0%/*}/lib.sh"

mkdir share
cat >share/attributes <<'END'
cd /mnt/pmem
stat -c "%N %F %a %u:%g %s %b %h %y" d d/e d/e/f g h i sparse
END
cat >share/fill <<'END'
set -e
mkfs.rdax -q /dev/pmem0
mount -t rdax /dev/pmem0 /mnt/pmem
rdax-stress --dir /mnt/pmem --seconds 20 --seed 11 --ledger /share/ledger --only mixed
cd /mnt/pmem
mkdir -p d/e
echo text >d/e/f
ln d/e/f g
ln -s d/e/f h
mkfifo i
chmod 4751 d/e/f
chown 12:34 d/e/f
touch -d "2471-03-04 05:06:07.123456789" d/e/f
truncate -s 7P sparse
bash /share/attributes >/share/before
cd /
umount /mnt/pmem
END
cat >share/check <<'END'
set -e
mount -t rdax /dev/pmem0 /mnt/pmem
bash /share/attributes >/share/after
test "$(cat /mnt/pmem/h)" = text
rdax-stress --dir /mnt/pmem --ledger /share/ledger --verify
umount /mnt/pmem
fsck.rdax -n /dev/pmem0
END
vm --pmem 256M -- bash /share/fill
vm -- bash /share/check
diff share/before share/after || fail "attributes have changed over the boot"
