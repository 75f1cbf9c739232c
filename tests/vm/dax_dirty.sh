# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A page stays dirty until it is written back, whatever happens to its mappings.
. "${0%/*}/lib.sh"

load_nbd
rdax-dax-test dirty
