// Entry of every vCPU: of the first by the loader, of the others by PSCI CPU_ON. MMU off, x0: payload_protocol::Start.

.section .head, "ax"
.global _image_start_header
_image_start_header:
    b       boot_entry
    .long   0
    .quad   0                       // text offset
    .quad   _image_size
    .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

.section .text.boot, "ax"
.global boot_entry
boot_entry:
    mov     x19, x0
    mrs     x20, CurrentEL
    mrs     x21, sctlr_el1
    tbnz    x19, #0, 1f             // Start::MMU_OFF
    adrp    x0, {TABLE}
    add     x0, x0, :lo12:{TABLE}
    bl      mmu_enable

1:  ubfx    x1, x19, #8, #8         // Start's index
    msr     tpidr_el1, x1
    adrp    x0, {STACKS}
    add     x0, x0, :lo12:{STACKS}
    ldr     x2, ={STACK_SIZE}
    add     x1, x1, #1
    madd    x0, x1, x2, x0
    mov     sp, x0

    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)          // CPACR_EL1.FPEN
    msr     cpacr_el1, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    mov     x2, x21
    b       {GUEST_MAIN}

// Turns the MMU and caches on. x0: address of the level-1 table. Clobbers x1 to x3.
mmu_enable:
    dsb     sy
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    ldr     x1, ={MAIR}
    msr     mair_el1, x1
    ldr     x1, ={TCR}
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf
    mov     x3, #{PA_48_BITS}
    cmp     x2, x3
    csel    x2, x2, x3, lo
    bfi     x1, x2, #{TCR_IPS_SHIFT}, #3
    msr     tcr_el1, x1
    msr     ttbr0_el1, x0
    isb
    ldr     x1, ={SCTLR}
    msr     sctlr_el1, x1
    isb
    ret
