systemd-sysusers tidemark.conf || :
systemd-tmpfiles --create tidemark.conf || :
if [ "$1" -eq 1 ]; then
	systemctl --no-reload preset tidemarkd.socket tidemarkd.service >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	udevadm control --reload || :
	if [ "$1" -gt 1 ]; then
		# Volumes have servers of their own, which this does not touch.
		systemctl try-restart tidemarkd.service || :
	fi
fi
if [ "$1" -gt 1 ]; then
	/usr/lib/tidemark/volumes upgraded || :
fi
