# Linux guests, which freehold-vmm runs on whatever offers /dev/kvm.

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
    before=$(free_pages)
    for seconds in 0 1 3; do
        # One whose guest does not end by itself before that.
        /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --cpus 2 \
            --cmdline "console=ttyS0 loglevel=4 work=secret:8" >/dev/null 2>&1 </dev/null &
        vmm=$!
        sleep $seconds
        kill -9 $vmm
        wait $vmm || true
    done
    # The kernel frees some of it when it has time.
    for try in $(seq 600); do
        after=$(free_pages)
        [ $((before - after)) -gt 512 ] || return 0
        usleep 100000
    done
    fail "of $before free pages there are $after left"
}
