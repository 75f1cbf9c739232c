# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Mappings of 2 MiB.
. "${0%/*}/lib.sh"

exec rdax-dax-test huge
