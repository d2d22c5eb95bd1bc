# The module in a host: how it is loaded, what it says. `kvm_cases PREFIX NUMBER` runs those cases of the program
# /payload-kvm whose names begin so.

kvm=/payload-kvm
debug=/sys/kernel/debug/freehold

# `figure NAME` of the module's.
figure() {
    awk -v name="$1" '$1 == name { print $2 }' $debug/statistics
}

# `el2_figure NAME` of EL2's.
el2_figure() {
    $probe call statistics "$1" | sed 's/.*value=\([0-9]*\).*/\1/'
}

# Free pages, those included that CPUs have put by.
free_pages() {
    awk '$1 == "nr_free_pages" || $1 == "count:" { pages += $2 } END { print pages }' /proc/zoneinfo
}

load() {
    grep -q " /sys/kernel/debug " /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug
    # A case that failed leaves it loaded.
    if [ -c /dev/kvm ]; then
        rmmod freehold
    fi
    insmod /freehold.ko
    [ -c /dev/kvm ] || fail "there is no /dev/kvm"
}

# Unloads it, and sees that it has given everything back and freed everything.
unload() {
    # Oopses in the log are counted at the end, so that it stays.
    lines=$(dmesg | wc -l)
    rmmod freehold
    dmesg | tail -n +$((lines + 1)) | tee /tmp/unloaded
    grep -q 'freehold: all memory is free again' /tmp/unloaded || fail "memory was not freed"
    [ ! -e /dev/kvm ] || fail "/dev/kvm is still there"
    [ ! -e $debug ] || fail "$debug is still there"
}

kvm_cases() {
    $kvm run "$1" | tee /tmp/cases || fail "a case failed"
    same "the number of cases" "$(sed -n 's/^kvm cases //p' /tmp/cases)" "$2"
    same "the number of cases that passed" "$(grep -c '^kvm case .* ok$' /tmp/cases)" "$2"
}
