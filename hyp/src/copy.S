// Reads of memory that may be broken.

    .section .text.copy, "ax"

// copy_piece(x0: from, x1: to): 64 bytes -> x0: 0, or from if it aborted. Clobbers x2 to x9.
    .global copy_piece
    .type copy_piece, %function
copy_piece:
1:  ldp     x2, x3, [x0]
    fixup 1b, 5f
2:  ldp     x4, x5, [x0, #16]
    fixup 2b, 5f
3:  ldp     x6, x7, [x0, #32]
    fixup 3b, 5f
4:  ldp     x8, x9, [x0, #48]
    fixup 4b, 5f
    stp     x2, x3, [x1]
    stp     x4, x5, [x1, #16]
    stp     x6, x7, [x1, #32]
    stp     x8, x9, [x1, #48]
    mov     x0, xzr
5:  ret
    .size copy_piece, . - copy_piece

// name(x0: to, x1: from, x2: words) -> x0: 0, or 1 if it aborted at one of the labels. Clobbers x1 to x4. Each word is
// one access: a pair is two (Arm ARM DDI 0487, B2.2.1).
.macro copy_words name, pair, single
    .global \name
    .type \name, %function
\name:
    subs    x2, x2, #2
    b.lo    3f
1:  ldp     x3, x4, [x1], #16
2:  stp     x3, x4, [x0], #16
    fixup \pair, 7f
    subs    x2, x2, #2
    b.hs    1b
3:  tbz     x2, #0, 6f
4:  ldr     x3, [x1]
5:  str     x3, [x0]
    fixup \single, 7f
6:  mov     x0, xzr
    ret
7:  mov     x0, #1
    ret
    .size \name, . - \name
.endm

copy_words copy_shared_in, 1b, 4b
copy_words copy_shared_out, 2b, 5b

    .purgem copy_words
    .purgem fixup
