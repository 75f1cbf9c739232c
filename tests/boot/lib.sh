# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# For the tests that boot for themselves, sourced by each: . "${0%/*}/lib.sh"
# tests/run gives them TOP, KERNEL, SLOWDOWN (of that kernel), and a directory of their own to work
# in; it runs those with the comment `# order: first`, which race, before the others.
set -euo pipefail
: "${SLOWDOWN:=1}"

fail() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

# vm OPTION... -- COMMAND: boots with the image `image`, which COMMAND has to mount,
# and the directory `share` at /share.
vm() {
	mkdir -p share
	"$TOP/qemu/vm" --kernel "$KERNEL" --fs none --image image --share share "$@"
}

# Makes share/check, which finds all that the stress tests were promised durable, and
# the volume clean.
make_check() {
	mkdir -p share
	cat >share/check <<'END'
set -e
mount -t rdax /dev/pmem0 /mnt/pmem
rdax-stress --dir /mnt/pmem --ledger /share/ledger --verify
umount /mnt/pmem
fsck.rdax -n /dev/pmem0
END
}

# qemu_of PID: the QEMU that the process PID, a qemu/vm, or its children started.
qemu_of() {
	local child children=()
	# The file does not end in a newline, which read takes for an end too early.
	read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || :
	for child in "${children[@]}"; do
		if tr '\0' ' ' <"/proc/$child/cmdline" | grep -q '/qemu-system-x86_64 '; then
			echo "$child"
			return
		fi
		qemu_of "$child"
	done
}

# kill_vm PID: the power goes out under the VM that the qemu/vm PID runs.
kill_vm() {
	local qemu status=0
	qemu=$(qemu_of "$1")
	[ -n "$qemu" ] || fail "the VM has ended before it could be killed"
	kill -KILL "$qemu"
	wait "$1" || status=$?
	# qemu/vm: the VM ended before the command did; 99 would be a kernel report.
	[ $status = 125 ] || fail "the killed VM ended with status $status"
}
