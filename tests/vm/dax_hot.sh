# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Pages that are stored to before every sync.
. "${0%/*}/lib.sh"

exec rdax-dax-test hot
