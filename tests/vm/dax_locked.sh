# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Mappings that are locked in memory.
. "${0%/*}/lib.sh"

exec rdax-dax-test locked
