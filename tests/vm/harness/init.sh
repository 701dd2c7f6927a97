#!/bin/busybox sh
# The guest's first process. Sets up what a booted system has, runs /tidemark/run, and tells how
# it ended on the second serial line, which holds nothing of the kernel's.
export PATH=/tidemark/with:/usr/bin HOME=/root TMPDIR=/tmp LC_ALL=C
export TIDEMARK_GUEST=1 TIDEMARK_PROGRAMS=/usr/bin RUST_BACKTRACE=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock/lvm /results /root
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1

ip link set lo up
hostname guest
# Control nodes that devtmpfs makes only with their module; the rest is loaded when asked for.
modprobe -a virtio_blk loop dm_mod fuse ublk_drv
[ -e /dev/mapper/control ] || dmsetup mknodes
if [ -x /tidemark/udev ]; then . /tidemark/udev; fi

echo "@@tidemark ready"
cd /root
sh /tidemark/run
status=$?
sync
results=
for disk in /sys/block/vd*; do
	[ "$(cat $disk/serial)" = results ] && results=/dev/${disk##*/}
done
if [ -n "$results" ] && [ -n "$(ls -A /results)" ]; then
	tar -C /results -cf $results . && sync || echo "the results do not fit on $results"
fi
echo "@@tidemark exit $status"
# QEMU must have the line before it goes; -no-reboot ends it here.
sleep 0.2
reboot -f
