# Runs the story of this boot, and tells how it ended on the second serial line. A boot whose story
# was told well goes down as a host does; a failed one goes at once, for it has nothing to show.
stty -F /dev/ttyS1 raw
echo "@@tidemark ready"
systemd-analyze time | head -n 1
bash -Eeuo pipefail -c '. /run/story/words; . /run/story/boot'
status=$?
echo "@@tidemark exit $status"
journalctl --sync
if [ $status = 0 ]; then
	systemctl --no-block --job-mode=replace-irreversibly start reboot.target
else
	systemctl --force --force reboot
fi
