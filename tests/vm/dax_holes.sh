# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Holes under mappings: read, filled in the fault, filled by others.
. "${0%/*}/lib.sh"

exec rdax-dax-test holes
