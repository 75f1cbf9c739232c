# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A device without DAX is refused: a loop device, and an NVDIMM in raw mode, which has no struct
# pages. The volume on it is not touched.
# volume: none
. "${0%/*}/lib.sh"

at_end "umount $MNT; losetup -D"
truncate -s 32M image
must mkfs.rdax -q -f image
loop=$(losetup --show -f image)
remember image
mark_log
mount_refused EOPNOTSUPP -t rdax "$loop" "$MNT"
log_says "${loop##*/}: .*DAX"
unchanged image refused
losetup -d "$loop"

region=${PMEM1##*pmem}
must ndctl create-namespace -f -e "namespace$region.0" -m raw
at_end "umount $MNT; ndctl create-namespace -f -e namespace$region.0 -m fsdax -M mem"
must mkfs.rdax -q -f "$PMEM1"
remember "$PMEM1"
mark_log
mount_refused EOPNOTSUPP -t rdax "$PMEM1" "$MNT"
log_says "${PMEM1##*/}: .*DAX"
unchanged "$PMEM1" refused
