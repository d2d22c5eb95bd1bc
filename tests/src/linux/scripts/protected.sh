# Protected guests on Freehold. Each case begins with a module that is loaded and ends with one that has given everything
# back. CLOCK_SECONDS and KILLS say how long clocks are compared and how often a VMM is killed.

# What there is before the first guest. Called when the module is loaded.
begin() {
    load
    host_frames=$(el2_figure FramesHost)
}

# No guest is left, and nothing of any: EL2 has what it had, and so has the host.
end() {
    nothing_is_left
    unload
}

nothing_is_left() {
    for name in vms el2_pages_given frames_guest frames_el2 frames_run; do
        same "the figure $name" "$(figure $name)" 0
    done
    same "the host's frames" "$(el2_figure FramesHost)" $host_frames
}

# `vm_figure KIND COLUMN`: the sum over all VMs of that kind.
vm_figure() {
    awk -v kind="$1" -v column="$2" \
        'NR == 1 { for (n = 1; n <= NF; n++) if ($n == column) at = n } $2 == kind { sum += $at } END { print sum + 0 }' \
        $debug/vms
}

# `vms CONDITION`: how many VMs there are whose line meets it, a condition of awk's.
vms() {
    awk "NR > 1 && $1" $debug/vms | wc -l
}

# What EL2 has counted by the number $1, on all CPUs.
el2_counted() {
    sum=0
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        sum=$((sum + $($probe call counter $cpu $1 | sed 's/.*value=\([0-9]*\).*/\1/')))
    done
    echo $sum
}

# How many frames EL2 has scrubbed.
scrubbed() {
    el2_counted 11
}

# Debian's kernel knows nothing of its host: all of its memory is private, and its console works nevertheless.
debian_with() {
    begin
    GUEST_KERNEL=/guest/debian GUEST_MEMORY=256M guest cpus:$1 --cpus $1 --protected
    succeeded
    end
}

case_debian_is_protected() {
    debian_with 1
}

case_debian_with_two_cpus_is_protected() {
    debian_with 2
}

case_debian_with_four_cpus_is_protected() {
    debian_with 4
}

# The pool is lent, and what the balloon takes is given up. The host takes that back at once, so that what is seen of it is
# a call for each page, and that the VMM had all of them. EL2 refuses the calls for pages that the guest never touched: there
# is nothing to give up.
case_a_protected_guest_uses_all_devices() {
    begin
    calls=$(el2_counted 18)
    # It ends by itself: a process that reads a figure keeps the module.
    (while [ ! -e /tmp/seen ]; do vm_figure protected shared; usleep 200000; done) >/tmp/figures &
    watcher=$!
    WORK=pool whole 2 --protected --bounce 8M
    touch /tmp/seen
    wait $watcher
    rm /tmp/seen
    # The pool, and what the kernel sets aside for devices without one.
    lent=$(sort -n /tmp/figures | tail -n 1)
    [ $lent -ge 2048 ] || fail "the pool was not lent: $lent pages"
    calls=$(($(el2_counted 18) - calls))
    [ $calls -ge $((lent + 8192)) ] || fail "$calls calls, for $lent pages lent and 8192 given up"
    grep -q '^freehold-vmm: balloon given=8192 ' /tmp/vmm || fail "the VMM has not all pages that were given up"
    grep -q '^freehold-vmm: memory refused=0$' /tmp/vmm || fail "what was given up was not taken back"
    end
}

# `start FILE ARGUMENTS…`: a guest in the background. If there is a $typed, a pipe, what comes from there is typed for
# it.
start() {
    console=$1
    shift
    # Before the VMM opens it: nobody is to find in it what the guest before said.
    : >$console
    # A pipe that is open both ways waits for nobody to open it.
    /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs "$@" >$console 2>&1 <>${typed:-/dev/null} &
}

# Protected guests, one that is not protected and has a file of guest memory, and one that has memory of its VMM's own.
# Each waits until all are there.
case_guests_of_all_kinds_run_at_once() {
    begin
    words="console=ttyS0 loglevel=4 panic=-1 work=told,cpus"
    names="first second file own"
    vmms=
    for name in $names; do
        typed=/tmp/typed-$name
        mkfifo $typed
        case $name in
        first) start /tmp/$name --protected --cmdline "$words:1" ;;
        second) start /tmp/$name --protected --cpus 2 --cmdline "$words:2" ;;
        file) start /tmp/$name --guest-memfd --cmdline "$words:1" ;;
        own) start /tmp/$name --cmdline "$words:1" ;;
        esac
        vmms="$vmms $!"
    done
    cd /tmp
    for try in $(seq 600); do
        if [ "$(cat $names | grep -c 'guest waits')" = 4 ]; then break; fi
        usleep 100000
    done
    cat $debug/vms
    same "guests that wait" "$(cat $names | grep -c 'guest waits')" 4
    same "vCPUs of protected guests" $(vm_figure protected vcpus) 3
    same "vCPUs of others" $(vm_figure plain vcpus) 2
    # What they borrow ($5) is in a file ($11), or it is not.
    same "guests with a file" $(vms '$2 == "plain" && $5 > 0 && $11 > 0') 1
    same "guests with memory of their VMM's own" $(vms '$2 == "plain" && $5 > 0 && $11 == 0') 1
    for name in $names; do
        echo "all are there" 1<>typed-$name
    done
    for vmm in $vmms; do
        wait $vmm || fail "a VMM ended with $?"
    done
    for name in $names; do
        tr -d '\r' <$name
        grep -q 'freehold-guest exit 0' $name || fail "the guest $name did not end well"
        rm typed-$name
    done
    end
}

case_a_protected_guest_that_resets_or_panics_is_told_from_one_that_powers_off() {
    begin
    guest reset --protected
    same "the exit status of a reset" $vmm_status 3
    # Without a first program it panics.
    guest "cpus:1 rdinit=/nowhere" --protected
    same "the exit status of a panic" $vmm_status 3
    end
}

# Whether two clocks agree, by a file of lines: what the first says when it hears of the second, and what that one said.
# A line may be late, by as much as the host lets the VMM wait, and is never early, so that the soonest lines tell how
# far the clocks are apart. By those of the first quarter and of the last, it must not have changed by 2 % of the time
# between.
clocks_agree() {
    awk -v lines=$(wc -l <$1) '
        NR <= lines / 4 { part = "first" }
        NR > lines / 4 && NR <= lines * 3 / 4 { next }
        NR > lines * 3 / 4 { part = "last" }
        !(part in apart) || $1 - $2 < apart[part] { apart[part] = $1 - $2; at[part] = $1 }
        END {
            change = apart["last"] - apart["first"]
            between = at["last"] - at["first"]
            print "apart by", apart["first"], "and then by", apart["last"], "after", between
            exit !(between > 0 && change < between / 50 && -change < between / 50)
        }' $1
}

# Host and guest work, and what the guest says of its time is compared with the host's when it says it.
case_clocks_agree_under_load() {
    begin
    (while [ ! -e /tmp/over ]; do work; done) >/tmp/working 2>&1 &
    worker=$!
    words="console=ttyS0 loglevel=4 panic=-1 work=clock:$CLOCK_SECONDS"
    /freehold-vmm --kernel /guest/kernel --initrd /guest/initramfs --protected --cpus 2 --cmdline "$words" </dev/null |
        awk '/^guest clock/ {
                 getline host <"/proc/uptime"
                 close("/proc/uptime")
                 split(host, now, " ")
                 print now[1], $3
                 next
             }
             { print "#", $0 }' >/tmp/clocks
    touch /tmp/over
    wait $worker || fail "the host's work failed"
    cat /tmp/clocks
    [ ! -s /tmp/working ] || fail "the host's work: $(cat /tmp/working)"
    grep -q 'freehold-guest exit 0' /tmp/clocks || fail "the guest did not end well"
    grep -v '^#' /tmp/clocks >/tmp/times
    same "the number of times" $(wc -l </tmp/times) $((4 * CLOCK_SECONDS + 1))
    awk -v seconds=$CLOCK_SECONDS \
        'NR == 1 { first = $2 } { last = $2 } END { exit !(last - first >= seconds) }' /tmp/times ||
        fail "the guest worked for less than $CLOCK_SECONDS seconds"
    clocks_agree /tmp/times || fail "the clocks do not agree"
    rm /tmp/working /tmp/over
    end
}

# Random, below $1.
random() {
    echo $(($(hexdump -n 4 -e '"%u"' /dev/urandom) % $1))
}

# Stops a process, and waits until each of its threads has stopped: none is in a system call any more.
stop() {
    kill -STOP $1
    for try in $(seq 600); do
        # The state is the first word after the name, which is in brackets.
        if ! sed 's/.*) //' /proc/$1/task/*/stat | grep -qv '^T'; then return; fi
        usleep 100000
    done
    fail "it does not stop: $(cat /proc/$1/task/*/stat)"
}

# What is scrubbed when a VMM is killed is every page that was private, and a page for each vCPU, which had its
# registers; each of them once.
case_a_vmm_that_is_killed_gives_everything_back() {
    begin
    for n in $(seq $KILLS); do
        start /tmp/console --protected --cpus 2 --cmdline "console=ttyS0 loglevel=4 work=secret:8"
        vmm=$!
        usleep $(random 6000000)
        # From here on the guest takes no page and gives none up.
        stop $vmm
        private=$(vm_figure protected private)
        vcpus=$(vm_figure protected vcpus)
        before=$(scrubbed)
        kill -9 $vmm
        wait $vmm || true
        nothing_is_left
        after=$(scrubbed)
        echo "killed with $private private pages and $vcpus vCPUs"
        same "the number of frames that were scrubbed" $((after - before)) $((private + vcpus))
    done
    end
}

# How many pages the host finds in its memory that a guest has filled with its secret.
secrets() {
    /payload-kvm scan $(echo "a guest's secret" | md5sum | cut -c 1-15) | tee /tmp/scan >&2
    sed -n 's/^kvm scan \([0-9]*\) .*/\1/p' /tmp/scan
}

# A guest of the kind $1 that has a secret, in the background: $vmm.
secretive() {
    start /tmp/console $1 --cmdline "console=ttyS0 loglevel=4 work=secret:16"
    vmm=$!
    for try in $(seq 600); do
        if grep -q 'keeps a secret' /tmp/console; then return; fi
        usleep 100000
    done
    fail "the guest does not begin: $(cat /tmp/console)"
}

# Neither while the guest runs nor after its VMM is killed, when somebody else still has the file of its memory, does the
# host find the secret. That of a guest that is not protected is found.
case_a_secret_dies_with_its_guest() {
    begin
    secretive --protected
    same "what the host finds" "$(secrets)" 0
    mkfifo /tmp/to /tmp/from
    $kvm keep $vmm </tmp/to >/tmp/from &
    keeper=$!
    exec 3>/tmp/to 4</tmp/from
    read -r said <&4
    same "what the keeper says" "$said" "kvm keep 1"
    kill -9 $vmm
    wait $vmm || true
    same "the number of VMs" "$(figure vms)" 0
    [ "$(figure frames_guest)" -gt 0 ] || fail "the file is empty"
    same "what the host finds when the guest is gone" "$(secrets)" 0
    exec 3>&-
    read -r said <&4
    wait $keeper
    exec 4<&-
    same "what can be read of the file" "$said" "kvm kept 0 16"
    same "what the host finds when the file is gone" "$(secrets)" 0
    rm /tmp/to /tmp/from
    nothing_is_left
    secretive --guest-memfd
    [ "$(secrets)" -ge 4096 ] || fail "the secret of a guest that is not protected was not found"
    kill -9 $vmm
    wait $vmm || true
    end
}
