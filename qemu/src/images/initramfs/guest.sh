#!/bin/busybox sh
# The first program of a Linux guest: runs /guest-script and says how it ended, as its last line.

/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

cd /root
sh /guest-script </dev/null
echo "freehold-guest exit $?"
sync
poweroff -f
