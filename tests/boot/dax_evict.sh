# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Files leave memory while the file system is synced, and what was freed is poisoned: who
# still uses it is caught, or hangs.
. "${0%/*}/lib.sh"

vm --pmem 256M --cpus 2 --append 'slab_debug=FZP,kmalloc-*,rdax*' --timeout 900 -- '
	set -e
	mkfs.rdax -q /dev/pmem0
	mount -t rdax /dev/pmem0 /mnt/pmem
	rdax-dax-test evict
	umount /mnt/pmem
	fsck.rdax -n /dev/pmem0'
