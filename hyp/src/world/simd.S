// The vector registers, which no compiled code of EL2 touches.

    .arch_extension fp
    .arch_extension simd
    .arch_extension sve

    .section .text.simd, "ax"

// simd_save(x0: room for V0 to V31).
    .global simd_save
    .type simd_save, %function
simd_save:
    stp     q0, q1, [x0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x0, #64]
    stp     q6, q7, [x0, #96]
    stp     q8, q9, [x0, #128]
    stp     q10, q11, [x0, #160]
    stp     q12, q13, [x0, #192]
    stp     q14, q15, [x0, #224]
    stp     q16, q17, [x0, #256]
    stp     q18, q19, [x0, #288]
    stp     q20, q21, [x0, #320]
    stp     q22, q23, [x0, #352]
    stp     q24, q25, [x0, #384]
    stp     q26, q27, [x0, #416]
    stp     q28, q29, [x0, #448]
    stp     q30, q31, [x0, #480]
    ret
    .size simd_save, . - simd_save

// simd_load(x0: V0 to V31). With SVE, the upper parts of Z0 to Z31 become zero.
    .global simd_load
    .type simd_load, %function
simd_load:
    ldp     q0, q1, [x0]
    ldp     q2, q3, [x0, #32]
    ldp     q4, q5, [x0, #64]
    ldp     q6, q7, [x0, #96]
    ldp     q8, q9, [x0, #128]
    ldp     q10, q11, [x0, #160]
    ldp     q12, q13, [x0, #192]
    ldp     q14, q15, [x0, #224]
    ldp     q16, q17, [x0, #256]
    ldp     q18, q19, [x0, #288]
    ldp     q20, q21, [x0, #320]
    ldp     q22, q23, [x0, #352]
    ldp     q24, q25, [x0, #384]
    ldp     q26, q27, [x0, #416]
    ldp     q28, q29, [x0, #448]
    ldp     q30, q31, [x0, #480]
    ret
    .size simd_load, . - simd_load

// simd_vector_bytes() -> x0: bytes of a Z register at EL2.
    .global simd_vector_bytes
    .type simd_vector_bytes, %function
simd_vector_bytes:
    rdvl    x0, #1
    ret
    .size simd_vector_bytes, . - simd_vector_bytes

// Z0 to Z31 at x0, and behind them P0 to P15 and the FFR at x1: 32 Z registers are as long as 32 VL.
.macro simd_sve_rows operation
.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \operation z\number, [x0, #\number, mul vl]
.endr
.irp number, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \operation p\number, [x1, #\number, mul vl]
.endr
.endm

// simd_sve_save(x0: room for Z0 to Z31, P0 to P15 and the FFR). Clobbers x1 and P0. Not in streaming mode, in which
// there may be no FFR.
    .global simd_sve_save
    .type simd_sve_save, %function
simd_sve_save:
    addvl   x1, x0, #16
    addvl   x1, x1, #16
    simd_sve_rows str
    str     p0, [x1]
    rdffr   p0.b
    str     p0, [x1, #16, mul vl]
    ret
    .size simd_sve_save, . - simd_sve_save

// simd_sve_load(x0: what simd_sve_save saved). Clobbers x1.
    .global simd_sve_load
    .type simd_sve_load, %function
simd_sve_load:
    addvl   x1, x0, #16
    addvl   x1, x1, #16
    ldr     p0, [x1, #16, mul vl]
    wrffr   p0.b
    ldr     p0, [x1]
    simd_sve_rows ldr
    ret
    .size simd_sve_load, . - simd_sve_load

    .purgem simd_sve_rows

    .arch_extension nosve
    .arch_extension nosimd
    .arch_extension nofp
