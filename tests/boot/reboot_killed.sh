# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The VM is killed in the middle of the stress tests, again and again: at every
# boot all that was promised durable before is there, every name is in a state it
# could be in, and fsck.rdax is content.
. "${0%/*}/lib.sh"

ROUNDS=${ROUNDS:-3}
MOUNT_OPTIONS=${MOUNT_OPTIONS:-dax=always}

make_check
cat >share/round <<'END'
set -e
if [ -e /share/ledger ]; then
	bash /share/check
	rm -r /share/ledger
else
	mkfs.rdax -q /dev/pmem0
fi
mount -t rdax -o "$2" /dev/pmem0 /mnt/pmem
touch /share/checked
exec rdax-stress --dir /mnt/pmem --seconds 600 --only mixed --seed "$1" --ledger /share/ledger
END

promised() { du -sb share/ledger 2>/dev/null | cut -f1; }

size=(--pmem 256M)
for ((round = 1; round <= ROUNDS; round++)); do
	vm "${size[@]}" -- bash /share/round "$round" "$MOUNT_OPTIONS" >"log$round" 2>&1 &
	pid=$!
	size=()
	until [ -e share/checked ] && [ "$(promised)" -gt 20000 ]; do
		kill -0 $pid 2>/dev/null || {
			cat "log$round"
			fail "round $round ended before it was killed"
		}
		sleep 0.2
	done
	# A moment that no two runs share.
	sleep "$((RANDOM % 6)).$((RANDOM % 10))"
	kill_vm $pid
	rm share/checked
	echo "round $round: killed with $(promised) bytes of promises"
done
vm -- bash /share/check
