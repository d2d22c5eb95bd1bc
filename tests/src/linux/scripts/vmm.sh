# Linux guests, which freehold-vmm runs on whatever offers /dev/kvm.

# Runs a guest that does $1 (see guest.sh), with further arguments; its console is /tmp/console, what the VMM itself says
# /tmp/vmm. Its exit status is in $vmm_status.
guest() {
    words="console=ttyS0 loglevel=4 panic=-1 work=$1"
    shift
    vmm_status=0
    timeout 120 /freehold-vmm --kernel ${GUEST_KERNEL:-/guest/kernel} --initrd /guest/initramfs --cmdline "$words" \
        --memory ${GUEST_MEMORY:-128M} --report "$@" >/tmp/console 2>/tmp/vmm </dev/null || vmm_status=$?
    tr -d '\r' </tmp/console
    cat /tmp/vmm
}

# The guest of `guest` did all it was asked to and powered off.
succeeded() {
    same "the VMM's exit status" $vmm_status 0
    tr -d '\r' </tmp/console | grep -qx 'freehold-guest exit 0' || fail "the guest did not end well"
}

# `counted NAME KEY`: what the VMM's report says.
counted() {
    sed -n "s/^freehold-vmm: $1 .*\b$2=\([0-9]*\).*/\1/p" /tmp/vmm
}

disks() {
    dd if=/dev/zero of=/tmp/disk bs=1M count=4 2>/dev/null
    dd if=/dev/zero of=/tmp/readonly bs=1M count=1 2>/dev/null
    printf 'as it was' | dd of=/tmp/readonly conv=notrunc 2>/dev/null
}

# `whole CPUS ARGUMENTS…`: a guest with all devices, and everything that is done is counted at both ends.
whole() {
    cpus=$1
    shift
    disks
    rm -f /tmp/hvc
    mkfifo /tmp/typed
    # Not before it says something: Linux' driver throws away what comes while it sets itself up.
    (
        until grep -q hello /tmp/hvc 2>/dev/null; do usleep 100000; done
        echo "typed for the guest"
        exec sleep 1000
    ) >/tmp/typed &
    typist=$!
    words="console=ttyS0 loglevel=4 panic=-1 work=cpus:$cpus,disk,readonly,net,console,balloon:32"
    vmm_status=0
    timeout 120 /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --memory 160M --report --cpus $cpus \
        --cmdline "$words${WORK:+,$WORK}" --disk /tmp/disk --disk /tmp/readonly,ro --net responder --console /tmp/hvc \
        --stdin console --balloon 32M "$@" >/tmp/console 2>/tmp/vmm </tmp/typed || vmm_status=$?
    kill $typist
    rm /tmp/typed
    tr -d '\r' </tmp/console
    cat /tmp/vmm
    succeeded
    sum=$(tr -d '\r' </tmp/console | sed -n 's/^guest disk //p')
    same "what the disk holds" "$(dd if=/tmp/disk bs=64k count=16 2>/dev/null | md5sum)" "$sum"
    same "the first words of the disk that must stay" "$(head -c 9 /tmp/readonly)" "as it was"
    grep -q "hello from the console" /tmp/hvc || fail "the console said: $(cat /tmp/hvc)"
    [ "$(counted disk writes | head -n 1)" -ge 16 ] || fail "too few writes"
    [ "$(counted disk flushes | head -n 1)" -ge 1 ] || fail "no flush"
    # Six pings and the questions for addresses; each but those for nobody's is answered.
    [ "$(counted net sent)" -ge 8 ] || fail "too few frames sent"
    [ "$(counted net received)" -ge 7 ] || fail "too few frames received"
    same "failures of the card" "$(counted net failures)" 0
    same "what the console heard" "$(counted console received)" 20
    same "pages in the balloon" "$(counted balloon given)" 8192
    same "failures of the balloon" "$(counted balloon failures)" 0
    same "accesses to private memory" "$(counted memory refused)" 0
}

case_a_guest_uses_all_devices() {
    whole 1
}

case_a_guest_with_two_cpus_uses_all_devices() {
    whole 2
}

case_a_guest_bounces_all_data() {
    WORK=pool whole 2 --bounce 8M
}

case_debian_runs_as_a_guest() {
    GUEST_KERNEL=/guest/debian GUEST_MEMORY=256M guest cpus:2 --cpus 2
    succeeded
}

case_a_guest_that_resets_or_panics_is_told_from_one_that_powers_off() {
    guest reset
    same "the exit status of a reset" $vmm_status 3
    # Without a first program it panics.
    guest "cpus:1 rdinit=/nowhere"
    same "the exit status of a panic" $vmm_status 3
}

# `refused STATUS WORDS ARGUMENTS…`: the VMM does not begin, says why, and leaves nothing behind.
refused() {
    wanted=$1
    words=$2
    shift 2
    status=0
    /freehold-vmm "$@" >/tmp/out 2>&1 </dev/null || status=$?
    cat /tmp/out
    same "the exit status of $*" $status $wanted
    grep -q "$words" /tmp/out || fail "it did not say: $words"
}

case_what_cannot_be_is_an_error() {
    refused 2 'Usage' --no-such-argument
    refused 1 'cannot open /nowhere' --kernel /nowhere
    refused 1 'cannot be booted' --kernel /guest/initramfs
    refused 1 'cannot be booted' --kernel /dev/null
    refused 1 'cannot open /nowhere' --kernel /guest/kernel --initrd /nowhere
    refused 1 'too little' --kernel /guest/kernel --memory 2M
    refused 1 'units of 2 MiB' --kernel /guest/kernel --memory 65M
    refused 1 'cannot open the disk' --kernel /guest/kernel --disk /nowhere
    refused 1 'cannot use the interface\|cannot open /dev/net/tun' --kernel /guest/kernel --net tap=/
    refused 1 'cannot open /nowhere' --kernel /guest/kernel --kvm /nowhere
    refused 1 'KVM\|virtual machine' --kernel /guest/kernel --kvm /dev/null
    # This host has no protected guests, or has and then there is a kernel missing.
    refused 1 'protected\|cannot' --protected --kernel /guest/kernel --initrd /nowhere
}

case_a_vmm_that_is_killed_leaves_nothing_behind() {
    before=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
    for seconds in 0 1 3; do
        /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --cpus 2 >/dev/null 2>&1 </dev/null &
        vmm=$!
        sleep $seconds
        kill -9 $vmm
        wait $vmm || true
    done
    for try in $(seq 50); do
        after=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
        [ $((before - after)) -gt 8192 ] || return 0
        usleep 100000
    done
    fail "of $before KiB there are $after left"
}
