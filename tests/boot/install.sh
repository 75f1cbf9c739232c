# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# qemu/vm --install: the guest has the packages, what they depend on (jq: two libraries), and what
# their maintainer scripts made (ed: the link `editor`). Of a package that does not exist, nothing
# is left, and nothing boots.
. "${0%/*}/lib.sh"

vm() { "$TOP/qemu/vm" --kernel "$KERNEL" --pmem 64M "$@"; }

vm --install jq,ed -- '
	set -e
	printf "%s\n" a hello . "w text" q | editor -s
	jq --raw-input --compact-output "[., 1]" text >json
	findmnt -no FSTYPE -T json
	cat json' >output || fail "the programs ended with status $?: $(<output)"
[ "$(<output)" = $'rdax\n["hello",1]' ] || fail "the programs wrote: $(<output)"

# Once prepared, it is there at once.
"$TOP/scripts/guest-with" ed jq >output 2>messages || fail "the second time it fails: $(<messages)"
[ ! -s messages ] || fail "the second time it is prepared again: $(<messages)"

status=0
vm --install jq,no-such-package -- true 2>messages || status=$?
[ $status = 2 ] || fail "with a package that does not exist the status is $status"
grep -q '^guest-with: .* has no package no-such-package$' messages ||
	fail "the messages are: $(<messages)"
