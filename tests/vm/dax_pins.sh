# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Pages that are pinned when their inode leaves memory.
# order: first
. "${0%/*}/lib.sh"

load_nbd
rdax-dax-test pins
