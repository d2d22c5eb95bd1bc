
# The host's part of the story of a protected guest.
kvm=/payload-kvm
debug=/sys/kernel/debug/freehold

# A figure of the module's: `figure NAME`.
figure() {
    awk -v name="$1" '$1 == name { print $2 }' $debug/statistics
}

# A figure of EL2's: `el2_figure NAME`.
el2_figure() {
    $probe call statistics "$1" | field value
}

# A figure of the one VM's: `vm_figure NAME`.
vm_figure() {
    awk -v name="$1" 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == name) at = n } NR == 2 { print $at }' $debug/vms
}

# The machine's frames, as EL2 counts them.
el2_accounts() {
    echo "FramesHost=$(el2_figure FramesHost) FramesHyp=$(el2_figure FramesHyp) PoolTotal=$(el2_figure PoolTotal)"
}

# What is in the module's books.
accounts() {
    for name in vms frames_guest frames_el2 frames_run el2_pages_given; do
        printf '%s=%s ' $name $(figure $name)
    done
    echo
}

load() {
    mount -t debugfs debugfs /sys/kernel/debug
    el2_accounts >/tmp/before
    insmod /freehold.ko && stat -c 'kvm=%F' /dev/kvm && accounts
}

# Starts the guest, in the background. What is typed waits until somebody says that it may go.
start() {
    dd if=/dev/zero of=/tmp/disk bs=1M count=4 2>/dev/null
    mkfifo /tmp/typed
    (
        exec 3>/tmp/typed
        until [ -e /tmp/go ]; do usleep 100000; done
        echo "you may go" >&3
        sleep 100
    ) >/dev/null 2>&1 &
    (
        /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --memory 128M --cpus 2 --protected --bounce 8M \
            --cmdline "console=ttyS0 loglevel=4 panic=-1" --disk /tmp/disk --console /tmp/hvc --stdin console \
            --balloon 32M --report >/tmp/console 2>/tmp/report </tmp/typed &
        echo $! >/tmp/vmm
        wait $!
        # Nobody sees the file before its word is in it.
        echo $? >/tmp/ending
        mv /tmp/ending /tmp/status
    ) >/dev/null 2>&1 &
    for try in $(seq 100); do
        if [ "$(figure vms)" = 1 ] && [ "$(vm_figure vcpus)" = 2 ]; then
            echo "vm=$(vm_figure vm) kind=$(vm_figure kind) vcpus=$(vm_figure vcpus)"
            return
        fi
        usleep 100000
    done
    cat /tmp/report
}

# Waits for the guest to say $1, and prints the line. The guest's terminal ends a line with CR and LF: while there is no CR,
# the rest is still to come.
hear() {
    end=$(printf '\r')
    over=
    for try in $(seq 600); do
        # Asked first: what it said last is there then.
        ! [ -e /tmp/status ] || over=yes
        if grep "^guest $1.*$end$" /tmp/console >/tmp/heard; then
            tr -d '\r' </tmp/heard
            return
        fi
        [ -z "$over" ] || break
        usleep 100000
    done
    tail -n 20 /tmp/console
    cat /tmp/report
    return 1
}

# Sees that the VM lends at least its pool.
lent() {
    echo "lent=$(vm_figure shared), of which 2048 are the pool"
    [ $(vm_figure shared) -ge 2048 ]
}

# Sees that the guest has called EL2 once at least for each page that it lends or has given up.
guest_calls() {
    calls=$(count GuestCalls)
    echo "calls=$calls for 2048 pages and 8192"
    [ $calls -ge $((2048 + 8192)) ]
}

# Compares the host's file with what the guest says that it wrote.
disk() {
    sum=$(dd if=/tmp/disk bs=64k count=16 2>/dev/null | md5sum | cut -c 1-32)
    echo "disk=$sum"
    [ "$(hear disk)" = "guest disk=$sum" ]
}

# Does something while the VMM stands still, and so its guest: once each of its threads has stopped, none is in a call.
still() {
    vmm=$(cat /tmp/vmm)
    kill -STOP $vmm
    for try in $(seq 100); do
        # The state is the first word after the name, which is in brackets.
        sed 's/.*) //' /proc/$vmm/task/*/stat | grep -qv '^T' || break
        usleep 100000
    done
    "$@"
    status=$?
    kill -CONT $vmm
    return $status
}

# The first frame of the longest run that neither the host nor Freehold itself has. All of those frames must be the guest's:
# as many as are private to it, when EL2 has been given none.
pick() {
    set -- $(freehold)
    start=$(($1))
    end=$(($1 + $2 * 4096))
    most=0
    all=0
    $probe map --frames >/tmp/map
    while read what base number state; do
        [ "$state" = NotYours ] || continue
        [ $((base)) -lt $start ] || [ $((base)) -ge $end ] || continue
        [ $what = frames ] || number=$((number * 512))
        all=$((all + number))
        if [ $number -gt $most ]; then
            most=$number
            echo $base >/tmp/frame
        fi
    done </tmp/map
    echo "$(cat /tmp/frame), of $all frames; private=$(vm_figure private)"
    [ $all = $(vm_figure private) ] && [ $(figure el2_pages_given) = 0 ]
}

# The word that fills the pages of whoever says it.
word_of() {
    echo "$1" | md5sum | cut -c 1-15
}

# How many pages that are full of a word are in the host's memory.
scan() {
    $kvm scan $(word_of "$1") >/tmp/scan
    sed -n 's/^kvm scan \([0-9]*\) \([0-9]*\)$/found=\1 of \2 pages/p' /tmp/scan
}

# Looks for a secret of the host's own: whoever finds none would find none of the guest's.
scan_own() {
    yes "$(word_of "the host's own")" | dd of=/tmp/own bs=1M count=1 iflag=fullblock 2>/dev/null
    scan "the host's own" >/tmp/own-scan
    rm /tmp/own
    cat /tmp/own-scan
    [ $(field found </tmp/own-scan) -ge 256 ]
}

# Has somebody who has taken the guest's memory from the VMM read it: `spy WAY`. No more may be read than is lent, and
# the secret is not in that.
spy() {
    $kvm spy $1 $(cat /tmp/vmm) $(word_of "a guest's secret") | tee /tmp/spied
    [ "$(field secret </tmp/spied)" = 0 ] && [ $(field lent </tmp/spied) -le $(vm_figure shared) ] &&
        [ $(field refused </tmp/spied) -gt $(field lent </tmp/spied) ]
}

go() {
    touch /tmp/go
    hear secret=intact
}

ended() {
    for try in $(seq 200); do
        [ ! -e /tmp/status ] || break
        usleep 100000
    done
    echo "status=$(cat /tmp/status) $(tr -d '\r' </tmp/console | grep -x 'freehold-guest exit .*')"
}

# What the VMM says of the devices.
report() {
    sed -n 's/^freehold-vmm: \(disk\|balloon\)/\1/p' /tmp/report | sort | tr '\n' ' '
    echo
}

unload() {
    rmmod freehold
    dmesg | grep 'freehold: all memory is free again' || echo "memory is missing"
    el2_accounts >/tmp/after
    if cmp /tmp/before /tmp/after; then
        echo "$(cat /tmp/after) as-before"
    else
        cat /tmp/before /tmp/after
    fi
}

# Asks the runner to look into the machine, and waits until it has: then it presses the power button. That is pin 3 of a
# PL061 (Arm DDI 0190), whose raw status is the upper half of what is read, and whose clear register of what is written.
show() {
    $probe el1 write 0x9030418 0x800000000 --map device --expect written >/dev/null
    tail -n +2 $debug/vms | awk '{ print "vm", $1, "private", $3, "lent", $4 }'
    echo "story look" >/dev/console
    for try in $(seq 300); do
        [ $(($($probe el1 read 0x9030410 --map device | field value) >> 35 & 1)) = 0 ] || return 0
        usleep 100000
    done
    return 1
}

