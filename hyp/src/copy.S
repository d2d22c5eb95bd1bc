// Reads of memory that may be broken.

    .section .text.copy, "ax"

// A fixup: if the instruction at `at` takes an external abort, EL2 goes on at `to`.
.macro copy_fixup at, to
    .pushsection .fixup, "a"
    .balign 4
    .long   \at - .
    .long   \to - .
    .popsection
.endm

// copy_piece(x0: from, x1: to): 64 bytes -> x0: 0, or from if it aborted. Clobbers x2 to x9.
    .global copy_piece
    .type copy_piece, %function
copy_piece:
1:  ldp     x2, x3, [x0]
    copy_fixup 1b, 5f
2:  ldp     x4, x5, [x0, #16]
    copy_fixup 2b, 5f
3:  ldp     x6, x7, [x0, #32]
    copy_fixup 3b, 5f
4:  ldp     x8, x9, [x0, #48]
    copy_fixup 4b, 5f
    stp     x2, x3, [x1]
    stp     x4, x5, [x1, #16]
    stp     x6, x7, [x1, #32]
    stp     x8, x9, [x1, #48]
    mov     x0, xzr
5:  ret
    .size copy_piece, . - copy_piece

    .purgem copy_fixup
