// memcpy and memset, which the compiler calls where values move. The ones that come with Rust go word by word.
//
// Words are only read and written where they are aligned: EL2 also runs with its MMU off, when all memory is a device's
// (Arm ARM DDI 0487, D8.2.12). No register but the argument and scratch registers of the procedure call standard.

    .section .text.memory, "ax"

// memcpy(x0: to, x1: from, x2: bytes) -> x0. The two do not overlap.
    .balign 16
    .global memcpy
    .type memcpy, %function
memcpy:
    mov     x3, x0
    orr     x4, x0, x1
    tst     x4, #7
    b.ne    5f
    subs    x2, x2, #32
    b.lo    2f
1:  ldp     x4, x5, [x1], #32
    ldp     x6, x7, [x1, #-16]
    subs    x2, x2, #32
    stp     x4, x5, [x3], #32
    stp     x6, x7, [x3, #-16]
    b.hs    1b
// x2 is 32 less than what is left, and bits 4:0 are as they would be without that.
2:  tbz     x2, #4, 3f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x3], #16
3:  tbz     x2, #3, 4f
    ldr     x4, [x1], #8
    str     x4, [x3], #8
4:  and     x2, x2, #7
5:  cbz     x2, 7f
6:  ldrb    w4, [x1], #1
    subs    x2, x2, #1
    strb    w4, [x3], #1
    b.ne    6b
7:  ret
    .size memcpy, . - memcpy

// memset(x0: to, w1: the byte, x2: bytes) -> x0.
    .balign 16
    .global memset
    .type memset, %function
memset:
    mov     x3, x0
    tst     x0, #7
    b.ne    5f
    and     x4, x1, #0xff
    orr     x4, x4, x4, lsl #8
    orr     x4, x4, x4, lsl #16
    orr     x4, x4, x4, lsl #32
    subs    x2, x2, #32
    b.lo    2f
1:  stp     x4, x4, [x3], #32
    subs    x2, x2, #32
    stp     x4, x4, [x3, #-16]
    b.hs    1b
// As in memcpy.
2:  tbz     x2, #4, 3f
    stp     x4, x4, [x3], #16
3:  tbz     x2, #3, 4f
    str     x4, [x3], #8
4:  and     x2, x2, #7
5:  cbz     x2, 7f
6:  strb    w1, [x3], #1
    subs    x2, x2, #1
    b.ne    6b
7:  ret
    .size memset, . - memset
