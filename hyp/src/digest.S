// SHA-256 by the CPU's own instructions (FEAT_SHA256; FIPS 180-4).

    .arch_extension fp
    .arch_extension simd
    .arch_extension sha2

    .section .rodata.digest, "a"

// FIPS 180-4, 4.2.2.
    .balign 16
digest_constants:
    .word   0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5
    .word   0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5
    .word   0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3
    .word   0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174
    .word   0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc
    .word   0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da
    .word   0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7
    .word   0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967
    .word   0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13
    .word   0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85
    .word   0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3
    .word   0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070
    .word   0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5
    .word   0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3
    .word   0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208
    .word   0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2

    .section .text.digest, "ax"

// Four rounds with the words in V\w0.
.macro digest_rounds w0
    ldr     q8, [x3], #16
    add     v8.4s, v8.4s, v\w0\().4s
    mov     v9.16b, v2.16b
    sha256h q2, q3, v8.4s
    sha256h2 q3, q9, v8.4s
.endm

// Four rounds with the words in V\w0, which become those of sixteen rounds on, out of the sixteen there are.
.macro digest_rounds_and_words w0, w1, w2, w3
    ldr     q8, [x3], #16
    add     v8.4s, v8.4s, v\w0\().4s
    sha256su0 v\w0\().4s, v\w1\().4s
    mov     v9.16b, v2.16b
    sha256h q2, q3, v8.4s
    sha256h2 q3, q9, v8.4s
    sha256su1 v\w0\().4s, v\w2\().4s, v\w3\().4s
.endm

// digest_blocks(x0: the eight words of the state, x1: from, x2: how many blocks of 64 bytes, at least one) -> x0: 0, or the
// address of the block that aborted; then the state is as it was. All addresses are multiples of 16. Clobbers x1 to x3 and
// V0 to V9.
    .global digest_blocks
    .type digest_blocks, %function
digest_blocks:
    ldp     q0, q1, [x0]
1:  ldp     q4, q5, [x1]
    fixup 1b, 3f
2:  ldp     q6, q7, [x1, #32]
    fixup 2b, 3f
    rev32   v4.16b, v4.16b
    rev32   v5.16b, v5.16b
    rev32   v6.16b, v6.16b
    rev32   v7.16b, v7.16b
    mov     v2.16b, v0.16b
    mov     v3.16b, v1.16b
    adrp    x3, digest_constants
    add     x3, x3, :lo12:digest_constants
.rept 3
    digest_rounds_and_words 4, 5, 6, 7
    digest_rounds_and_words 5, 6, 7, 4
    digest_rounds_and_words 6, 7, 4, 5
    digest_rounds_and_words 7, 4, 5, 6
.endr
    digest_rounds 4
    digest_rounds 5
    digest_rounds 6
    digest_rounds 7
    add     v0.4s, v0.4s, v2.4s
    add     v1.4s, v1.4s, v3.4s
    add     x1, x1, #64
    subs    x2, x2, #1
    b.ne    1b
    stp     q0, q1, [x0]
    mov     x0, xzr
    ret
3:  mov     x0, x1
    ret
    .size digest_blocks, . - digest_blocks

    .purgem digest_rounds
    .purgem digest_rounds_and_words
    .purgem fixup

    .arch_extension nosha2
    .arch_extension nosimd
    .arch_extension nofp
