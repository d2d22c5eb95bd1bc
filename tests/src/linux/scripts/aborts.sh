# Accesses of every kind from EL0 and EL1, to what the host may reach and to what it may not.

case_freeholds_own_memory() {
    $probe touch $FREEHOLD --edges --all refused
    $probe touch $((FREEHOLD + FREEHOLD_FRAMES / 2 * 4096)) --no-oops --all refused
    $probe touch $((FREEHOLD + (FREEHOLD_FRAMES - 1) * 4096)) --edges --no-oops --all refused
}

donated_page() {
    $probe el1 write $PAGE 0x5ec4e7 --expect written
    $probe call donate $PAGE 1 --expect status=Success
    $probe touch $PAGE --edges --all refused
    $probe call frame-state $PAGE | grep state=NotYours
    $probe call reclaim $PAGE 1 --expect status=Success
    $probe el1 read $PAGE --expect value=0
    $probe touch $PAGE --all granted
}

case_donated_page() {
    with_pages donated_page 0
}

# The page in the middle of four: the accesses across its edges begin or end in pages that are the host's.
page_among_the_hosts() {
    middle=$((PAGE + 4096))
    $probe call donate $middle 1 --expect status=Success
    $probe touch $middle --edges --no-oops --all refused
    $probe touch $PAGE --no-oops --all granted
    $probe touch $((PAGE + 8192)) --no-oops --all granted
    $probe call reclaim $middle 1 --expect status=Success
    $probe touch $middle --edges --all granted
}

case_page_among_the_hosts() {
    with_pages page_among_the_hosts 2
}

# A word that the kernel reads where a string may end runs into a page that is hidden: the kernel goes on, with zeros.
word_before_a_donated_page() {
    next=$((PAGE + 4096))
    $probe el1 write $((PAGE + 4088)) 0x1122334455667788 --expect written
    $probe el1 write $next 0x5ec4e7 --expect written
    $probe el1 --padded read $((PAGE + 4092)) --expect value=0x005ec4e711223344
    $probe call donate $next 1 --expect status=Success
    $probe el1 --padded read $((PAGE + 4092)) --expect value=0x11223344
    $probe el1 --padded read $((PAGE + 4089)) --expect value=0x11223344556677
    $probe call reclaim $next 1 --expect status=Success
}

case_word_before_a_donated_page_is_padded_with_zeros() {
    with_pages word_before_a_donated_page 1
}

donated_block() {
    $probe call donate $PAGE 512 --expect status=Success
    $probe touch $PAGE --no-oops --all refused
    $probe touch $((PAGE + 511 * 4096)) --all refused
    $probe call reclaim $PAGE 512 --expect status=Success
    $probe touch $PAGE --no-oops --all granted
    $probe touch $((PAGE + 511 * 4096)) --all granted
}

case_donated_block() {
    with_pages donated_block 9
}

shared_page() {
    $probe el1 write $PAGE 0x5ec4e7 --expect written
    $probe call share $PAGE 1 --expect status=Success
    $probe touch $PAGE --all granted
    $probe call unshare $PAGE 1 --expect status=Success
    $probe el1 read $PAGE --expect value=0x5ec4e7
}

case_shared_page_stays_in_reach() {
    with_pages shared_page 0
}

# QEMU's virt machine (hw/arm/virt.c) has fw_cfg at 0x9020000 and the ITS at 0x8080000.
case_fw_cfg() {
    $probe touch 0x9020000 --all refused
}

case_its() {
    $probe touch 0x8080000 --no-oops --all refused
    $probe touch 0x8090000 --all refused
}

# GICR_CTLR, GICR_PROPBASER and GICR_PENDBASER of CPU 0 (Arm IHI 0069, 12.11): no LPIs.
case_lpi_registers() {
    $probe el1 write 0x80a0000 1 --size 4 --map device --expect written
    control=$($probe el1 read 0x80a0000 --size 4 --map device | sed 's/.*value=\(0x[0-9a-f]*\).*/\1/')
    same "GICR_CTLR.EnableLPIs" $((control & 1)) 0
    for base in 0x80a0070 0x80a0078; do
        $probe el1 write $base $((FREEHOLD + 13)) --map device --expect written
        $probe el1 read $base --map device --expect value=0
    done
}

# 2^40 is past what this machine's tree describes, so the host's table ends before it.
case_beyond_the_hosts_table() {
    $probe touch 0x10000000000 --all refused
}

# Nothing answers at 0xb000000, between the virtio transports and the platform bus: the machine's own external abort,
# not Freehold's. The host's jump there is left out, which Linux 6.12 does not survive on any machine: its report
# reads the code.
case_hole_of_the_machine() {
    $probe el0 read 0xb000000 --expect signal=SIGBUS
    $probe el0 write 0xb000000 1 --expect signal=SIGBUS
    $probe el1 read 0xb000000 --map device --bare --expect died
    $probe el1 write 0xb000000 1 --map device --bare --expect died
}
