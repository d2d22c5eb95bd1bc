// A machine small enough to count by hand. Entered at EL2 with the MMU off, at the address it is linked for.
//
// It sets up EL2 (the "image", from image to image_end), goes to EL1, calls EL2, measures stretches by CNTVCT, has a
// second CPU come and go twice, turns the MMU on, runs from the kernel's half of the address space, jumps to its
// identity map and back, goes to EL0 and, when that calls, ends. Each measure is printed as 16 hexadecimal digits and
// a newline.

        .set    UART, 0x09000000
        .set    HIGH, 0xffffff8000000000        // where TTBR1_EL1 maps what lies at 0, with T1SZ = 25
        .set    USER, 0x40000000                // what is added to an address for EL0: entry 2 maps RAM there

// The image: EL2 ------------------------------------------------------------------------------------------------

        .section .text
        .globl  _start
image:
_start:                                         // 11 instructions to the ERET
        adr     x0, vectors
        msr     vbar_el2, x0
        mov     x0, #0x80000000                 // HCR_EL2.RW: EL1 is AArch64
        msr     hcr_el2, x0
        mov     x0, #0x3c5                      // EL1h, all masked
        msr     spsr_el2, x0
        adr     x0, el1
        msr     elr_el2, x0
        msr     vttbr_el2, xzr
        isb
        eret

        .balign 2048
vectors:
        .balign 128                             // 0x000 to 0x180: not used
        .skip   0x200
        mrs     x4, elr_el2                     // 0x200: from EL2 itself. Skips the instruction, 4 instructions
        add     x4, x4, #4
        msr     elr_el2, x4
        eret
        .balign 128
        .skip   0x180
        cmp     x0, #1                          // 0x400: from EL1. Call 0: 4 instructions; 1: 14; 2: 13
        b.eq    door
        b.gt    nested
        eret
        .balign 2048
vectors_end:

door:                                           // 12 with the ERET, after 2
        adr     x1, table
        mov     x2, #1
store_door:
        str     x2, [x1]
store_door_end:
        str     xzr, [x1, #64]                  // beside the table: nobody's business
        dsb     ishst
        tlbi    ipas2e1is, x0
        dsb     ish
        tlbi    vmalle1is
        dsb     ish
        isb
        dc      civac, x1
        eret

nested:                                         // 6, and 4 in the vector, after 3
        mrs     x5, elr_el2
        mrs     x6, spsr_el2
        brk     #0
        msr     elr_el2, x5
        msr     spsr_el2, x6
        eret
second:                                         // where CPU 1 comes from CPU_ON: 3, which end in CPU_OFF
        movz    x0, #0x8400, lsl #16
        movk    x0, #2
        smc     #0
        .balign 64
table:  .quad   0
        .balign 64
        .quad   0
image_end:

// The host: EL1 -------------------------------------------------------------------------------------------------

        .macro  call number, marker
        movz    xzr, #\marker
        mov     x0, #\number
        hvc     #0
        .endm

        .macro  measured_from label
        isb
\label: mrs     x20, cntvct_el0
        .endm

        .macro  measured_until label
\label: mrs     x21, cntvct_el0
        sub     x0, x21, x20
        bl      print
        .endm

el1:
        adr     x0, el1_vectors
        msr     vbar_el1, x0
        isb
host:
        call    0, 1
        call    1, 2
        call    2, 3
        call    0, 1

        // 1 (the mrs) + 1 + 3 * 1000.
        measured_from loop_from
        mov     x0, #1000
1:      sub     x0, x0, #1
        nop
        cbnz    x0, 1b
        measured_until loop_until

        // 1 + 2 + 14 + 6: an exception to EL2, and accesses to a device in the middle of a block.
        measured_from visit_from
        mov     x0, #1
        hvc     #0
        mov     x1, #UART
        ldr     w0, [x1, #0x18]
        nop
        ldr     w0, [x1, #0x18]
        ldr     w0, [x1, #0x18]
        nop
        measured_until visit_until

        // CPU_ON of CPU 1, if there is one, twice; each time until AFFINITY_INFO says that it is off again.
        mov     x19, #2
1:      ldr     x0, =0xc4000003
        mov     x1, #1
        adr     x2, second
        smc     #0
        cbnz    x0, 3f
2:      ldr     x0, =0xc4000004
        mov     x1, #1
        mov     x2, #0
        smc     #0
        cmp     x0, #1
        b.ne    2b
        subs    x19, x19, #1
        b.ne    1b
3:
        // MMU on: T0SZ = T1SZ = 25 (39 bits, level 1 is first), 4 KiB granules, Normal memory cacheable.
        ldr     x0, =0xff04                     // MAIR: attribute 0 Device-nGnRE, 1 Normal
        msr     mair_el1, x0
        ldr     x0, =0x1b5193519
        msr     tcr_el1, x0
        adr     x0, level1
        msr     ttbr0_el1, x0
        msr     ttbr1_el1, x0
        isb
        mrs     x0, sctlr_el1
        orr     x0, x0, #1
        msr     sctlr_el1, x0
        isb
        ldr     x1, =HIGH
        adr     x0, el1_vectors
        add     x0, x0, x1
        msr     vbar_el1, x0
        adr     x0, high
        add     x0, x0, x1
        isb
        br      x0

high:                                           // now in the kernel's half
        // 1 + 1 + 1 + 4 + 1, of which the load does not complete: nothing is mapped there.
        measured_from fault_from
        mov     x1, #0xc0000000
        ldr     x0, [x1]
        nop
        measured_until fault_until
        adr     x30, 1f
        adr     x0, identity
        ldr     x1, =HIGH
        sub     x0, x0, x1
        br      x0
1:      mov     x0, #0x3c5                      // an ERET from EL1 to EL1
        msr     spsr_el1, x0
        adr     x0, 1f
        msr     elr_el1, x0
        isb
        eret
1:      ldr     x0, =identity
        adr     x30, 1f
        br      x0
1:      mov     x0, #0x3c0                      // and one to EL0
        msr     spsr_el1, x0
        ldr     x0, =user
        mov     x1, #USER
        add     x0, x0, x1
        msr     elr_el1, x0
        isb
        eret

identity:
        nop
        ret

user:
        nop
        svc     #0

// Prints x0; uses x0 to x3.
print:
        mov     x1, #UART
        mov     x2, #64
1:      sub     x2, x2, #4
        lsr     x3, x0, x2
        and     x3, x3, #15
        add     x3, x3, #'0'
        cmp     x3, #'9'
        b.ls    2f
        add     x3, x3, #'a' - '9' - 1
2:      str     w3, [x1]
        cbnz    x2, 1b
        mov     x3, #10
        str     w3, [x1]
        ret

        .balign 2048
el1_vectors:
        .skip   0x200                           // from EL1: skips the instruction, 4 instructions
        mrs     x4, elr_el1
        add     x4, x4, #4
        msr     elr_el1, x4
        eret
        .balign 128
        .skip   0x180
        mov     x0, #0x18                       // from EL0: SYS_EXIT with ADP_Stopped_ApplicationExit, status 0
        adr     x1, exit_block
        hlt     #0xf000
        b       .
        .balign 2048

        .balign 16
exit_block:
        .quad   0x20026, 0
        .ltorg

        .balign 4096
level1:
        .quad   0x0060000000000401              // 0: devices; execute never
        .quad   0x0000000040000705              // RAM for EL1; read, write, execute
        .quad   0x00000000400007c5              // RAM for EL0; read, execute
        .balign 4096
