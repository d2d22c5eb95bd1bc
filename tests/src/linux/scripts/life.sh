# What an ordinary system does for longer: LOAD_SECONDS.

case_cpus_leave_and_come_back() {
    for round in 1 2 3; do
        for cpu in $(seq 1 $(($(grep -c ^processor /proc/cpuinfo) - 1))); do
            echo 0 >/sys/devices/system/cpu/cpu$cpu/online
            echo 1 >/sys/devices/system/cpu/cpu$cpu/online
            $probe --cpu $cpu call version --expect status=Success
        done
    done
}

# Until the time is over, each on its own: processes, the page cache, a timer, arithmetic on every CPU, and pages
# that are lent and given to EL2.
case_load() {
    end=$(($(date +%s) + LOAD_SECONDS))
    go_on() {
        [ $(date +%s) -lt $end ]
    }
    (while go_on; do
        [ $(/bin/echo 1) = 1 ] && /bin/true || echo "a process was lost" >>/tmp/bad
    done) &
    (while go_on; do
        dd if=/dev/urandom of=/tmp/one bs=1M count=16 2>/dev/null
        cp /tmp/one /tmp/two
        cmp /tmp/one /tmp/two || echo "a file differs" >>/tmp/bad
        rm /tmp/one /tmp/two
    done) &
    (while go_on; do
        usleep 1000
    done) &
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        (
            first=$(seq 20000 | md5sum)
            while go_on; do
                [ "$(seq 20000 | taskset -c $cpu md5sum)" = "$first" ] || echo "CPU $cpu errs" >>/tmp/bad
            done
        ) &
    done
    (
        cat >/tmp/pages <<'PAGES'
set -e
for call in share unshare donate reclaim; do
    /freehold-probe call $call $FREEHOLD_PAGES 512 --expect status=Success
done
PAGES
        while go_on; do
            $probe with-pages --order 9 -- sh /tmp/pages >/tmp/paged 2>&1 || cat /tmp/paged >>/tmp/bad
        done
    ) &
    wait
    [ ! -e /tmp/bad ] || fail "$(head -n 20 /tmp/bad)"
}
