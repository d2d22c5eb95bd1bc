// EL2's exception vectors and the way between the host and Rust.
//
// The host's exits: the stack is empty then (SP at its top), so the frame is always at the same place. A hypercall
// or an SMC saves what Rust may clobber, any other exit saves everything, because it may have to read or write any
// register. A hypercall's x0 to x6 are handed on as they are: only its answer goes to the frame. Floating point is
// never touched at EL2.
//
// There is one set of vectors for each way to keep what the host trained from steering EL2 (crate::hardening);
// they differ in what the entries from a lower level begin with. Each has a twin for as long as a guest is loaded: a
// guest's exits go back to where EL2 entered it, with its registers in its context.

    .section .text.vectors, "ax"

// Makes room for a `HostFrame` below SP and saves x4 to x18, x29 and x30 there.
.macro vectors_save_caller
    sub     sp, sp, #{FRAME_SIZE}
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    str     x18, [sp, #144]
    stp     x29, x30, [sp, #232]
.endm

// Saves x0 to x3 in the frame.
.macro vectors_save_arguments
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
.endm

.macro vectors_save_callee
    stp     x19, x20, [sp, #152]
    stp     x21, x22, [sp, #168]
    stp     x23, x24, [sp, #184]
    stp     x25, x26, [sp, #200]
    stp     x27, x28, [sp, #216]
.endm

.macro vectors_restore_callee
    ldp     x19, x20, [sp, #152]
    ldp     x21, x22, [sp, #168]
    ldp     x23, x24, [sp, #184]
    ldp     x25, x26, [sp, #200]
    ldp     x27, x28, [sp, #216]
.endm

// Restores what vectors_save_caller saved and goes back. Nothing is fetched or loaded past the ERET on speculation
// (some CPUs would): DSB and ISB are what SB is made of where it does not exist, and are never reached.
.macro vectors_return
    ldp     x29, x30, [sp, #232]
    ldr     x18, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #{FRAME_SIZE}
    eret
    dsb     nsh
    isb
.endm

// What the entries of each set begin with. All of them leave every register as it was.
.macro vectors_guard_none
.endm

// A loop of taken branches that fills the branch history. Its length depends on the CPU.
.macro vectors_guard_loop
    stp     x0, x1, [sp, #-16]!
    mrs     x0, tpidr_el2
    ldr     x0, [x0, #{BRANCH_LOOPS}]
1:  b       2f
2:  subs    x0, x0, #1
    b.ne    1b
    dsb     nsh
    isb
    ldp     x0, x1, [sp], #16
.endm

// CLRBHB, which is a hint to assemblers that do not know it.
.macro vectors_guard_clear
    hint    #22
    isb
.endm

// The firmware's SMCCC_ARCH_WORKAROUND_1 or _3 (Arm DEN0028, 7.5 and 7.7): they change x0 to x3 at most.
.macro vectors_guard_firmware function
    stp     x0, x1, [sp, #-32]!
    stp     x2, x3, [sp, #16]
    mov     w0, #\function
    smc     #0
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #32
.endm

.macro vectors_guard_firmware_1
    vectors_guard_firmware {ARCH_WORKAROUND_1}
.endm

.macro vectors_guard_firmware_3
    vectors_guard_firmware {ARCH_WORKAROUND_3}
.endm

.macro vectors_from_hyp kind
    .balign 0x80
    sub     sp, sp, #{FRAME_SIZE}
    // Stacks lie in the upper half of 16 KiB, above a guard as large: bit 13 of an address inside is 1. With
    // SP - frame in the guard the store below would fault, and again, for ever. SP is swapped with x0 and back.
    add     sp, sp, x0
    sub     x0, sp, x0
    tbz     x0, #{STACK_BIT}, 3f
    sub     x0, sp, x0
    sub     sp, sp, x0
    stp     x0, x1, [sp]
    mov     x1, #\kind
    b       vectors_hyp
3:  mov     x1, #\kind
    b       vectors_overflow
.endm

.macro vectors_from_host guard, target
    .balign 0x80
    vectors_guard_\guard
    b       \target
.endm

// A guest's exit. SP is where `vectors_enter_guest` left it.
.macro vectors_from_guest guard, kind
    .balign 0x80
    vectors_guard_\guard
    stp     x0, x1, [sp, #{GUEST_SCRATCH}]
    mov     x1, #\kind
    b       vectors_guest_exit
.endm

// The entries for exceptions at EL2, with which each set begins.
.macro vectors_set_begin name
    .balign 0x800
    .global \name
\name:
    // From EL2 with SP_EL0: EL2 never selects it.
    vectors_from_hyp {KIND_SYNC}
    vectors_from_hyp {KIND_IRQ}
    vectors_from_hyp {KIND_FIQ}
    vectors_from_hyp {KIND_SERROR}
    // From EL2.
    vectors_from_hyp {KIND_SYNC}
    vectors_from_hyp {KIND_IRQ}
    vectors_from_hyp {KIND_FIQ}
    vectors_from_hyp {KIND_SERROR}
.endm

// The entries from an AArch32 EL1, with which each set ends: HCR_EL2.RW is 1, so never.
.macro vectors_set_end
    vectors_from_host none, vectors_host_unexpected
    vectors_from_host none, vectors_host_unexpected
    vectors_from_host none, vectors_host_unexpected
    vectors_from_host none, vectors_host_unexpected
.endm

.macro vectors_set guard
    vectors_set_begin vectors_\guard
    // From the host; EL1 is AArch64.
    vectors_from_host \guard, vectors_host_sync
    vectors_from_host \guard, vectors_host_unexpected
    vectors_from_host \guard, vectors_host_unexpected
    vectors_from_host \guard, vectors_host_unexpected
    vectors_set_end
    vectors_set_begin vectors_guest_\guard
    // From the guest.
    vectors_from_guest \guard, {KIND_SYNC}
    vectors_from_guest \guard, {KIND_IRQ}
    vectors_from_guest \guard, {KIND_FIQ}
    vectors_from_guest \guard, {KIND_SERROR}
    vectors_set_end
.endm

vectors_set none
vectors_set loop
vectors_set clear
vectors_set firmware_1
vectors_set firmware_3

// A synchronous exit of the host.
    .balign 64
vectors_host_sync:
    vectors_save_caller
    mrs     x7, esr_el2
    mov     x9, #{HVC_0_SYNDROME}
    mov     x29, xzr                        // a backtrace of EL2 ends here
    cmp     x7, x9
    b.ne    4f
    mov     x8, sp                          // the answer goes to x0 to x3 of the frame
    bl      {host_hypercall}
    vectors_return
4:  vectors_save_arguments
    mov     x0, sp
    mov     x1, x7
    lsr     x9, x7, #26
    cmp     x9, #{EC_SMC64}
    b.ne    5f
    bl      {host_smc}
    vectors_return
5:  vectors_save_callee
    bl      {host_exit}
    vectors_restore_callee
    vectors_return

// An interrupt or SError of the host: they are routed to EL1, so something is badly wrong.
vectors_host_unexpected:
    vectors_save_caller
    vectors_save_arguments
    vectors_save_callee
    mov     x0, sp
    mov     x29, xzr
    bl      {host_unexpected}
    b       .

// vectors_enter_guest(x0: the guest's context) -> x0: the kind of its exit. The guest is loaded.
//
// The frame: x29, x30 and x19 to x28 of EL2, room for x0 and x1 of the guest, its context. Nothing of EL2's stays in
// a register, and nothing of the guest's in one that must be kept.
    .balign 64
    .global vectors_enter_guest
    .type vectors_enter_guest, %function
vectors_enter_guest:
    stp     x29, x30, [sp, #-{GUEST_FRAME}]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x0, [sp, #{GUEST_CONTEXT}]
    ldp     x1, x2, [x0, #{CONTEXT_PC}]
    msr     elr_el2, x1
    msr     spsr_el2, x2
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret
    dsb     nsh
    isb
vectors_guest_exit:
    ldr     x0, [sp, #{GUEST_CONTEXT}]
    stp     x2, x3, [x0, #16]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    str     x30, [x0, #240]
    ldp     x2, x3, [sp, #{GUEST_SCRATCH}]
    stp     x2, x3, [x0]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #{CONTEXT_PC}]
    mov     x0, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #{GUEST_FRAME}
    ret
    .size vectors_enter_guest, . - vectors_enter_guest

// An exception at EL2 itself. x0 and x1 are in the frame, x1 is its kind.
vectors_hyp:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    str     x18, [sp, #144]
    stp     x29, x30, [sp, #232]
    vectors_save_callee
    mov     x0, sp
    bl      {hyp_exception}
    vectors_restore_callee
    vectors_return

// The stack ran over. x0: SP - frame; SP - x0: the old x0; x1: the kind. The report needs a stack, and nothing
// comes back from here, so the old x1 and the host's SP_EL0 may go.
vectors_overflow:
    msr     sp_el0, x0
    mrs     x0, tpidr_el2
    cbz     x0, 6f
    add     x0, x0, #{EMERGENCY_OFFSET}
    add     x0, x0, #{EMERGENCY_SIZE}
    mov     sp, x0
    sub     sp, sp, #{FRAME_SIZE}
    mrs     x0, sp_el0
    stp     x0, x1, [sp]
    stp     x29, x30, [sp, #232]
    vectors_save_callee
    mov     x2, x0
    mov     x0, sp
    bl      {hyp_overflow}
6:  wfe
    b       6b

// During the boot, before a CPU has its data: everything is a panic, on the stack that there is.
.macro vectors_boot_entry kind
    .balign 0x80
    stp     x0, x1, [sp, #-{FRAME_SIZE}]!
    mov     x1, #\kind
    b       vectors_boot_common
.endm

    .balign 0x800
    .global vectors_boot
vectors_boot:
.rept 4
    vectors_boot_entry {KIND_SYNC}
    vectors_boot_entry {KIND_IRQ}
    vectors_boot_entry {KIND_FIQ}
    vectors_boot_entry {KIND_SERROR}
.endr

vectors_boot_common:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    str     x18, [sp, #144]
    stp     x29, x30, [sp, #232]
    vectors_save_callee
    mov     x0, sp
    bl      {hyp_exception}
    vectors_restore_callee
    vectors_return

// vectors_enter_host(x0, x1: top of this CPU's stack). ELR_EL2, SPSR_EL2 and the rest of the context are set. The
// host starts with x0 and else zeros: no value of EL2's gets out. Never returns.
    .global vectors_enter_host
    .type vectors_enter_host, %function
vectors_enter_host:
    mov     sp, x1
.irp register, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    mov     x\register, xzr
.endr
    eret
    dsb     nsh
    isb
    .size vectors_enter_host, . - vectors_enter_host

    .purgem vectors_save_caller
    .purgem vectors_save_arguments
    .purgem vectors_save_callee
    .purgem vectors_restore_callee
    .purgem vectors_return
    .purgem vectors_guard_none
    .purgem vectors_guard_loop
    .purgem vectors_guard_clear
    .purgem vectors_guard_firmware
    .purgem vectors_guard_firmware_1
    .purgem vectors_guard_firmware_3
    .purgem vectors_from_hyp
    .purgem vectors_from_host
    .purgem vectors_from_guest
    .purgem vectors_set_begin
    .purgem vectors_set_end
    .purgem vectors_set
    .purgem vectors_boot_entry
