# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Entries of page tables that are neither a page nor nothing.
. "${0%/*}/lib.sh"

exec rdax-dax-test markers
