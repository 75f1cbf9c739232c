# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the tests that run in the VM, sourced by each script: . "${0%/*}/lib.sh"
# (dax.list has those that are one command.)
#
# A test NAME.sh is run by bash as root with PMEM=/dev/pmem0, PMEM1=/dev/pmem1 (a
# small second device that nobody else uses) and MNT=/mnt/pmem, in an empty
# directory of its own in memory. PMEM holds a new volume, mounted on MNT. When
# the test has ended, MNT is unmounted, fsck.rdax has to find PMEM clean, and the
# kernel must have reported nothing. Exit status 0: it held; 77: skipped, the
# last line says why; anything else: it failed. Comments in the test change that:
#   # volume: none       PMEM is not made and not mounted
#   # timeout: SECONDS   instead of 120
#   # order: first       it races, and runs before the others
set -euo pipefail

# Where calls.py is.
export PYTHONPATH=${0%/*} PYTHONDONTWRITEBYTECODE=1

fail() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

skip() {
	printf '%s\n' "$*"
	exit 77
}

# must COMMAND...: it succeeds, or the test fails and shows what it said.
must() {
	local output
	output=$("$@" 2>&1) || fail "$* (status $?): $output"
}

# refused ERRNO COMMAND...: it fails, and a system call in it with that ERRNO.
refused() {
	local errno=$1 trace
	shift
	trace=$(mktemp)
	if strace -f -qq -o "$trace" "$@" >/dev/null 2>&1; then
		fail "$* succeeded instead of failing with $errno"
	fi
	grep -q "= -1 $errno " "$trace" ||
		fail "$* did not fail with $errno: $(grep -e '= -1 ' "$trace" | tail -n 2)"
	rm "$trace"
}

# mount_refused ERRNO ARGUMENT...: mount with these arguments fails, and the last
# system call that failed has that ERRNO.
mount_refused() {
	local errno=$1 trace failed
	shift
	trace=$(mktemp)
	if strace -f -qq -o "$trace" -e trace=mount,fsopen,fspick,fsconfig,fsmount,move_mount,mount_setattr \
		mount "$@" >/dev/null 2>&1; then
		fail "mount $* succeeded instead of failing with $errno"
	fi
	failed=$(grep -e '= -1 ' "$trace" | tail -n 1)
	[[ $failed == *"= -1 $errno "* ]] || fail "mount $* did not fail with $errno: $failed"
	rm "$trace"
}

# same WHAT EXPECTED FOUND
same() {
	[ "$2" = "$3" ] || fail "$1: expected $2, found $3"
}

# counter NAME: a counter of the volume on PMEM.
counter() { cat "/sys/fs/rdax/${PMEM##*/}/$1"; }

# mark_log, then log_says PATTERN: a line of rdax since the mark matches the
# extended regular expression.
mark_log() { printf 'rdax-test: mark\n' >/dev/kmsg; }
log_since() { dmesg | awk '/rdax-test: mark/ { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }'; }
log_says() {
	log_since | grep -E 'rdax: ' | grep -qE "$1" ||
		fail "no line of rdax in the kernel's log has '$1': $(log_since)"
}

# remember DEVICE, then unchanged DEVICE WHAT: not a byte of it is different, whatever the page
# cache says. WHAT says in which case.
remember() { must dd if="$1" of=remembered bs=1M iflag=direct; }
unchanged() {
	local differs
	must dd if="$1" of=found bs=1M iflag=direct
	differs=$(cmp remembered found 2>&1) || fail "$1 has changed ($2): $differs"
	rm found
}

# sized STOCK DEBUG: how much work, on the stock kernel and on the debug kernel, which is many times
# slower and finds its faults with less.
sized() { if [ "$KERNEL" = debug ]; then echo "$2"; else echo "$1"; fi; }

# load_nbd: for the device that the scenarios of rdax-dax-test hold back. The debug kernel has it
# built in.
load_nbd() { [ -e /dev/nbd0 ] || must modprobe nbd nbds_max=1 max_part=0; }

# at_end COMMANDS: run when the test ends, however it does.
at_end() {
	# Meant to be expanded now.
	# shellcheck disable=SC2064
	trap "set +e; exec >/dev/null 2>&1; $*" EXIT
}
