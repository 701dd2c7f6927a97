# Zero packages are left after this: it is no upgrade.
if [ "$1" -eq 0 ]; then
	/usr/lib/tidemark/volumes removing || exit 1
	systemctl --no-reload disable tidemarkd.socket tidemarkd.service >/dev/null 2>&1 || :
	if [ -d /run/systemd/system ]; then
		systemctl stop 'tidemark-backup@*.timer' tidemarkd.socket tidemarkd.service || :
	fi
fi
