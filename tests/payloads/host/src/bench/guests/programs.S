// What guests do while they are counted, each thing for ever. Copied to where a guest begins, so it goes by its own
// addresses only. `programs_mark` stands for the marker of the benchmark, which is put there in the copy.

// A call of a service of the host's, with x1 to x6 as they are. Its number comes from the crate hyp-abi.
.macro programs_report
    movz    x0, #{SERVICE_LOW}
    movk    x0, #{SERVICE_HIGH}, lsl #16
    hvc     #0
.endm

.macro programs_mark
    movz    xzr, #{PLACEHOLDER}
.endm

.macro programs_unmark
    movz    xzr, #0
.endm

// The counter, as the host reads it.
.macro programs_counter into
    isb
    mrs     \into, cntvct_el0
    isb
.endm

    .section .text.bench_programs, "ax"
    .balign 4
    .global programs_begin
programs_begin:

// Makes the call that the answer to its report says: x0 to x2, and marked if x3 is not 0. Reports x0 to x3 of the call
// in x1 to x4, and the ticks that it took in x5.
    .global programs_call
programs_call:
1:  programs_report
    mov     x11, x3
    mov     x3, xzr
    cbz     x11, 2f
    programs_mark
2:  programs_counter x9
    hvc     #0
    programs_counter x10
    programs_unmark
    sub     x5, x10, x9
    mov     x4, x3
    mov     x3, x2
    mov     x2, x1
    mov     x1, x0
    b       1b

// The same for a call that takes an address and a number of pages and says in x1 how many are done, until all are.
// Reports x0 in x1, how many are left in x2, and the ticks in x5.
    .global programs_range
programs_range:
1:  programs_report
    mov     x11, x3
    mov     x12, x0
    mov     x13, x1
    mov     x14, x2
    cbz     x11, 2f
    programs_mark
2:  programs_counter x9
3:  mov     x0, x12
    mov     x1, x13
    mov     x2, x14
    mov     x3, xzr
    hvc     #0
    cbnz    x0, 4f
    cbz     x1, 4f
    add     x13, x13, x1, lsl #12
    subs    x14, x14, x1
    b.ne    3b
4:  programs_counter x10
    programs_unmark
    sub     x5, x10, x9
    mov     x1, x0
    mov     x2, x14
    b       1b

// Reports, and nothing else.
    .global programs_report_only
programs_report_only:
1:  programs_report
    b       1b

// The same. What comes after an answer is not marked, and the next report is if x0 of the answer is not 0.
    .global programs_halves
programs_halves:
1:  programs_report
    programs_unmark
    cbz     x0, 1b
    programs_mark
    b       1b

// Waits.
    .global programs_wait
programs_wait:
1:  wfi
    b       1b

// Loads from one page after the other, from the one at x0 on.
    .global programs_touch
programs_touch:
1:  ldr     x1, [x0]
    add     x0, x0, #4096
    b       1b

    .global programs_end
programs_end:

    .purgem programs_report
    .purgem programs_mark
    .purgem programs_unmark
    .purgem programs_counter
