# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts share: messages, logged steps, and the cache under
# ${XDG_CACHE_HOME:-$HOME/.cache}/rdax. Sourced, never run.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=$(realpath -m "${XDG_CACHE_HOME:-$HOME/.cache}/rdax")
# shellcheck source=scripts/versions
. "$TOP/scripts/versions"

say() { printf '%s\n' "$*" >&2; }

die() {
	say "${0##*/}: $*"
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root (chroot and mount): run it with sudo"
}

# need_tools TOOL:PACKAGE...: every TOOL is there, or is installed by apt.
need_tools() {
	local pair missing=()
	for pair; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
	done
	[ ${#missing[@]} = 0 ] && return
	[ "$(id -u)" = 0 ] || die "missing tools: sudo apt-get install ${missing[*]}"
	step "install ${missing[*]} on this machine" apt_install "${missing[@]}"
}

apt_install() {
	apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# step LABEL COMMAND...: one line for the reader, the output to a log.
step() {
	local label=$1 start=$SECONDS log status=0
	shift
	mkdir -p "$CACHE/log"
	log=$CACHE/log/$(tr -cs 'a-zA-Z0-9.\n' - <<<"${0##*/} $label").log
	printf '  %-58s' "$label" >&2
	# A subshell with errexit of its own: inside `if` or `||` bash would
	# go on past failures.
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	if [ $status != 0 ]; then
		printf ' failed after %d s\n' $((SECONDS - start)) >&2
		tail -n 15 "$log" | sed 's/^/    /' >&2
		die "$label failed; the whole output: $log"
	fi
	printf ' %4d s\n' $((SECONDS - start)) >&2
}

# key FILE...: what an entry of the cache is named after.
key() { cat "$@" | sha256sum | cut -c1-12; }

# cached NAME BUILD: prints the directory NAME of the cache. If it is not there,
# the function BUILD makes it in a temporary directory, $1, which gets its name
# only when whole. A lock keeps two runs apart.
cached() {
	local name=$1 build=$2 dir=$CACHE/$1 tmp=$CACHE/tmp.$1 lock
	if [ ! -d "$dir" ]; then
		need_root "making $name"
		mkdir -p "$CACHE"
		exec {lock}>"$CACHE/lock.${name%%-*}"
		flock -n "$lock" || {
			say "  waiting for another run that makes ${name%%-*}"
			flock "$lock"
		}
		if [ ! -d "$dir" ]; then
			# What interrupted runs left.
			rm -rf --one-file-system "$CACHE/tmp.${name%%-*}-"*
			mkdir "$tmp"
			"$build" "$tmp"
			mv "$tmp" "$dir"
		fi
		exec {lock}>&-
	fi
	printf '%s\n' "$dir"
}
