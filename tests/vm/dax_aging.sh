# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Stores reach the media without a sync call, after a while.
. "${0%/*}/lib.sh"

exec rdax-dax-test aging
