# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The bundled stress tests on files that go through the page cache; what they leave is there when
# the same files are mapped directly.
# timeout: 600
# order: first
. "${0%/*}/lib.sh"

must umount "$MNT"
must mount -t rdax -o dax=never "$PMEM" "$MNT"
rdax-stress --dir "$MNT" --seconds 40 --seed "${STRESS_SEED:-1}" --ledger ledger --only \
	msync,fsync-other,hot,fork,munmap,remap,mprotect,private,append,holes,truncate,direct,mixed
must umount "$MNT"
must fsck.rdax -n "$PMEM"
must mount -t rdax "$PMEM" "$MNT"
must rdax-stress --dir "$MNT" --verify --ledger ledger
