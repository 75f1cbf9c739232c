# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The VM is killed at a random moment under load, again and again: at every boot fsck.rdax -n is
# content, the volume is mounted, and all that was promised durable before is there. Of enough
# kills, some have to fall into transactions, so that recovery is seen to replay them.
# tests/torture/run gives it TOP, KERNEL, BUDGET in seconds, SEED
# and SMOKE.
# shellcheck source=tests/boot/lib.sh
. "$TOP/tests/boot/lib.sh"

# Kills after which it is strange if none fell into a transaction.
ENOUGH=8
RANDOM=${SEED:?}

mkdir -p share
cat >share/round <<'END'
set -e
if [ -e /share/ledger ]; then
	fsck.rdax -n /dev/pmem0
	mount -t rdax /dev/pmem0 /mnt/pmem
	dmesg | sed -n 's/.*recovered: \([0-9]*\) transactions completed, \([0-9]*\) cancelled.*/\1 \2/p' \
		>>/share/replayed
	rdax-stress --dir /mnt/pmem --ledger /share/ledger --verify
	umount /mnt/pmem
	fsck.rdax -n /dev/pmem0
	rm -r /share/ledger
else
	mkfs.rdax -q /dev/pmem0
fi
[ "$1" != last ] || exit 0
mount -t rdax /dev/pmem0 /mnt/pmem
touch /share/checked
# Beside what is verified, as many transactions as there can be.
rdax-torture-guest load &
exec rdax-stress --dir /mnt/pmem --seconds 600 --only mixed --seed "$1" --ledger /share/ledger
END

# Bytes of promises so far.
promised() { echo "$(($(du -sb share/ledger 2>/dev/null | cut -f1) + 0))"; }

figures() {
	local completed cancelled
	read -r completed cancelled < <(awk '{ a += $1; b += $2 } END { print a + 0, b + 0 }' \
		share/replayed)
	echo "kills: $kills in $SECONDS s, after $(wc -l <share/replayed) of them the journal was" \
		"replayed: $completed transactions completed, $cancelled cancelled; all promises kept"
}

kills=0 size=(--pmem 128M)
: >share/replayed
while [ $kills = 0 ] || { [ "$SMOKE" = no ] && [ $SECONDS -lt "$BUDGET" ]; }; do
	seed=$((SEED * 1000 + kills))
	vm "${size[@]}" -- bash /share/round $seed >"log$kills" 2>&1 &
	pid=$!
	size=()
	until [ -e share/checked ] && [ "$(promised)" -gt 20000 ]; do
		kill -0 $pid 2>/dev/null || {
			cat "log$kills"
			mkdir -p "$TOP/build/torture/kills"
			cp -r image share "log$kills" "$TOP/build/torture/kills/"
			fail "after kill $kills: see build/torture/kills (image, share/round)"
		}
		sleep 0.2
	done
	sleep "$((RANDOM % 4)).$((RANDOM % 100))"
	kill_vm $pid
	rm share/checked
	rm -f "log$kills"
	kills=$((kills + 1))
	figures
done
vm -- bash /share/round last >log 2>&1 || {
	cat log
	fail "after the last kill"
}
figures
[ $kills -lt $ENOUGH ] || [ -s share/replayed ] ||
	fail "no kill fell into a transaction: nothing was replayed"
