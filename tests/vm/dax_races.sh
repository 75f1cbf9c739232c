# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Stores that race with syncs. What was lost, a module built with SHADOW=1 finds
# when it is unmounted; others are skipped.
# timeout: 300
. "${0%/*}/lib.sh"

grep -qa 'lines were not written back' /rdax/rdax.ko ||
	skip "not a test build (make module SHADOW=1)"
rdax-dax-test races
rdax-dax-test concurrent
