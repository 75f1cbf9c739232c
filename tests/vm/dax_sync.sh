# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# fsync, msync, sync write back what is dirty in their range, and nothing else.
. "${0%/*}/lib.sh"

exec rdax-dax-test sync
