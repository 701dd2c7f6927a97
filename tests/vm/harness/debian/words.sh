# What the scripts of stories say. Whatever fails ends the story.
trap 'echo "FAILED: line $LINENO: $BASH_COMMAND" >&2' ERR
shopt -s inherit_errexit

say() {
	echo "-- $*"
}

fail() {
	echo "FAILED: $*" >&2
	exit 1
}

# is WHAT FOUND EXPECTED
is() {
	[ "$2" = "$3" ] || fail "$1: '$2', where '$3' was expected"
}

# eventually WHAT COMMAND [ARGUMENT]...: a command that never comes to do well is out of the boot's time.
eventually() {
	local what=$1
	shift
	until "$@" >/dev/null 2>&1; do
		sleep 0.5
	done
	say "$what"
}

# came_before EARLIER LATER: units, by the moments at which they became active.
came_before() {
	local unit moments=()
	for unit; do
		moments+=("$(systemctl show --value --property ActiveEnterTimestampMonotonic "$unit")")
		[ "${moments[-1]}" != 0 ] || fail "$unit never became active"
	done
	[ "${moments[0]}" -lt "${moments[1]}" ] || fail "$1 became active after $2: ${moments[*]} us"
}

# An ext4 file system on LVM on the data disk, mounted by fstab at /srv/data.
make_data_volume() {
	pvcreate --quiet /dev/vdb
	vgcreate --quiet vg /dev/vdb
	lvcreate --quiet --yes --name data --size 256M vg
	mkfs.ext4 -q /dev/vg/data
	mkdir -p /srv/data
	echo '/dev/vg/data /srv/data ext4 defaults 0 2' >>/etc/fstab
	systemctl daemon-reload
	systemctl start srv-data.mount
}

# Numbers that only grow, each told when it is on the disk.
write_numbers() {
	local number=0
	while :; do
		number=$((number + 1))
		echo "$number" | dd of=/srv/data/number oflag=dsync status=none
		echo "written $number"
	done
}

# assert_number LEAST: what was told before a cut is there.
assert_number() {
	[ "$(cat /srv/data/number)" -ge "$1" ] || fail "$(cat /srv/data/number) is there, $1 was told"
}
