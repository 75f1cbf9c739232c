# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A Debian root from the mirror that this machine's apt is set up with, so that
# no host name need be written down. Sourced after lib.sh.

mirror() {
	local site
	# shellcheck disable=SC2016
	site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Component: main' \
		'Origin: Debian' 'Label: Debian' | head -n 1)
	if [ -z "$site" ]; then
		apt-get update >/dev/null
		# shellcheck disable=SC2016
		site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Component: main' |
			grep '/debian/\?$' | head -n 1 || :)
	fi
	[ -n "$site" ] || die "apt has no Debian mirror set up: add one to /etc/apt/sources.list"
	printf '%s\n' "$site"
}

# make_root DIR VARIANT PACKAGE...
make_root() {
	local dir=$1 variant=$2 site packages
	shift 2
	site=$(mirror)
	packages=$(IFS=,; printf '%s' "$*")
	mmdebstrap --mode=root --variant="$variant" --include="$packages" \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--aptopt='APT::Install-Recommends "false"' --skip=cleanup/apt/lists \
		"$DEBIAN_SUITE" "$dir" "deb $site $DEBIAN_SUITE main" \
		"deb $site $DEBIAN_SUITE-updates main" "deb $site $DEBIAN_SUITE-backports main"
}
