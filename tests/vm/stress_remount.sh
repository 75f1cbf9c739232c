# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the stress tests leave is there after unmounting, removing the module and
# mounting again, and a read-only mount can verify it.
# timeout: 300
. "${0%/*}/lib.sh"

rdax-stress --dir "$MNT" --seconds 20 --seed 7 --only msync,fork,append,holes,truncate,direct,names \
	--ledger ledger
must umount "$MNT"
must fsck.rdax -n "$PMEM"
must rmmod rdax
must insmod /rdax/rdax.ko
must mount -t rdax "$PMEM" "$MNT"
must rdax-stress --dir "$MNT" --verify --ledger ledger
must umount "$MNT"
must mount -t rdax -o ro "$PMEM" "$MNT"
must rdax-stress --dir "$MNT" --verify --ledger ledger
