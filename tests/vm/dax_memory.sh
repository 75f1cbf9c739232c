# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Kernel memory that mapped files and directories take, in a memory cgroup.
# timeout: 200
. "${0%/*}/lib.sh"

exec rdax-dax-test memory
