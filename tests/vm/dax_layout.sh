# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Truncation, punching and unlinking against mapped and pinned pages.
# order: first
. "${0%/*}/lib.sh"

load_nbd
rdax-dax-test layout
