# What scripts of stories with Tidemark say, beside the harness's own words.

install_tidemark() {
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
		/run/story/with/tidemark.deb
	eventually "the daemon answers" tidemark volume list
}

# volume FIELD: of the volume data, as jq says it.
volume() {
	tidemark --json volume list | jq -er ".[] | select(.name == \"data\") | $1"
}

# What `volume` finds becomes what is wanted.
await_volume() {
	until [ "$(volume "$1" 2>/dev/null)" = "$2" ]; do
		sleep 0.5
	done
}

attach_data() {
	tidemark volume attach data /dev/vg/data --area lv:data-area --area-size 128M
	is "the volume's state" "$(volume .state)" ATTACHED
}

# The mounted device is vg-data, and what lies under it is ublk's.
is_over_ublk() {
	is "what is mounted" "$(findmnt --noheadings --output SOURCE /srv/data)" /dev/mapper/vg-data
	dmsetup deps -o devname vg-data | grep -q '(ublkb[0-9]*)' ||
		fail "vg-data lies over $(dmsetup deps -o devname vg-data)"
}

is_without_us() {
	mountpoint -q /srv/data || fail "/srv/data is not mounted"
	is "what is mounted" "$(findmnt --noheadings --output SOURCE /srv/data)" /dev/mapper/vg-data
	! dmsetup deps -o devname vg-data | grep -q ublk || fail "vg-data lies over ublk"
	cat /srv/data/kept >/dev/null
}

# back_up [OPTION]...: gives the recovery point.
back_up() {
	tidemark --json --no-progress backup data --to vault "$@" | jq -e '.. | .points? // empty | .[0]'
}

# The last backup, mounted from its image, has the files that the volume has; nothing may write.
assert_backed_up() {
	rm -f /var/tmp/image
	tidemark --no-progress restore vault latest --to /var/tmp/image --create
	mkdir -p /mnt/image
	mount -o loop,ro,noload /var/tmp/image /mnt/image
	diff -r /srv/data /mnt/image
	umount /mnt/image
	e2fsck -fn /var/tmp/image
	rm /var/tmp/image
}

# is_small POINT: an incremental one that read at most so many MiB.
is_small() {
	is "why it was a full one" "$(jq -r .full_reason <<<"$1")" ""
	local read
	read=$(jq .work.read_bytes <<<"$1")
	[ "$read" -le $(($2 << 20)) ] || fail "it read $read bytes"
	say "it read $read bytes"
}

# One volume with files in it, tracked, and backed up in full.
protect_data() {
	make_data_volume
	dd if=/dev/urandom of=/srv/data/big bs=1M count=48 status=none
	echo kept >/srv/data/kept
	install_tidemark
	attach_data
	is_over_ublk
	tidemark repo init vault /var/backups/vault
	back_up >/dev/null
	volume .lineage >/root/lineage
}

is_same_lineage() {
	is "the lineage" "$(volume .lineage)" "$(cat /root/lineage)"
}
