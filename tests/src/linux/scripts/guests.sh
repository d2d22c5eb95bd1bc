# How guests are run by freehold-vmm.

# Seconds that a guest may take where others keep the machine busy.
patience=300

# Runs a guest that does $1 (see guest.sh), with further arguments; its console is /tmp/console, what the VMM itself says
# /tmp/vmm. Its exit status is in $vmm_status.
guest() {
    words="console=ttyS0 loglevel=4 panic=-1 work=$1"
    shift
    vmm_status=0
    timeout $patience /freehold-vmm --kernel ${GUEST_KERNEL:-/guest/kernel} --initrd /guest/initramfs \
        --cmdline "$words" --memory ${GUEST_MEMORY:-128M} --report "$@" >/tmp/console 2>/tmp/vmm </dev/null ||
        vmm_status=$?
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
    timeout $patience /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --memory 160M --report \
        --cpus $cpus --cmdline "$words${WORK:+,$WORK}" --disk /tmp/disk --disk /tmp/readonly,ro --net responder \
        --console /tmp/hvc --stdin console --balloon 32M "$@" >/tmp/console 2>/tmp/vmm </tmp/typed || vmm_status=$?
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
