# The machine is what was asked for, and it works. EXPECT_RELEASE, EXPECT_CPUS and EXPECT_MIB say what was.

case_boots() {
    same "the kernel" "$(uname -r)" "$EXPECT_RELEASE"
    same "the number of CPUs" "$(nproc)" "$EXPECT_CPUS"
    dmesg | grep 'CPU(s) started at EL1' || fail "not all CPUs run at EL1"

    # Linux takes its own image and a page structure for each page out of the total.
    total=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    [ $total -le $EXPECT_MIB ] && [ $total -ge $((EXPECT_MIB * 97 / 100 - 100)) ] ||
        fail "Linux has $total MiB of $EXPECT_MIB"
    described=$(ram | awk '{ frames += $2 } END { print int(frames / 256) }')
    same "the RAM that the tree describes, in MiB," $described $EXPECT_MIB

    # Each CPU calls EL2, which counts on the CPU that it is on.
    $probe call version | tee /tmp/version
    grep -q " cpus=$EXPECT_CPUS " /tmp/version
    for cpu in $(seq 0 $((EXPECT_CPUS - 1))); do
        before=$($probe --cpu $cpu call counter $cpu Hypercalls | sed 's/.*value=\([0-9]*\).*/\1/')
        after=$($probe --cpu $cpu call counter $cpu Hypercalls | sed 's/.*value=\([0-9]*\).*/\1/')
        [ "$after" -gt "$before" ] || fail "CPU $cpu counted $before calls, then $after"
    done

    # The host is refused what is not its own, and reaches its own.
    $probe touch $FREEHOLD --no-oops --all refused
    $probe with-pages -- sh -c '/freehold-probe touch $FREEHOLD_PAGES --no-oops --all granted'
}
