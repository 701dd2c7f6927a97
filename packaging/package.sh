#!/usr/bin/env bash
# Makes the packages of programs that are built: package.sh PROGRAMS OUT [VERSION]
#
# PROGRAMS is a folder with tidemark and tidemarkd, for example target/release. The .deb and the
# .rpm are put into OUT under names that tell no version. `make package` builds and calls this.
# TIDEMARK_PACKAGE_QUICK=1 compresses little, for tests.
set -euo pipefail
programs=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
version=${3:-$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
packaging/tools.sh
export PATH=$PWD/target/tools/bin:$PATH
fast=() little=()
if [ -n "${TIDEMARK_PACKAGE_QUICK-}" ]; then
	fast=(--fast) little=(--payload-compress gzip)
fi
work=target/package
mkdir -p "$out" "$work"
# One at a time: the places are fixed by agent/Cargo.toml.
exec 9>"$work/lock"
flock 9

packaging/stage.sh "$programs" "$work/deb" deb
cat >"$work/changelog.Debian" <<-END
	tidemark ($version-1) unstable; urgency=medium

	  * What changed for users is told in changelog.gz.

	 -- The Tidemark developers <tidemark@localhost>  $(date --utc --date="@$(git log -1 --format=%ct 2>/dev/null || date +%s)" -R)
END
cargo deb --quiet "${fast[@]}" --no-build --no-strip -p tidemark-agent --deb-version "$version-1" --output "$out/tidemark.deb" >/dev/null

packaging/stage.sh "$programs" "$work/rpm" rpm
{
	echo "version = \"$version\""
	echo "assets = ["
	(cd "$work/rpm" && find . -type f -printf '%P %m\n' | sort) | while read -r path mode; do
		extra=
		case $path in
		etc/*) extra=', config = "noreplace"' ;;
		usr/share/doc/* | usr/share/man/*) extra=', doc = true' ;;
		esac
		echo "	{ source = \"$work/rpm/$path\", dest = \"/$path\", mode = \"$mode\"$extra },"
	done
	echo "]"
} >"$work/rpm.toml"
cargo generate-rpm -p agent "${little[@]}" --metadata-overwrite "$work/rpm.toml" --output "$out/tidemark.rpm"
