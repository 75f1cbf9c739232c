# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# volume: none
# timeout: 600
#
# The workloads of crash tests are possible on rdax, and without a crash leave what their oracle
# says. Of the sequences of two operations every 50th, and on the debug kernel every 500th, and
# every tenth of one.
. "${0%/*}/lib.sh"

rdax-crash-guest names | awk -v ace1="$(sized 1 10)" -v ace2="$(sized 50 500)" '
	/^ace1:/ { if (NR % ace1 == 0) print; next }
	/^ace2:/ { if (NR % ace2 == 0) print; next }
	1' >chosen
[ -s chosen ] || fail "there are no workloads"
count=0
while read -r name; do
	case $name in random:*) seeds=$(sized '1 2 3 4 5' 1) ;; *) seeds=1 ;; esac
	for seed in $seeds; do
		must mkfs.rdax -q -f "$PMEM"
		must mount -t rdax "$PMEM" "$MNT"
		must rdax-crash-guest run --dir "$MNT" "$name" "$seed"
		must umount "$MNT"
		must rdax-crash-guest check --device "$PMEM" "$name" "$seed"
		count=$((count + 1))
	done
done <chosen

for name in $(rdax-crash-guest clients); do
	must mkfs.rdax -q -f "$PMEM"
	must mount -t rdax "$PMEM" "$MNT"
	must rdax-crash-guest run --dir "$MNT" "$name" 3
	must cp -r "$MNT" files
	# To open it changes it, and one transaction less is another table.
	! rdax-crash-guest check-client --dir files "$name" 3 --finished 23 2>/dev/null ||
		fail "$name: the check takes one transaction too many for right"
	must rdax-crash-guest check-client --dir "$MNT" "$name" 3 --finished 24
	rm -r files
	must umount "$MNT"
	count=$((count + 1))
done
echo "$count workloads"
