# The host's part of the story. What the deeds need to know comes from the kernel and from the probe.
. /freehold-functions

# The deeds have two blocks of 2 MiB to play with. What is given away for good stays away when they are done.
if [ "$1" != deeds ]; then
    $probe with-pages --order 9 --count 2 -- sh "$0" deeds
    [ -e /tmp/done ]
    exit
fi
set -- $FREEHOLD_PAGES
PAGE=$1
BLOCK=$2
set -- $(freehold)
FREEHOLD=$1

# The value in a line of the probe's: `field NAME`.
field() {
    sed -n "s/.*\\<$1=\\([^ ]*\\).*/\\1/p"
}

# The state of a frame, as Freehold tells the host.
state() {
    $probe call frame-state $1 | field state
}

# What a counter of Freehold's says, of all CPUs together.
count() {
    $probe counters | awk -v name="counter=$1" '$2 == name { split($3, value, "="); sum += value[2] } END { print sum }'
}

# Calls Freehold twice from one CPU, and tells what Freehold has counted there.
calls_on() {
    first=$($probe --cpu $1 call counter $1 Hypercalls | field value)
    second=$($probe --cpu $1 call counter $1 Hypercalls | field value)
    echo "CPU $1: $first calls, then $second: $([ $second -gt $first ] && echo counted || echo lost)"
}

# Has every CPU call twice, and tells how many were counted.
all_call() {
    told=$(for cpu in $(seq 0 $(($(nproc) - 1))); do calls_on $cpu; done)
    echo "$told"
    echo "cpus=$(nproc) counted=$(echo "$told" | grep -c counted)"
}

# Turns a CPU off and on again, which takes PSCI calls, and has it call.
restart() {
    was=$(count Smcs)
    echo 0 >/sys/devices/system/cpu/cpu$1/online
    echo 1 >/sys/devices/system/cpu/cpu$1/online
    echo "$(($(count Smcs) - was)) SMCs; $(calls_on $1)"
}

# A number of 8 bytes in the other byte order.
swapped() {
    printf '0x'
    printf '%016x' $(($1)) | sed 's/\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\8\7\6\5\4\3\2\1/'
}

# Has QEMU's fw_cfg write 4 KiB to an address: a request in $PAGE, and its address to the register that starts it
# (QEMU, docs/specs/fw_cfg.rst). Control is READ and SELECT of key 0; all fields are big-endian.
dma() {
    $probe el1 write $PAGE 0x001000000a000000 --expect written >/dev/null
    $probe el1 write $((PAGE + 8)) $(swapped $1) --expect written >/dev/null
    $probe el1 write 0x9020010 $(swapped $PAGE) --map device
}

# `deed NUMBER FRAME COUNTER COMMAND`: carries out a command and tells everything about it. FRAME and COUNTER may be
# empty.
deed() {
    echo "story begin $1"
    if [ -n "$2" ]; then
        eval "frame=\$(($2))"
        echo "story fact $1 frame $(printf '%#x' $frame)"
        echo "story fact $1 before $(state $frame)"
    fi
    [ -z "$3" ] || was=$(count $3)
    (eval "$4") >/tmp/said 2>&1
    status=$?
    [ -z "$3" ] || echo "story fact $1 counted $(($(count $3) - was))"
    [ -z "$2" ] || echo "story fact $1 after $(state $frame)"
    sed "s/^/story out $1 /" /tmp/said
    echo "story end $1 $status"
}

