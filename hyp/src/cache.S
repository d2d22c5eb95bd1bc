// Data cache maintenance and zeroing, by address. All follow the procedure call standard and are leaves.

    .section .text.cache, "ax"

// The smallest data cache line of this CPU, in bytes. CTR_EL0.DminLine is the log2 of its words.
.macro cache_line register, scratch
    mrs     \register, ctr_el0
    ubfx    \register, \register, #16, #4
    mov     \scratch, #4
    lsl     \register, \scratch, \register
.endm

// DC \operation for each x2 bytes of [x0, x1), sixteen at once as long as so many are left. If one aborts, EL2 goes on
// at \aborted with its address in x0. Clobbers x3.
.macro cache_steps operation, aborted
    b       12f
11:
.rept   16
10: dc      \operation, x0
    fixup 10b, \aborted
    add     x0, x0, x2
.endr
12: sub     x3, x1, x0
    cmp     x3, x2, lsl #4
    b.ge    11b
    b       14f
13: dc      \operation, x0
    fixup 13b, \aborted
    add     x0, x0, x2
14: cmp     x0, x1
    b.lo    13b
.endm

// cache_clean(x0: start, x1: end). Clobbers x0, x2, x3.
    .global cache_clean
    .type cache_clean, %function
cache_clean:
    cache_line x2, x3
    sub     x3, x2, #1
    bic     x0, x0, x3
1:  cmp     x0, x1
    b.hs    2f
    dc      civac, x0                       // not CVAC: Cortex-A53 errata 819472, 824069, 826319 and 827319
    add     x0, x0, x2
    b       1b
2:  dsb     sy
    ret
    .size cache_clean, . - cache_clean

// cache_clean_invalidate(x0: start, x1: end) -> x0: 0, or where it aborted. Clobbers x2, x3.
    .global cache_clean_invalidate
    .type cache_clean_invalidate, %function
cache_clean_invalidate:
    cache_line x2, x3
    sub     x3, x2, #1
    bic     x0, x0, x3
    cache_steps civac, 4f
    mov     x0, xzr
4:  dsb     sy
    ret
    .size cache_clean_invalidate, . - cache_clean_invalidate

// cache_zero(x0: start, x1: end), multiples of 4 KiB -> x0: 0, or where it aborted. Clobbers x2, x3.
// DCZID_EL0: bit 4 forbids DC ZVA, bits 3:0 are the log2 of the words in its block (at most 2 KiB).
    .global cache_zero
    .type cache_zero, %function
cache_zero:
    mrs     x2, dczid_el0
    tbnz    x2, #4, 6f
    and     x2, x2, #0xf
    mov     x3, #4
    lsl     x2, x3, x2
    cache_steps zva, 8f
    mov     x0, xzr
    ret
6:  stp     xzr, xzr, [x0]
    fixup 6b, 8f
7:  stp     xzr, xzr, [x0, #16]
    fixup 7b, 8f
    add     x0, x0, #32
    cmp     x0, x1
    b.lo    6b
    mov     x0, xzr
8:  ret
    .size cache_zero, . - cache_zero

    .purgem fixup
    .purgem cache_line
    .purgem cache_steps
