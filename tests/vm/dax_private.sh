# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Private mappings see the file and never change it.
. "${0%/*}/lib.sh"

exec rdax-dax-test private
