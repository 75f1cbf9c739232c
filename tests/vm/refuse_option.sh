# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# An unknown option, or value of one, is refused; the known ones are accepted and shown.
# volume: none
. "${0%/*}/lib.sh"

must mkfs.rdax -q -f "$PMEM1"
remember "$PMEM1"
for option in bogus bogus=1 errors=sometimes errors dax=perhaps; do
	mark_log
	mount_refused EINVAL -t rdax -o "$option" "$PMEM1" "$MNT"
	log_says "option '?${option%=*}"
done
unchanged "$PMEM1" refused

for option in dax dax=always dax=inode dax=never errors=continue errors=remount-ro errors=panic; do
	must mount -t rdax -o "$option" "$PMEM1" "$MNT"
	shown=$(grep " $MNT " /proc/mounts)
	case $option in
	dax=*) [[ $shown == *,"$option",* ]] || fail "no $option in /proc/mounts: $shown" ;;
	dax) [[ $shown == *,dax=always,* ]] || fail "no dax in /proc/mounts: $shown" ;;
	errors=*) [[ $shown == *"$option"* ]] || [ "$option" = errors=remount-ro ] ||
		fail "no $option in /proc/mounts: $shown" ;;
	esac
	must umount "$MNT"
done
