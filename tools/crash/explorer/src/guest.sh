# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the VM runs: says where the persistent memory is (the region's first
# physical byte, the device's, and its bytes), waits to be saved and resumed, and
# runs the command that it is given then. If it begins with peer=ext4 or peer=xfs
# and mounted=true, it makes that file system and mounts it.
set -euo pipefail
# shellcheck disable=SC2154
if [ -n "${peer:-}" ]; then
	modprobe "$peer"
fi
if [ "${mounted:-}" = true ]; then
	head -c $(($(</sys/block/pmem0/size) * 512)) /dev/zero | tr '\0' '\356' >/dev/pmem0
	case $peer in
	ext4) mkfs.ext4 -q -F -b 4096 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/pmem0 ;;
	# Smaller than it is meant for.
	xfs) mkfs.xfs -q -f -K --unsupported /dev/pmem0 ;;
	esac
	mount -t "$peer" -o dax=always /dev/pmem0 /mnt/pmem
fi
for port in /sys/class/virtio-ports/*/name; do
	[ "$(<"$port")" != job ] || job=/dev/$(basename "$(dirname "$port")")
done
region=$(</sys/bus/nd/devices/region0/resource)
device=$(</sys/block/pmem0/device/resource)
sync
exec 3<>"$job"
printf '%s %s %s\n' "$region" "$device" $(($(</sys/block/pmem0/size) * 512)) >&3
read -r command <&3
eval "$command"
