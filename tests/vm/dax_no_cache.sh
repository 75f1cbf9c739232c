# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Where the device has no volatile write cache, the times move, freezing holds, and the setting may
# be changed, as ever.
. "${0%/*}/lib.sh"

exec rdax-dax-test no_cache
