# The module, and KVM's interface as user space finds it. The cases of the interface themselves are in the program
# /payload-kvm.

# In each load there are VMs, as many as there can be, and guests that run: one of each kind that turns itself off, and
# a protected one that shares a page, takes it back, and is ended with what it has.
case_loads_and_unloads_twenty_times_and_leaves_nothing() {
    before="$(el2_figure FramesHost) $(el2_figure FramesHyp) $(el2_figure PoolTotal)"
    for n in $(seq 20); do
        load
        $kvm run system_has_a_limit_of_vms_and_lives
        $kvm run run_reports_and_turns_itself_off
        $kvm run run_shares_memory_that_the_host_then_sees
        [ "$(figure el2_pages_given)" -gt 0 ] || fail "EL2 was given nothing"
        same "the number of VMs" "$(figure vms)" 0
        same "frames of guests" "$(figure frames_guest)" 0
        unload >/dev/null
        free_pages | tee -a /tmp/free
    done
    same "EL2's and the host's frames" \
        "$(el2_figure FramesHost) $(el2_figure FramesHyp) $(el2_figure PoolTotal)" "$before"
    # The module counts what it has itself, exactly. What else the kernel keeps comes and goes, so that what is in the
    # middle of each ten is compared.
    lost=$(($(head -n 10 /tmp/free | middle) - $(tail -n 10 /tmp/free | middle)))
    echo "ten more loads, $lost pages less free memory"
    rm /tmp/free
    [ $lost -lt 128 ] || fail "$lost pages of memory are gone"
}

# The fifth of ten numbers.
middle() {
    sort -n | sed -n 5p
}

# `held WHAT`: somebody has that and nothing else of the module's, until descriptor 3 is closed, and it is not unloaded.
held() {
    mkfifo /tmp/to /tmp/from
    $kvm hold $1 </tmp/to >/tmp/from &
    holder=$!
    exec 3>/tmp/to
    read said </tmp/from
    same "what the holder says" "$said" "kvm hold $1"
    if rmmod freehold; then
        fail "it was unloaded while there is a $1"
    fi
}

let_go() {
    exec 3>&-
    wait $holder
    rm /tmp/to /tmp/from
}

case_is_not_unloaded_while_it_is_used() {
    load
    held vm
    same "the number of VMs" "$(figure vms)" 1
    cat $debug/vms
    same "the lines of VMs" "$(wc -l <$debug/vms)" 2
    let_go
    same "the number of VMs" "$(figure vms)" 0
    # What was a protected guest's, which is gone.
    held file
    same "the number of VMs" "$(figure vms)" 0
    same "frames of guests" "$(figure frames_guest)" 3
    let_go
    same "frames of guests" "$(figure frames_guest)" 0
    unload
}

case_answers_as_kvm_does() {
    load
    same "the device" "$(stat -c '%a %t,%T' /dev/kvm)" "600 a,e8"
    kvm_cases system 8
    cat $debug/statistics
    unload
}

case_has_files_of_guest_memory() {
    load
    kvm_cases memfd 17
    unload
}

case_has_slots() {
    load
    kvm_cases slot 21
    unload
}

# Pages of the process's come and go, and are the host's all the time.
case_lends_guests_memory_of_their_process() {
    load
    kvm_cases own 23
    unload
}

# Swap space in memory. Of its modules some are compressed, and some built into the kernel.
swap_modules="zsmalloc lzo-rle lz4_compress lz4hc_compress zram"

swap_on() {
    for module in $swap_modules; do
        [ ! -e /$module.ko.xz ] || unxz -c /$module.ko.xz >/tmp/$module.ko
        [ ! -e /$module.ko ] || cp /$module.ko /tmp/$module.ko
        [ ! -e /tmp/$module.ko ] || insmod /tmp/$module.ko
    done
    echo 64M >/sys/block/zram0/disksize
    mkswap /dev/zram0
    swapon /dev/zram0
}

swap_off() {
    swapoff /dev/zram0
    for module in $swap_modules; do
        loaded="/tmp/$module.ko $loaded"
    done
    for module in $loaded; do
        [ ! -e $module ] || rmmod $(basename $module .ko)
    done
}

case_lends_guests_memory_that_is_swapped_out() {
    load
    swap_on
    kvm_cases swap 2
    swap_off
    unload
}

# The kernel tells of broken memory in words that otherwise are a complaint.
case_tells_of_memory_that_is_broken() {
    load
    kvm_cases poison 1
    dmesg -rc >/tmp/broken
    grep -q 'Memory failure: .* Recovered' /tmp/broken || fail "nothing was broken: $(cat /tmp/broken)"
    unload
}

case_has_vcpus() {
    load
    kvm_cases vcpu 8
    unload
}

case_tells_figures_of_descriptors() {
    load
    kvm_cases figures 2
    unload
}

# What there is not is refused, nobody is killed for it, and it comes back.
case_refuses_memory_that_there_is_not() {
    load
    killed="$(awk '$1 == "oom_kill" { print $2 }' /proc/vmstat)"
    kvm_cases exhaustion 4
    mount -t cgroup2 none /sys/fs/cgroup
    group=/sys/fs/cgroup/small
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir $group
    echo 48M >$group/memory.max
    # Where the program is not to be killed, its own pages and the kernel's notes of them wait, or go beyond the limit.
    cat >/tmp/in-group <<END
echo 0 >$group/cgroup.procs
echo -1000 >/proc/self/oom_score_adj
exec /payload-kvm "\$@"
END
    kvm="sh /tmp/in-group"
    kvm_cases group 3
    cat $group/memory.events
    same "what was killed" "$(awk '$1 == "oom_kill" { print $2 }' /proc/vmstat)" "$killed"
    [ "$(awk '$1 == "max" { print $2 }' $group/memory.events)" -gt 0 ] || fail "the group had enough"
    for try in $(seq 600); do
        if [ "$(cat $group/memory.current)" -lt 4194304 ]; then break; fi
        usleep 100000
    done
    [ "$(cat $group/memory.current)" -lt 4194304 ] || fail "the group still has $(cat $group/memory.current) bytes"
    rmdir $group
    umount /sys/fs/cgroup
    same "frames of guests" "$(figure frames_guest)" 0
    unload
}

case_has_devices() {
    load
    kvm_cases devices 17
    unload
}

case_has_guests_that_run() {
    load
    kvm_cases run 20
    unload
}

case_has_registers() {
    load
    kvm_cases registers 10
    unload
}

case_moves_guests_to_other_vms() {
    load
    kvm_cases moves 2
    unload
}

# All that a user space that means harm does at once; unloading then sees that no memory is missing.
case_withstands_a_hostile_user_space() {
    load
    kvm_cases hostile 5
    same "the number of VMs" "$(figure vms)" 0
    same "frames of guests" "$(figure frames_guest)" 0
    unload
}

# Whoever holds a protected VM's descriptors can neither read nor change what is the guest's.
case_keeps_a_protected_guest_from_those_who_hold_it() {
    load
    kvm_cases isolation 18
    unload
}

refused_page() {
    $probe call donate $PAGE 1 --expect status=Success
    $probe touch $PAGE --all refused
    $probe call reclaim $PAGE 1 --expect status=Success
}

# A read, a write and a fetch without an entry in the exception table are an oops each.
case_names_freehold_in_an_oops_that_it_caused() {
    load
    with_pages refused_page 0
    same "the number of oopses that are named" "$(dmesg | grep -c 'freehold: Freehold refused this')" 3
    unload
}
