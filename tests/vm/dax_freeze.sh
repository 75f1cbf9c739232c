# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A frozen file system has no dirty page, and gets none.
# order: first
. "${0%/*}/lib.sh"

exec rdax-dax-test freeze
