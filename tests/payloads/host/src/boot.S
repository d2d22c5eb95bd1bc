// Entry of the payload, on the boot CPU and on those that PSCI starts.
//
// The image begins with the header that Documentation/arch/arm64/booting.rst of Linux describes, so any loader of
// arm64 kernels can start it: MMU off, caches in any state but the image clean to the point of coherency, x0 = DTB.

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

// Boot CPU. x0: physical address of the device tree. Uses no stack. Does not return.
boot_entry:
    mov     x19, x0
    mrs     x0, CurrentEL
    cmp     x0, #(1 << 2)
    b.ne    boot_wrong_level

    adrp    x20, _image_start
    add     x20, x20, :lo12:_image_start

    // Relative relocations: where = base + offset, value = base + addend (ELF for the Arm 64-bit Architecture).
    adrp    x0, _rela_start
    add     x0, x0, :lo12:_rela_start
    adrp    x1, _rela_end
    add     x1, x1, :lo12:_rela_end
1:  cmp     x0, x1
    b.hs    2f
    ldp     x2, x3, [x0]
    ldr     x4, [x0, #16]
    add     x0, x0, #24
    cmp     w3, #{R_AARCH64_RELATIVE}
    b.ne    boot_failed
    add     x4, x4, x20
    str     x4, [x20, x2]
    b       1b

2:  adrp    x0, _bss_start
    add     x0, x0, :lo12:_bss_start
    adrp    x1, _bss_end
    add     x1, x1, :lo12:_bss_end
3:  cmp     x0, x1
    b.hs    4f
    stp     xzr, xzr, [x0], #16
    b       3b

    // A loader may have left clean lines of what was just written around the caches: drop them before the
    // caches go on (Arm ARM DDI 0487, D7.5).
4:  mov     x0, x20
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x2, x3, x2
5:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    5b
    dsb     sy

    // The first map: the lowest GiB, where the devices are, and the GiBs of the image and of the device tree.
    adrp    x0, {BOOT_TABLE}
    add     x0, x0, :lo12:{BOOT_TABLE}
    ldr     x1, ={DEVICE_BLOCK}
    str     x1, [x0]
    ldr     x1, ={NORMAL_BLOCK}
    lsr     x2, x20, #30
    orr     x3, x1, x2, lsl #30
    str     x3, [x0, x2, lsl #3]
    lsr     x2, x19, #30
    orr     x3, x1, x2, lsl #30
    str     x3, [x0, x2, lsl #3]
    bl      mmu_enable

    adrp    x0, {BOOT_STACK_TOP}
    add     x0, x0, :lo12:{BOOT_STACK_TOP}
    ldr     x1, ={BOOT_STACK_SIZE}
    add     sp, x0, x1
    bl      cpu_set_up
    msr     tpidr_el1, xzr
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    b       {PAYLOAD_MAIN}

// The payload plays a host at EL1; anywhere else its answers would mean nothing.
boot_wrong_level:
boot_failed:
    adr     x1, boot_exit_block
    mov     x0, #0x18               // SYS_EXIT
    hlt     #0xf000
6:  wfe
    b       6b

.balign 8
boot_exit_block:
    .quad   0x20026                 // ADP_Stopped_ApplicationExit
    .quad   {EXIT_BOOT_FAILED}

// A CPU that PSCI starts. x0: address of its SecondaryStart. Does not return.
.global secondary_entry
secondary_entry:
    mov     x19, x0
    adrp    x0, {FINAL_TABLE}
    add     x0, x0, :lo12:{FINAL_TABLE}
    bl      mmu_enable
    ldp     x0, x1, [x19]           // stack, number of the CPU
    mov     sp, x0
    msr     tpidr_el1, x1
    bl      cpu_set_up
    mov     x29, xzr
    mov     x30, xzr
    mrs     x0, tpidr_el1
    b       {SECONDARY_MAIN}

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

// Goes over to another level-1 table that maps this code and the stack alike. x0: its address. The MMU is off
// in between, because the two tables may map the same address by blocks of different sizes (D8.16.1, break-before-make).
.global mmu_switch
mmu_switch:
    mov     x9, x30
    mrs     x1, sctlr_el1
    bic     x1, x1, #{SCTLR_M}
    bic     x1, x1, #{SCTLR_C}
    msr     sctlr_el1, x1
    isb
    bl      mmu_enable
    mov     x30, x9
    ret

// What every CPU needs before Rust runs on it: vectors, and no trap on FP registers. Clobbers x1.
cpu_set_up:
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)          // CPACR_EL1.FPEN
    msr     cpacr_el1, x1
    isb
    ret
