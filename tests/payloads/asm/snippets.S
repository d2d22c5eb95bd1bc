// One access each, in the order of `payload_protocol::Access`: address in x0, data in x1. Every snippet has a slot of 16 bytes,
// once with a return for EL1 and once with a call upwards for EL0.

.macro snippet end, instruction:vararg
.balign 16
    \instruction
    \end
.endm

.macro snippets end
    snippet "\end", ldrb w1, [x0]
    snippet "\end", ldrh w1, [x0]
    snippet "\end", ldr w1, [x0]
    snippet "\end", ldr x1, [x0]
    snippet "\end", ldp x1, x2, [x0]
    snippet "\end", ldr x1, [x0], #8
    snippet "\end", ldxr x1, [x0]
    snippet "\end", ldar x1, [x0]
    snippet "\end", .inst 0x3dc00000        // ldr q0, [x0]
    snippet "\end", strb w1, [x0]
    snippet "\end", strh w1, [x0]
    snippet "\end", str w1, [x0]
    snippet "\end", str x1, [x0]
    snippet "\end", stp x1, x1, [x0]
    snippet "\end", str x1, [x0], #8
    snippet "\end", stlr x1, [x0]
    snippet "\end", .inst 0x3d800000        // str q0, [x0]
    snippet "\end", dc zva, x0
.balign 16
.endm

.section .text.snippets, "ax"
.balign 16
.global snippets_el1
snippets_el1:
    snippets "ret"
.global snippets_el0
snippets_el0:
    snippets "svc #0"
