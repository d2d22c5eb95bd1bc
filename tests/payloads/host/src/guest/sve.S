// The SVE state of the host. Every register has a slot of the greatest length: 256 bytes, and 32 for a predicate.

.arch_extension sve

.section .text.sve, "ax"

// x0: ZCR_EL1.LEN. Returns the bytes of a vector.
.global sve_enable
sve_enable:
    mrs     x1, cpacr_el1
    orr     x1, x1, #(3 << 16)      // ZEN
    msr     cpacr_el1, x1
    isb
    msr     s3_0_c1_c2_0, x0        // ZCR_EL1
    isb
    rdvl    x0, #1
    ret

.macro each_vector instruction
    mov     x1, x0
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \instruction z\number, [x1]
    add     x1, x1, #256
    .endr
.endm

.macro each_predicate instruction
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \instruction p\number, [x1]
    add     x1, x1, #32
    .endr
.endm

// x0: address of the registers.
.global sve_load
sve_load:
    add     x1, x0, #{P}
    add     x1, x1, #(16 * 32)
    ldr     p0, [x1]
    wrffr   p0.b
    add     x1, x0, #{P}
    each_predicate ldr
    each_vector ldr
    mov     x1, #{CONTROL}
    add     x1, x1, x0
    ldp     x2, x3, [x1]
    msr     fpsr, x2
    msr     fpcr, x3
    ret

.global sve_store
sve_store:
    mov     x1, #{CONTROL}
    add     x1, x1, x0
    mrs     x2, fpsr
    mrs     x3, fpcr
    stp     x2, x3, [x1]
    add     x1, x0, #{P}
    each_predicate str
    rdffr   p0.b
    str     p0, [x1]
    each_vector str
    msr     fpcr, xzr
    ret
