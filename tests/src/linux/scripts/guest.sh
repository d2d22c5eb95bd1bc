# The work of a Linux guest: what the words of work=… on its command line say, each a function.

set -e

fail() {
    echo "guest failed: $*"
    exit 1
}

# Both CPUs, or all there are, do something.
work_cpus() {
    [ "$(nproc)" = "$1" ] || fail "$(nproc) CPUs, not $1"
    for cpu in $(seq 0 $(($1 - 1))); do
        [ "$(taskset -c $cpu sh -c 'n=0; while [ $n -lt 1000 ]; do n=$((n + 1)); done; echo $n')" = 1000 ] ||
            fail "CPU $cpu does not count"
    done
}

# 1 MiB goes to the disk and comes back, and stays there: what the host finds is its sum.
work_disk() {
    dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null
    dd if=/tmp/data of=/dev/vda bs=64k conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda of=/tmp/back bs=64k count=16 2>/dev/null
    cmp /tmp/data /tmp/back || fail "the disk reads what was not written"
    echo "guest disk $(md5sum </tmp/data)"
}

# The second disk must not be written.
work_readonly() {
    [ "$(cat /sys/block/vdb/ro)" = 1 ] || fail "the second disk can be written"
    [ "$(dd if=/dev/vdb bs=512 count=1 2>/dev/null)" = "as it was" ] || fail "the second disk does not read"
}

work_net() {
    ip link set eth0 up
    ip addr add 10.0.0.2/24 dev eth0
    ping -c 3 -W 50 10.0.0.1 || fail "no answer"
    ping -c 3 -W 50 -s 1400 10.0.0.1 || fail "no answer to long packets"
    ! ping -c 1 -W 1 10.0.0.9 || fail "an answer from nobody"
}

# The balloon asks for so many MiB and gets them.
work_balloon() {
    pages=$(($1 * 256))
    for try in $(seq 1000); do
        inflated=$(awk '$1 == "balloon_inflate" { print $2 }' /proc/vmstat)
        [ "$inflated" -lt $pages ] || break
        usleep 100000
    done
    [ "$inflated" = $pages ] || fail "the balloon has $inflated pages, not $pages"
    echo "guest balloon $inflated"
}

# The console says what it is told, and hears what is typed.
work_console() {
    # Opened once: what is typed is lost when a terminal is closed.
    exec 3<>/dev/hvc0
    echo "hello from the console" >&3
    read -t 100 -r line <&3 || fail "nothing is typed"
    [ "$line" = "typed for the guest" ] || fail "the console heard: $line"
}

# Data of devices goes through a pool that is the host's too.
work_pool() {
    dmesg | grep "created restricted DMA pool" || fail "there is no pool"
}

# Memory full of what nobody else is to know; whoever ends the guest may look for it.
work_secret() {
    word=$(echo "a guest's secret" | md5sum | cut -c 1-15)
    yes "$word" | dd of=/tmp/secret bs=1M count=$1 iflag=fullblock 2>/dev/null
    echo "guest keeps a secret"
    sleep 1000
}

# Works for so many seconds, and says four times in each what time it has.
work_clock() {
    (while [ ! -e /tmp/over ]; do seq 2000 | md5sum >/tmp/sum; done) &
    (while [ ! -e /tmp/over ]; do usleep 1000; done) &
    for n in $(seq $((4 * $1))); do
        echo "guest clock $(cut -d ' ' -f 1 /proc/uptime)"
        usleep 250000
    done
    echo "guest clock $(cut -d ' ' -f 1 /proc/uptime)"
    touch /tmp/over
    wait
}

# Goes on when something is typed at its serial port.
work_told() {
    echo "guest waits"
    read -r line </dev/console || fail "nothing is typed"
}

work_reset() {
    reboot -f
}

work=
for word in $(cat /proc/cmdline); do
    case $word in
    work=*) work=$(echo "${word#work=}" | tr , ' ') ;;
    esac
done
echo "guest begins"
for part in $work; do
    echo "guest does $part"
    # disk, or balloon:32
    work_$(echo $part | tr : ' ')
done
