# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# mtime and ctime move with stores to mappings, and only with them.
. "${0%/*}/lib.sh"

exec rdax-dax-test times
