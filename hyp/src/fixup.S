// A fixup: if the instruction at `at` takes an external abort, EL2 goes on at `to`. Who uses it purges it at its own end.
.macro fixup at, to
    .pushsection .fixup, "a"
    .balign 4
    .long   \at - .
    .long   \to - .
    .popsection
.endm
