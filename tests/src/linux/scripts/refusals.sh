# What the host asks for and must not get.

case_hypercalls_for_freeholds_memory() {
    $probe call share $FREEHOLD 1 --expect status=NotOwner
    $probe call unshare $FREEHOLD 1 --expect status=NotOwner
    $probe call donate $FREEHOLD 1 --expect status=NotOwner
    $probe call reclaim $FREEHOLD 1 --expect status=NotDonated
    $probe call pool-top-up $FREEHOLD 1 --expect status=NotOwner
    $probe call frame-state $FREEHOLD | grep state=NotYours
}

case_hypercalls_that_mean_nothing() {
    $probe call share 0x40000800 1 --expect status=Misaligned
    $probe call share 0x40000000 0 --expect status=EmptyRange
    $probe call donate 0xfffffffffffff000 2 --expect status=RangeOverflow
    $probe call donate 0x9000000 1 --expect status=NotMemory
    $probe call counter 4096 0 --expect status=InvalidParameter
    $probe hvc 0xc60046ff --expect status=NotSupported
}

# Arm DEN0077: FFA_MEM_SHARE. Arm DEN0098: TRNG_VERSION. Neither reaches the firmware.
case_secure_calls() {
    $probe smc 0x84000073 --expect status=NotSupported
    $probe smc 0xc4000073 --expect status=NotSupported
    $probe smc 0x84000050 --expect status=NotSupported
}

case_el2s_registers() {
    $probe sysreg read HCR_EL2 --expect died
    $probe sysreg write VTTBR_EL2 0 --expect died
}
