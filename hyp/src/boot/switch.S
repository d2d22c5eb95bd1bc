// switch_tables(x0: entry, x1: tree, x2: TTBR0_EL2, x3: SCTLR_EL2, x4: stack, x5: where to go on). Never returns.
//
// The two tables map the same addresses by blocks and by pages; both in the TLB at once could conflict (Arm ARM
// DDI 0487, D8.16.1). So the MMU is off in between. No data is touched then; the code is clean to the point of
// coherency since the loader put it there.
    .section .text.switch, "ax"
    .global switch_tables
    .type switch_tables, %function
switch_tables:
    mrs     x6, sctlr_el2
    bic     x7, x6, #1
    dsb     ish
    msr     sctlr_el2, x7
    isb
    msr     ttbr0_el2, x2
    tlbi    alle2
    dsb     nsh
    isb
    msr     sctlr_el2, x3
    isb
    mov     sp, x4
    mov     x29, xzr
    mov     x30, xzr
    br      x5
    .size switch_tables, . - switch_tables
