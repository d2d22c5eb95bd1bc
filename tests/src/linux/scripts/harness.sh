# Runs cases in a Linux host and tells the runner how each ended: `case begin NAME`, `case end NAME STATUS`. A case
# is a function; it has failed if a command of it does, or if the machine is not well afterwards.

. /freehold-functions
# Some hosts run without Freehold, to compare.
if [ -e $tree/reserved-memory/freehold@* ]; then
    set -- $(freehold)
    FREEHOLD=$1
    FREEHOLD_FRAMES=$2
fi

fail() {
    echo "failed: $*"
    exit 1
}

# `same WHAT GOT WANTED`
same() {
    [ "$2" = "$3" ] || fail "$1 is $2, not $3"
}

# Has $1, a function, run with the address of fresh pages of the kernel's: 2^$2 in $PAGE.
with_pages() {
    (
        echo '. /freehold-functions; set -e; PAGE=$FREEHOLD_PAGES'
        sed -n "/^$1() {\$/,/^}\$/p" "$0"
        echo "$1"
    ) >/tmp/part
    $probe with-pages --order $2 -- sh /tmp/part
}

# What an ordinary system does: processes come and go, files are written and read back.
work() {
    dd if=/dev/urandom of=/tmp/work bs=64k count=16 2>/dev/null
    cp /tmp/work /tmp/copy
    cmp /tmp/work /tmp/copy
    [ "$(for n in 1 2 3 4 5 6 7 8; do /bin/echo $n & done | wc -l)" = 8 ]
    rm /tmp/work /tmp/copy
}

# After a case: nobody died whom the case does not know of, no complaints, work goes on, and Freehold's map and
# tables agree.
well() {
    dmesg -rc >/tmp/log
    same "the number of oopses" $(grep -c 'Internal error:' /tmp/log) $(grep -c outcome=died "$1")
    complaints </tmp/log >/tmp/complaints
    [ ! -s /tmp/complaints ] || fail "the kernel complains: $(head -n 5 /tmp/complaints)"
    work
    [ -z "$FREEHOLD" ] || audit >/tmp/audit || fail "the audit: $(cat /tmp/audit)"
}

run() {
    echo "case begin $1"
    (
        set -e
        "case_$1"
    ) >/tmp/said 2>&1
    status=$?
    cat /tmp/said
    if [ $status = 0 ]; then
        (
            set -e
            well /tmp/said
        )
        status=$?
    fi
    echo "case end $1 $status"
}
