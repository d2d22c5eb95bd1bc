# What scripts in a Linux host want to know of the machine: `. /freehold-functions`.

probe=/freehold-probe
tree=/sys/firmware/devicetree/base

# The number in two cells of the device tree: `number FILE BYTE`.
number() {
    echo 0x$(hexdump -v -s "$2" -n 8 -e '8/1 "%02x"' "$1")
}

# The pieces of RAM, a line each: address and number of 4 KiB frames. Freehold's own memory is part of them.
ram() {
    for node in $tree/memory*; do
        [ -e "$node/device_type" ] || continue
        at=0
        while [ $at -lt $(wc -c <"$node/reg") ]; do
            echo "$(number "$node/reg" $at) $(($(number "$node/reg" $((at + 8))) / 4096))"
            at=$((at + 16))
        done
    done
}

# Freehold's own memory: address and number of 4 KiB frames.
freehold() {
    node=$(echo $tree/reserved-memory/freehold@*)
    echo "$(number "$node/reg" 0) $(($(number "$node/reg" 8) / 4096))"
}

# Has Freehold compare its ownership map with its tables for all RAM.
audit() {
    ram | while read base frames; do
        $probe call audit $base $frames --expect status=Success || exit 1
    done
}

# Of the kernel's log (`dmesg -r`), errors and worse without the reports of oopses, and warnings that tell of trouble.
complaints() {
    awk '{ level = substr($0, 2, index($0, ">") - 2) % 8 }
         /Unable to handle|Internal error:/ { report = 1 }
         !report && (level <= 3 || /WARNING|BUG|stall|lockup|hung|Bad page|corrupt/)
         /end trace/ { report = 0 }'
}
