// The first instructions: the Image header, and the way to Rust on the first and on every other CPU.
//
// Rust runs with the MMU and the caches on, always, but for the one function that says why it cannot: with them
// off every access is Device-nGnRnE, on which atomics are undefined and unaligned accesses fault (Arm ARM
// DDI 0487, D8.2.12).

    .section .head, "ax"

// The arm64 boot protocol's header (Linux, Documentation/arch/arm64/booting.rst). Flags: little-endian, 4 KiB
// pages, loaded anywhere on a multiple of 2 MiB.
entry_header:
    b       entry_primary
    .long   0
    .quad   0                               // text_offset
    .quad   _image_size                     // what the image occupies, .bss and reservation included
    .quad   {IMAGE_FLAGS}
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

    .section .text.entry, "ax"

// adrp reaches 4 GiB around, so no address in the image needs a relocation.
.macro entry_address register, symbol
    adrp    \register, \symbol
    add     \register, \register, :lo12:\symbol
.endm

// First CPU. MMU off, interrupts masked, x0: physical address of the device tree. Never returns.
entry_primary:
    mov     x20, x0
    entry_address x19, _image_start
    entry_address x0, _boot_stack_top
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr

    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    entry_refuse_level

    // E2H=0 first: it decides what the other registers mean. A CPU without FEAT_E2H0 keeps it set, or says so in
    // ID_AA64MMFR4_EL1.E2H0 (bits 27:24, signed, negative).
    mov     x0, #{HCR_BOOT}
    msr     hcr_el2, x0
    isb
    mrs     x1, hcr_el2
    tbnz    x1, #34, entry_refuse_e2h
    mrs     x1, S3_0_C0_C7_4
    tbnz    x1, #27, entry_refuse_e2h
    // ID_AA64MMFR0_EL1.TGran4 (bits 31:28) is 0b1111 where the 4 KiB granule is missing.
    mrs     x1, id_aa64mmfr0_el1
    ubfx    x1, x1, #28, #4
    cmp     x1, #0xf
    b.eq    entry_refuse_granule
    tst     x19, #0x1fffff
    b.ne    entry_refuse_alignment

    ldr     x0, ={SCTLR_OFF}
    msr     sctlr_el2, x0
    isb

    // The boot tables: the image and the device tree as 2 MiB blocks of Normal memory, at their own addresses.
    entry_address x26, _early_tables_start
    entry_address x28, _early_tables_end
    mov     x0, x26
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x28
    b.lo    1b
    add     x27, x26, #4096                 // the next free table; the first is the root
    entry_address x24, _image_end
    mov     x0, x19
2:  ldr     x1, ={BLOCK_IMAGE}
    bl      entry_map_block
    add     x0, x0, #0x200000
    cmp     x0, x24
    b.lo    2b
    // The tree is at most 2 MiB long and may cross one boundary.
    and     x0, x20, #~0x1fffff
    cmp     x0, x19
    b.eq    3f
    ldr     x1, ={BLOCK_DATA}
    bl      entry_map_block
3:  add     x0, x0, #0x200000
    cmp     x0, x19
    b.eq    4f
    ldr     x1, ={BLOCK_DATA}
    bl      entry_map_block
4:
    // What was written with the caches off is in memory, and older lines that a prefetch may have brought must
    // not hide it.
    mov     x0, x26
    mov     x1, x28
    bl      entry_discard_lines

    ldr     x0, ={MAIR}
    msr     mair_el2, x0
    mrs     x0, id_aa64mmfr0_el1
    and     x0, x0, #0xf
    mov     x1, #{PS_48_BITS}
    cmp     x0, x1                          // PARange above 48 bits: Freehold uses 48
    csel    x0, x0, x1, lo
    ldr     x1, ={TCR}
    orr     x0, x1, x0, lsl #{TCR_PS_SHIFT}
    msr     tcr_el2, x0
    msr     ttbr0_el2, x26
    msr     tpidr_el2, xzr
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    ldr     x0, ={SCTLR_BOOT}
    msr     sctlr_el2, x0
    isb

    bl      entry_relocate
    entry_address x0, _bss_start
    entry_address x1, _bss_end
5:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    5b

    mov     x0, x20
    mov     x1, x19
    mov     x2, x27
    mov     x30, xzr
    b       {boot_main}

// Why the boot ends here: x0 says it, x1 is the device tree. The function below runs with the MMU off.
entry_refuse_level:
    mov     x21, #{REFUSE_LEVEL}
    b       entry_refuse
entry_refuse_e2h:
    mov     x21, #{REFUSE_E2H}
    b       entry_refuse
entry_refuse_granule:
    mov     x21, #{REFUSE_GRANULE}
    b       entry_refuse
entry_refuse_alignment:
    mov     x21, #{REFUSE_ALIGNMENT}
entry_refuse:
    bl      entry_relocate
    mov     x0, x21
    mov     x1, x20
    mov     x2, x19
    mov     x30, xzr
    b       {refuse_main}

// Maps one 2 MiB block. x0: address, x1: descriptor without address. x26: root, x27: next free table, x28: end of
// the tables. Clobbers x2 to x6. There are tables enough: the image and the tree need at most eight.
entry_map_block:
    mov     x2, x26
.irp shift, 39, 30
    ubfx    x3, x0, #\shift, #9
    add     x3, x2, x3, lsl #3
    ldr     x2, [x3]
    cbnz    x2, 6f
    orr     x2, x27, #3                     // a table descriptor
    str     x2, [x3]
    add     x27, x27, #4096
6:  and     x2, x2, #0x0000fffffffff000
.endr
    ubfx    x3, x0, #21, #9
    and     x4, x0, #0x0000ffffffe00000
    orr     x4, x4, x1
    str     x4, [x2, x3, lsl #3]
    ret

// Invalidates the data cache lines of [x0, x1) to the point of coherency. Clobbers x2 and x3.
entry_discard_lines:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4                 // DminLine: log2 of the words in the smallest line
    mov     x3, #4
    lsl     x2, x3, x2
    dsb     sy
7:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    7b
    dsb     sy
    ret

// Applies the relative relocations: word at (image + offset) = image + addend. x19: image. Clobbers x0 to x4.
// Nothing else is linked in, so another type is a broken build; it stops here rather than run.
entry_relocate:
    entry_address x0, _rela_start
    entry_address x1, _rela_end
8:  cmp     x0, x1
    b.hs    9f
    ldp     x2, x3, [x0], #16
    ldr     x4, [x0], #8
    cmp     w3, #{R_AARCH64_RELATIVE}
    b.ne    10f
    add     x4, x4, x19
    str     x4, [x19, x2]
    b       8b
9:  ret
10: wfe
    b       10b

// Any other CPU, or one that wakes from a sleep that lost its state. MMU off, interrupts masked, x0: physical
// address of the CPU's `StartArguments`, which were cleaned to the point of coherency. Never returns.
    .global entry_secondary
    .type entry_secondary, %function
entry_secondary:
    mov     x1, #{HCR_BOOT}
    msr     hcr_el2, x1
    isb
    ldr     x1, ={SCTLR_OFF}
    msr     sctlr_el2, x1
    isb
    ldp     x1, x2, [x0, #{START_MAIR_TCR}]
    msr     mair_el2, x1
    msr     tcr_el2, x2
    ldp     x1, x2, [x0, #{START_TTBR_SCTLR}]
    ldp     x3, x4, [x0, #{START_STACK_PERCPU}]
    msr     ttbr0_el2, x1
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x2
    isb
    mov     sp, x3
    msr     tpidr_el2, x4
    mov     x29, xzr
    mov     x30, xzr
    b       {secondary_main}
    .size entry_secondary, . - entry_secondary

    .ltorg

    .purgem entry_address
