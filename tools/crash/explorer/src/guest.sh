# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the VM runs: says where the persistent memory is (the region's first
# physical byte, the device's, and its bytes), waits to be saved and resumed, and
# runs the workload that it is given then.
set -euo pipefail
for port in /sys/class/virtio-ports/*/name; do
	[ "$(<"$port")" != job ] || job=/dev/$(basename "$(dirname "$port")")
done
region=$(</sys/bus/nd/devices/region0/resource)
device=$(</sys/block/pmem0/device/resource)
sync
exec 3<>"$job"
printf '%s %s %s\n' "$region" "$device" $(($(</sys/block/pmem0/size) * 512)) >&3
read -r -a arguments <&3
exec "${arguments[@]}"
