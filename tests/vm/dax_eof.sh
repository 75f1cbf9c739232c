# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The end of the file, under mappings; and under those that go through the page cache.
. "${0%/*}/lib.sh"

must rdax-dax-test eof
must umount "$MNT"
must mount -t rdax -o dax=never "$PMEM" "$MNT"
must rdax-dax-test eof
