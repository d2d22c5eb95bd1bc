// One instruction with the whole register file around it in view.
//
// The block in x18 holds x0 to x28, by number; its own word 18 is not used. Every gadget loads them, executes its
// instruction and stores them. An exception of the instruction is recorded by its handler, which fills the block
// instead and comes back to `gadget_return`.

.macro gadget_load
    ldp     x0, x1, [x18, #0]
    ldp     x2, x3, [x18, #16]
    ldp     x4, x5, [x18, #32]
    ldp     x6, x7, [x18, #48]
    ldp     x8, x9, [x18, #64]
    ldp     x10, x11, [x18, #80]
    ldp     x12, x13, [x18, #96]
    ldp     x14, x15, [x18, #112]
    ldp     x16, x17, [x18, #128]
    ldp     x19, x20, [x18, #152]
    ldp     x21, x22, [x18, #168]
    ldp     x23, x24, [x18, #184]
    ldp     x25, x26, [x18, #200]
    ldp     x27, x28, [x18, #216]
.endm

.macro gadget_store
    stp     x0, x1, [x18, #0]
    stp     x2, x3, [x18, #16]
    stp     x4, x5, [x18, #32]
    stp     x6, x7, [x18, #48]
    stp     x8, x9, [x18, #64]
    stp     x10, x11, [x18, #80]
    stp     x12, x13, [x18, #96]
    stp     x14, x15, [x18, #112]
    stp     x16, x17, [x18, #128]
    stp     x19, x20, [x18, #152]
    stp     x21, x22, [x18, #168]
    stp     x23, x24, [x18, #184]
    stp     x25, x26, [x18, #200]
    stp     x27, x28, [x18, #216]
.endm

.section .text.gadgets, "ax"

.balign 16
.global gadget_hvc
gadget_hvc:
    gadget_load
    hvc     #0
    gadget_store
    ret

.balign 16
.global gadget_smc
gadget_smc:
    gadget_load
    smc     #0
    gadget_store
    ret

// Copied to a page of each CPU, where two instructions of its choice take the place of the two NOPs.
.balign 16
.global gadget_template
gadget_template:
    gadget_load
.global gadget_template_slot
gadget_template_slot:
    nop
    nop
    gadget_store
    ret
.global gadget_template_end
gadget_template_end:

// Runs a gadget. x0: its block; x1: the gadget.
.global gadget_run
gadget_run:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x18, [sp, #96]
    mov     x18, x0
    blr     x1
.global gadget_return
gadget_return:
    ldr     x18, [sp, #96]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret

// One access with stage 1 off. x0: address; x1: 0 to load, 1 to store x2, 2 to fetch (the code there ends with RET).
// Returns 0 and what was loaded in x1, or ESR_EL1 and FAR_EL1. Vectors of its own: the others are Rust, which must
// not run without caches.
.global gadget_mmu_off
gadget_mmu_off:
    stp     x29, x30, [sp, #-16]!
    mov     x9, x0
    mrs     x10, daif
    msr     daifset, #0xf
    mrs     x11, vbar_el1
    adr     x12, gadget_vectors
    mrs     x13, sctlr_el1
    bic     x14, x13, #1            // M
    bic     x14, x14, #4            // C
    mov     x0, xzr
    // Nothing is read from the stack before the caches are on again.
    dsb     sy
    msr     vbar_el1, x12
    msr     sctlr_el1, x14
    isb
    cmp     x1, #1
    b.lo    1f
    b.eq    2f
    blr     x9
    mov     x0, xzr
    b       gadget_mmu_back
1:  ldr     x1, [x9]
    b       gadget_mmu_back
2:  str     x2, [x9]
gadget_mmu_back:
    msr     sctlr_el1, x13
    isb
    msr     vbar_el1, x11
    isb
    msr     daif, x10
    ldp     x29, x30, [sp], #16
    ret

.balign 0x800
gadget_vectors:
.rept 16
    .balign 0x80
    mrs     x0, esr_el1
    mrs     x1, far_el1
    b       gadget_mmu_back
.endr
.balign 0x80
