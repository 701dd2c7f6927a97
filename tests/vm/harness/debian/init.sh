#!/bin/busybox sh
# Mounts Debian's root and hands over to its systemd. What a story brings along goes to /run, so
# that the root stays as its packages made it.
b() { /bin/busybox "$@"; }
b mount -t proc proc /proc
b mount -t sysfs sysfs /sys
b mount -t devtmpfs devtmpfs /dev
[ ! -e /virtio_blk.ko ] || b insmod /virtio_blk.ko
root=
while [ -z "$root" ]; do
	for disk in /sys/block/vd*; do
		[ "$(b cat $disk/serial 2>/dev/null)" != disk0 ] || root=/dev/${disk##*/}
	done
done
b mount -t ext4 -o rw,relatime "$root" /root || exec /bin/busybox reboot -f
b mount -t tmpfs -o mode=755 tmpfs /root/run
b cp -a /story/. /root/run/
b umount /proc
b umount /sys
b mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /lib/systemd/systemd
