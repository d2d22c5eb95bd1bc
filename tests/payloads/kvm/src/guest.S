// A guest that does what a list says. It needs no stack, no MMU and no vectors, and runs wherever it lies.
//
// x0: the list, of entries of eight words: what to do, and up to four arguments. What it has to tell it stores to the
// device at REPORT.

.equ REPORT, 0x09000000

.section .rodata.guest, "a"
.balign 8
.global guest_start, guest_end
guest_start:
    mov     x19, x0
    movz    x20, #(REPORT >> 16), lsl #16
next:
    ldp     x9, x1, [x19]
    ldp     x2, x3, [x19, #16]
    ldr     x4, [x19, #32]
    add     x19, x19, #64
    adr     x10, table
    add     x10, x10, x9, lsl #2
    br      x10
table:
    b       off                 // 0
    b       load                // 1: bytes, address
    b       store               // 2: bytes, address, value
    b       call                // 3: x0, x1, x2, x3
    b       report              // 4: value
    b       wait                // 5
    b       timer               // 6: ticks from now
    b       timer_state         // 7
    b       spin                // 8
    b       fill                // 9: address, bytes, value
    b       check               // 10: address, bytes, value
    b       go                  // 11: list
    b       load_signed         // 12: address
    b       interrupts          // 13
    b       take                // 14: whether to wait
    b       send                // 15: what ICC_SGI1R_EL1 says
    b       fill_registers      // 16: a number
    b       check_registers     // 17: a number
    b       time                // 18
    b       acknowledge         // 19
    b       end                 // 20: the interrupt
    b       count_call          // 21: x0, x1, x2, x3
    b       count_store         // 22: address, value
    b       count_nothing       // 23
    b       interface           // 24

off:
    movz    x0, #0x8400, lsl #16
    movk    x0, #0x0008         // SYSTEM_OFF
    hvc     #0
spin:
    b       spin
load:
    cmp     x1, #2
    b.eq    2f
    b.hi    3f
    ldrb    w0, [x2]
    b       tell
2:  ldrh    w0, [x2]
    b       tell
3:  cmp     x1, #4
    b.ne    4f
    ldr     w0, [x2]
    b       tell
4:  ldr     x0, [x2]
    b       tell
load_signed:
    ldrsb   x0, [x1]
    b       tell
store:
    cmp     x1, #2
    b.eq    2f
    b.hi    3f
    strb    w3, [x2]
    b       next
2:  strh    w3, [x2]
    b       next
3:  cmp     x1, #4
    b.ne    4f
    str     w3, [x2]
    b       next
4:  str     x3, [x2]
    b       next
call:
    mov     x0, x1
    mov     x1, x2
    mov     x2, x3
    mov     x3, x4
    hvc     #0
    b       tell
report:
    mov     x0, x1
tell:
    str     x0, [x20]
    b       next
wait:
    wfi
    b       next
timer:
    isb
    mrs     x0, cntvct_el0
    add     x0, x0, x1
    msr     cntv_cval_el0, x0
    mov     x0, #1
    msr     cntv_ctl_el0, x0
    isb
    b       next
timer_state:
    isb
    mrs     x0, cntv_ctl_el0
    b       tell
fill:
    add     x2, x2, x1
1:  str     x3, [x1], #8
    cmp     x1, x2
    b.lo    1b
    b       next
check:
    add     x2, x2, x1
    mov     x0, #0
1:  ldr     x5, [x1], #8
    cmp     x5, x3
    cinc    x0, x0, ne
    cmp     x1, x2
    b.lo    1b
    b       tell
interrupts:
    mov     x0, #0xff
    msr     S3_0_C4_C6_0, x0    // ICC_PMR_EL1
    mov     x0, #1
    msr     S3_0_C12_C12_7, x0  // ICC_IGRPEN1_EL1
    isb
    b       next
take:
    cbz     x1, 1f
    wfi
1:  mrs     x0, S3_0_C12_C12_0  // ICC_IAR1_EL1
    cmp     x0, #1023
    b.eq    take
    cmp     x0, #27
    b.ne    2f
    msr     cntv_ctl_el0, xzr
    isb
2:  msr     S3_0_C12_C12_1, x0  // ICC_EOIR1_EL1
    b       tell
send:
    msr     S3_0_C12_C11_5, x1  // ICC_SGI1R_EL1
    isb
    b       next
// Each register but those that the program needs is a number more than the one before.
.macro each_register what
    .irp register, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30, sp
    \what\()_general \register
    .endr
    .irp register, tpidr_el0, tpidrro_el0, tpidr_el1, far_el1, elr_el1, sp_el0, mair_el1
    \what\()_system \register
    .endr
    .irp register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \what\()_vector \register
    .endr
.endm
.macro set_general register
    mov     \register, x1
    add     x1, x1, #16
.endm
.macro set_system register
    msr     \register, x1
    add     x1, x1, #16
.endm
.macro set_vector register
    mov     v\register\().d[0], x1
    mvn     x2, x1
    mov     v\register\().d[1], x2
    add     x1, x1, #16
.endm
.macro same_general register
    mov     x2, \register
    cmp     x2, x1
    cinc    x0, x0, ne
    add     x1, x1, #16
.endm
.macro same_system register
    mrs     x2, \register
    same_general x2
.endm
.macro same_vector register
    mov     x2, v\register\().d[0]
    cmp     x2, x1
    cinc    x0, x0, ne
    mvn     x3, x1
    mov     x2, v\register\().d[1]
    cmp     x2, x3
    cinc    x0, x0, ne
    add     x1, x1, #16
.endm
fill_registers:
    mrs     x2, cpacr_el1
    orr     x2, x2, #(3 << 20)
    msr     cpacr_el1, x2
    isb
    each_register set
    b       next
check_registers:
    mov     x0, #0
    each_register same
    b       tell
time:
    isb
    mrs     x0, cntvct_el0
    b       tell
acknowledge:
    mrs     x0, S3_0_C12_C12_0  // ICC_IAR1_EL1
    b       tell
end:
    msr     S3_0_C12_C12_1, x1  // ICC_EOIR1_EL1
    isb
    b       next
interface:
    mrs     x0, S3_0_C4_C6_0    // ICC_PMR_EL1
    mrs     x1, S3_0_C12_C12_3  // ICC_BPR1_EL1
    orr     x0, x0, x1, lsl #8
    mrs     x1, S3_0_C12_C12_7  // ICC_IGRPEN1_EL1
    orr     x0, x0, x1, lsl #16
    mrs     x1, S3_0_C12_C11_3  // ICC_RPR_EL1
    orr     x0, x0, x1, lsl #24
    b       tell
go:
    mov     x19, x1
    b       next
// How many ticks pass while it does one thing: ISBs keep what is counted between the two reads (Arm ARM DDI 0487,
// D12.1.2), as in `count_nothing`, whose ticks are to be taken off.
.macro count_begins
    isb
    mrs     x21, cntvct_el0
    isb
.endm
.macro count_ends
    isb
    mrs     x22, cntvct_el0
    isb
    sub     x0, x22, x21
    b       tell
.endm
count_call:
    mov     x0, x1
    mov     x1, x2
    mov     x2, x3
    mov     x3, x4
    count_begins
    hvc     #0
    isb
    mrs     x22, cntvct_el0
    isb
    mov     x23, x0
    sub     x0, x22, x21
    str     x0, [x20]
    mov     x0, x23
    b       tell
count_store:
    count_begins
    str     x2, [x1]
    count_ends
count_nothing:
    count_begins
    count_ends
guest_end:

.text
