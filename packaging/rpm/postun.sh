if [ "$1" -eq 0 ]; then
	rm -rf --one-file-system /run/tidemark /run/tidemark-*.outcome
	# What the agent wrote, by name: an area or a repository may lie beside it, and in /etc/tidemark the
	# password that opens one. rpm has no purge, so the catalog stays.
	rm -f /etc/tidemark/volumes/*.args
	rmdir --ignore-fail-on-non-empty /etc/tidemark/volumes /etc/tidemark 2>/dev/null || :
	# The tool that makes the package cannot have it own folders.
	for folder in /usr/share/tidemark /usr/share/doc/tidemark /usr/lib/tidemark; do
		[ ! -d $folder ] || find $folder -depth -type d -exec rmdir --ignore-fail-on-non-empty {} +
	done
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
