#!/usr/bin/env bash
# Lays out the files of the package: stage.sh PROGRAMS ROOT deb|rpm
#
# PROGRAMS is a folder with tidemark and tidemarkd; ROOT is made anew. What differs between
# distributions is where udev's rules stand in their order, and where zsh looks for completions.
set -euo pipefail
programs=$1 root=$2 kind=$3
here=$(cd "$(dirname "$0")" && pwd)
case $kind in
deb) rules=56-tidemark.rules zsh=usr/share/zsh/vendor-completions ;;
rpm) rules=12-tidemark.rules zsh=usr/share/zsh/site-functions ;;
*)
	echo "stage.sh: the kind is deb or rpm, not $kind" >&2
	exit 2
	;;
esac

rm -rf "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }

for program in sbin/tidemarkd bin/tidemark; do
	put 755 "$programs/${program#*/}" "usr/$program"
	strip --remove-section=.comment --remove-section=.note "$root/usr/$program"
done
tidemark=$root/usr/bin/tidemark

for unit in "$here"/systemd/*.{service,socket,target,timer}; do
	put 644 "$unit" "usr/lib/systemd/system/${unit##*/}"
done
put 755 "$here/systemd/tidemark-generator" usr/lib/systemd/system-generators/tidemark-generator
put 644 "$here/systemd/portable.conf" usr/lib/tidemark/portable.conf
put 755 "$here/lib/volumes" usr/lib/tidemark/volumes
put 644 "$here/udev/tidemark.rules" "usr/lib/udev/rules.d/$rules"
put 644 "$here/sysusers/tidemark.conf" usr/lib/sysusers.d/tidemark.conf
put 644 "$here/tmpfiles/tidemark.conf" usr/lib/tmpfiles.d/tidemark.conf
put 644 "$here/etc/tidemark.toml" etc/tidemark/tidemark.toml
put 644 "$here/grafana/tidemark.json" usr/share/tidemark/grafana/tidemark.json
put 644 "$here/prometheus/tidemark.rules.yml" usr/share/tidemark/prometheus/tidemark.rules.yml
put 644 "$here/needrestart/tidemark.conf" etc/needrestart/conf.d/tidemark.conf

for shell in bash=usr/share/bash-completion/completions/tidemark zsh=$zsh/_tidemark \
	fish=usr/share/fish/vendor_completions.d/tidemark.fish; do
	"$tidemark" completions "${shell%%=*}" | install -D -m 644 /dev/stdin "$root/${shell#*=}"
done

man=$root/usr/share/man
mkdir -p "$man/man1" "$man/man5" "$man/man8"
"$tidemark" manual "$man/man1"
for page in "$here"/man/*.[58]; do
	put 644 "$page" "usr/share/man/man${page##*.}/${page##*/}"
done
echo '.so man8/tidemark-volume@.service.8' >"$man/man8/tidemark-rescue@.service.8"
echo '.so man8/tidemarkd.8' >"$man/man8/tidemarkd.service.8"
find "$man" -type f -exec chmod 644 {} + -exec gzip -9n {} +

if [ "$kind" = deb ]; then
	put 644 "$here/lintian/tidemark" usr/share/lintian/overrides/tidemark
fi
documents=$root/usr/share/doc/tidemark
gzip -9nc "$here/../CHANGELOG.md" | install -D -m 644 /dev/stdin "$documents/changelog.gz"
put 644 "$here/../README.md" usr/share/doc/tidemark/README.md
put 644 "$here/../docs/metrics.md" usr/share/doc/tidemark/docs/metrics.md
