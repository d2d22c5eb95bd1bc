// Two programs for a guest, which find a block by the stack pointer: one stores every register of the guest's to it, one
// loads them all from it. Each then waits. Copied to where the guest begins, so they go by their own addresses only.
//
// The block: x0 to x30; from {VECTORS} on V0 to V31; from {WORDS} on words, by their number below.

.arch_extension fp
.arch_extension simd

// Every register that is a word: its number, its name.
.macro all_registers_words do
    \do     2, s3_3_c4_c4_1                 // FPSR
    \do     3, s3_3_c4_c4_0                 // FPCR
    \do     4, sp_el0
    \do     5, elr_el1
    \do     6, spsr_el1
    \do     7, sctlr_el1
    \do     9, ttbr0_el1
    \do     10, ttbr1_el1
    \do     11, tcr_el1
    \do     12, esr_el1
    \do     13, afsr0_el1
    \do     14, afsr1_el1
    \do     15, far_el1
    \do     16, mair_el1
    \do     17, amair_el1
    \do     18, vbar_el1
    \do     19, contextidr_el1
    \do     20, tpidr_el0
    \do     21, tpidrro_el0
    \do     22, tpidr_el1
    \do     23, par_el1
    \do     24, cntkctl_el1
    \do     25, csselr_el1
    \do     27, cntv_cval_el0
    \do     28, cntv_ctl_el0
    \do     29, s3_0_c4_c6_0                // ICC_PMR_EL1
    \do     30, s3_0_c12_c12_4              // ICC_CTLR_EL1
    \do     31, s3_0_c12_c8_3               // ICC_BPR0_EL1
    \do     32, s3_0_c12_c12_3              // ICC_BPR1_EL1
    \do     33, s3_0_c12_c12_6              // ICC_IGRPEN0_EL1
    \do     34, s3_0_c12_c12_7              // ICC_IGRPEN1_EL1
    \do     35, s3_0_c12_c8_4               // ICC_AP0R0_EL1
    \do     36, s3_0_c12_c9_0               // ICC_AP1R0_EL1
.endm

.macro all_registers_keys do
    \do     40, s3_0_c2_c1_0
    \do     41, s3_0_c2_c1_1
    \do     42, s3_0_c2_c1_2
    \do     43, s3_0_c2_c1_3
    \do     44, s3_0_c2_c2_0
    \do     45, s3_0_c2_c2_1
    \do     46, s3_0_c2_c2_2
    \do     47, s3_0_c2_c2_3
    \do     48, s3_0_c2_c3_0
    \do     49, s3_0_c2_c3_1
.endm

.macro all_registers_store number, register
    mrs     x0, \register
    str     x0, [sp, #{WORDS} + 8 * \number]
.endm

.macro all_registers_load number, register
    ldr     x0, [sp, #{WORDS} + 8 * \number]
    msr     \register, x0
.endm

// x2 to x30.
.macro all_registers_general pair, single
    \pair   x2, x3, [sp, #16]
    \pair   x4, x5, [sp, #32]
    \pair   x6, x7, [sp, #48]
    \pair   x8, x9, [sp, #64]
    \pair   x10, x11, [sp, #80]
    \pair   x12, x13, [sp, #96]
    \pair   x14, x15, [sp, #112]
    \pair   x16, x17, [sp, #128]
    \pair   x18, x19, [sp, #144]
    \pair   x20, x21, [sp, #160]
    \pair   x22, x23, [sp, #176]
    \pair   x24, x25, [sp, #192]
    \pair   x26, x27, [sp, #208]
    \pair   x28, x29, [sp, #224]
    \single x30, [sp, #240]
.endm

.macro all_registers_vectors pair
    \pair   q0, q1, [sp, #{VECTORS} + 0]
    \pair   q2, q3, [sp, #{VECTORS} + 32]
    \pair   q4, q5, [sp, #{VECTORS} + 64]
    \pair   q6, q7, [sp, #{VECTORS} + 96]
    \pair   q8, q9, [sp, #{VECTORS} + 128]
    \pair   q10, q11, [sp, #{VECTORS} + 160]
    \pair   q12, q13, [sp, #{VECTORS} + 192]
    \pair   q14, q15, [sp, #{VECTORS} + 224]
    \pair   q16, q17, [sp, #{VECTORS} + 256]
    \pair   q18, q19, [sp, #{VECTORS} + 288]
    \pair   q20, q21, [sp, #{VECTORS} + 320]
    \pair   q22, q23, [sp, #{VECTORS} + 352]
    \pair   q24, q25, [sp, #{VECTORS} + 384]
    \pair   q26, q27, [sp, #{VECTORS} + 416]
    \pair   q28, q29, [sp, #{VECTORS} + 448]
    \pair   q30, q31, [sp, #{VECTORS} + 480]
.endm

    .section .text.all_registers, "ax"
    .balign 8
    .global all_registers_begin
all_registers_begin:

    .global all_registers_report
all_registers_report:
    stp     x0, x1, [sp]
    all_registers_store 0, nzcv
    all_registers_store 1, daif
    all_registers_general stp, str
    all_registers_words all_registers_store
    all_registers_store 8, cpacr_el1
    all_registers_store 26, mpidr_el1
    isb
    all_registers_store 37, cntvct_el0
    isb
    all_registers_store 38, cntpct_el0
    isb
    all_registers_store 39, cntvct_el0
    ldr     x0, [sp, #{WORDS} + 8 * {HAS_KEYS}]
    cbz     x0, 1f
    all_registers_keys all_registers_store
1:  all_registers_vectors stp
    wfi
    .global all_registers_reported
all_registers_reported:
    b       .

    .balign 8
    .global all_registers_load_all
all_registers_load_all:
    all_registers_load 8, cpacr_el1
    isb
    all_registers_load 0, nzcv
    all_registers_words all_registers_load
    ldr     x0, [sp, #{WORDS} + 8 * {HAS_KEYS}]
    cbz     x0, 1f
    all_registers_keys all_registers_load
1:  all_registers_vectors ldp
    all_registers_general ldp, ldr
    ldp     x0, x1, [sp]
    wfi
    .global all_registers_loaded
all_registers_loaded:
    b       .

    .balign 8
    .global all_registers_call
all_registers_call:
    svc     #0

    .balign 8
    .global all_registers_end
all_registers_end:
