// Loads every register from a block, executes what makes the vCPU leave, and stores every register to the block again.
//
// x0: address of the block's x. The stack pointer points there in between, with room for an exception below.

.arch_extension fp
.arch_extension simd

.macro vectors instruction, base, offset=0
    \instruction q0, q1, [\base, #\offset + 0]
    \instruction q2, q3, [\base, #\offset + 32]
    \instruction q4, q5, [\base, #\offset + 64]
    \instruction q6, q7, [\base, #\offset + 96]
    \instruction q8, q9, [\base, #\offset + 128]
    \instruction q10, q11, [\base, #\offset + 160]
    \instruction q12, q13, [\base, #\offset + 192]
    \instruction q14, q15, [\base, #\offset + 224]
    \instruction q16, q17, [\base, #\offset + 256]
    \instruction q18, q19, [\base, #\offset + 288]
    \instruction q20, q21, [\base, #\offset + 320]
    \instruction q22, q23, [\base, #\offset + 352]
    \instruction q24, q25, [\base, #\offset + 384]
    \instruction q26, q27, [\base, #\offset + 416]
    \instruction q28, q29, [\base, #\offset + 448]
    \instruction q30, q31, [\base, #\offset + 480]
.endm

.macro general pair, single
    \pair   x2, x3, [sp, #16]
    \pair   x4, x5, [sp, #32]
    \pair   x6, x7, [sp, #48]
    \pair   x8, x9, [sp, #64]
    \pair   x10, x11, [sp, #80]
    \pair   x12, x13, [sp, #96]
    \pair   x14, x15, [sp, #112]
    \pair   x16, x17, [sp, #128]
    \pair   x18, x19, [sp, #144]
    \pair   x20, x21, [sp, #160]
    \pair   x22, x23, [sp, #176]
    \pair   x24, x25, [sp, #192]
    \pair   x26, x27, [sp, #208]
    \pair   x28, x29, [sp, #224]
    \single x30, [sp, #240]
.endm

.macro system_load register, number
    ldr     x1, [sp, #{SYSTEM} + 8 * \number]
    msr     \register, x1
.endm

.macro system_store register, number
    mrs     x1, \register
    str     x1, [sp, #{SYSTEM} + 8 * \number]
.endm

.macro hold name, instruction, second=nop, third=nop
.global hold_\name
hold_\name:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x1, sp
    str     x1, [x0, #{STACK}]
    mov     sp, x0
    vectors ldp, sp, {V}
    system_load tpidr_el0, 0
    system_load tpidrro_el0, 1
    system_load sp_el0, 2
    system_load far_el1, 3
    system_load elr_el1, 4
    system_load ttbr1_el1, 5
    general ldp, ldr
    ldp     x0, x1, [sp]
90: \instruction
    \second
    \third
    stp     x0, x1, [sp]
    general stp, str
    system_store tpidr_el0, 0
    system_store tpidrro_el0, 1
    system_store sp_el0, 2
    system_store far_el1, 3
    system_store elr_el1, 4
    system_store ttbr1_el1, 5
    vectors stp, sp, {V}
    ldr     x1, [sp, #{STACK}]
    mov     sp, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
.endm

.section .text.hold, "ax"
    hold    wait, "wfi"
    hold    hvc, "hvc #0"
    hold    smc, "smc #0"
    hold    load, "ldr x1, [x0]"
    hold    store, "str xzr, [x0]"
    hold    interrupt, "msr s3_0_c12_c11_5, x0", "isb"      // ICC_SGI1R_EL1
    hold    poll, "ldr x1, [x0]", "cbz x1, 90b"

// x0: address of 32 vector registers.
.global vectors_load
vectors_load:
    vectors ldp, x0
    ret
.global vectors_store
vectors_store:
    vectors stp, x0
    ret
