// The exception vectors of EL1 (Arm ARM DDI 0487, D1.3.1.5). Every entry saves the whole general register file
// and what describes the exception, in the layout of the payload's `exception::Frame`.

.macro frame_save
    sub     sp, sp, #{FRAME_SIZE}
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    stp     x0, x1, [sp, #{FRAME_ELR}]
    mrs     x0, esr_el1
    mrs     x1, far_el1
    stp     x0, x1, [sp, #{FRAME_ESR}]
.endm

.macro vector handler, next
.balign 0x80
    frame_save
    mov     x0, sp
    bl      \handler
    b       \next
.endm

.macro vector_unexpected number
.balign 0x80
    frame_save
    mov     x0, sp
    mov     x1, #\number
    bl      {UNEXPECTED}
.endm

.section .text.vectors, "ax"
.balign 0x800
.global vectors
vectors:
    vector_unexpected 0
    vector_unexpected 1
    vector_unexpected 2
    vector_unexpected 3
    vector  {SYNC_EL1}, frame_restore
    vector  {IRQ}, frame_restore
    vector_unexpected 6
    vector_unexpected 7
    vector  {SYNC_EL0}, el0_return
    vector  {IRQ}, frame_restore
    vector_unexpected 10
    vector_unexpected 11
    vector_unexpected 12
    vector_unexpected 13
    vector_unexpected 14
    vector_unexpected 15
.balign 0x80

// Goes back to what a frame on the stack describes.
frame_restore:
    ldp     x0, x1, [sp, #{FRAME_ELR}]
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #{FRAME_SIZE}
    eret

// Runs code at EL0 until its first exception. x0: address of four registers for x0 to x3; x1: where to begin;
// x2: SPSR_EL1 to begin with. The exception's handler records what came of it and `el0_return` comes back here.
.global el0_enter
el0_enter:
    mrs     x3, daif
    msr     daifset, #0xf
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x3, [sp, #96]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldp     x2, x3, [x0, #16]
    ldp     x0, x1, [x0]
    eret

// The stack pointer is where `el0_enter` left it, below a frame.
el0_return:
    add     sp, sp, #{FRAME_SIZE}
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldr     x3, [sp, #96]
    ldp     x29, x30, [sp], #112
    msr     daif, x3
    ret

// Calls a snippet at EL1. x0: address of two registers for x0 and x1, which are written back; x1: where the
// snippet is. An exception in it, with x30 still pointing here, is recorded and comes back to `probe_return`.
.global probe_call
probe_call:
    stp     x29, x30, [sp, #-32]!
    str     x19, [sp, #16]
    mov     x19, x0
    mov     x9, x1
    ldp     x0, x1, [x19]
    blr     x9
.global probe_return
probe_return:
    stp     x0, x1, [x19]
    ldr     x19, [sp, #16]
    ldp     x29, x30, [sp], #32
    ret
