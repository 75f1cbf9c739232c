# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Faults, syncs and truncation all at once: nothing hangs or is lost.
# order: first
. "${0%/*}/lib.sh"

exec rdax-dax-test concurrent
