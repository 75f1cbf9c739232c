# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Small answers: calls that may not wait, alignment, generation, where a file is.
. "${0%/*}/lib.sh"

must rdax-dax-test answers
# Files that go through the page cache, where the kernel asks the file system.
must umount "$MNT"
must mount -t rdax -o dax=never "$PMEM" "$MNT"
mark_log
for what in 'where a block is' 'swap space is refused'; do
	must rdax-dax-test answers "$what"
done
log_says "${PMEM##*/}: a file cannot be swap space"
