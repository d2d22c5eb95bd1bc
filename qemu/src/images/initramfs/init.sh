#!/bin/busybox sh
# The first program of a Linux host: runs /freehold-script and tells the runner how it ended.
# The runner believes the status only if it comes with the word from the kernel's command line.

/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
# A kernel without devtmpfs gets a plain directory that mdev fills.
if ! /bin/busybox mount -t devtmpfs dev /dev 2>/dev/null; then
    /bin/busybox mount -t tmpfs dev /dev
    /bin/busybox mdev -s
fi
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root

nonce=
for word in $(cat /proc/cmdline); do
    case $word in
    freehold.nonce=*) nonce=${word#*=} ;;
    esac
done

if [ -e /freehold-probe.ko ] && ! insmod /freehold-probe.ko; then
    echo "freehold-init: the probe's module does not load"
fi

cd /root
sh /freehold-script </dev/null
status=$?

# A script may have printed half a line.
echo
echo "freehold-init $nonce exit $status"
sync
poweroff -f
