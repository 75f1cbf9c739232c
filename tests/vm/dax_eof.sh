# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The end of the file, under mappings.
. "${0%/*}/lib.sh"

exec rdax-dax-test eof
