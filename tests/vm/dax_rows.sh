# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Stores to pages in a row.
. "${0%/*}/lib.sh"

exec rdax-dax-test rows
