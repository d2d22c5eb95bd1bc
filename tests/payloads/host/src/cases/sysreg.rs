//! System registers that are EL2's, or barred to the host.

use crate::exception::class;
use crate::machine::machine;
use crate::probe::{self, Level};
use crate::registry::{TestResult, case, ensure, ensure_eq, fail, succeed};

/// `MRS X0, S<op0>_<op1>_C<n>_C<m>_<op2>` (Arm ARM DDI 0487, C6.2).
const fn mrs(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> u32 {
    0xd520_0000 | op0 << 19 | op1 << 16 | n << 12 | m << 8 | op2 << 5
}

/// `MSR` of the same.
const fn msr(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> u32 {
    mrs(op0, op1, n, m, op2) & !(1 << 21)
}

/// The instruction must be undefined at both levels, with ELR at the instruction.
fn ensure_undefined(instruction: u32) -> TestResult {
    for level in Level::ALL {
        let Err(fault) = probe::execute(level, instruction, [0; 2]) else {
            fail!("{instruction:#x} ran at {level:?}")
        };
        let got = (fault.class(), fault.elr);
        ensure_eq!(
            got,
            (class::UNKNOWN, probe::code_address(level)),
            "{instruction:#x} at {level:?}: class, ELR"
        );
    }
    Ok(())
}

case!(el2s_registers_are_undefined, {
    // HCR, VTTBR, VTCR, VBAR, SCTLR, TTBR0, ESR, HPFAR, TPIDR, CNTHCTL, CNTVOFF, ICH_HCR, SP_EL1: all of EL2.
    for (n, m, op2) in [
        (1, 1, 0),
        (2, 1, 0),
        (2, 1, 2),
        (12, 0, 0),
        (1, 0, 0),
        (2, 0, 0),
        (5, 2, 0),
        (6, 0, 4),
        (13, 0, 2),
        (14, 1, 0),
        (14, 0, 3),
        (12, 11, 0),
        (4, 1, 0),
    ] {
        ensure_undefined(mrs(3, 4, n, m, op2))?;
        ensure_undefined(msr(3, 4, n, m, op2))?;
    }
    Ok(())
});

case!(tlb_maintenance_of_el2_is_undefined, {
    // TLBI ALLE1, ALLE2, VMALLS12E1, IPAS2E1IS (Arm ARM DDI 0487, C5.5).
    for (m, op2) in [(7, 4), (7, 0), (7, 6), (3, 4), (0, 1)] {
        ensure_undefined(msr(1, 4, 8, m, op2))?;
    }
    Ok(())
});

case!(the_pmu_is_the_hosts_if_there_is_one, {
    // What is barred is counting at EL2 (MDCR_EL2.HPMD); the host's own use of the PMU is not trapped.
    let [features, _] = succeed!(probe::execute(Level::El1, mrs(3, 0, 0, 5, 0), [0; 2]));
    let version = features >> 8 & 0xf;
    let there = version != 0 && version != 0xf;
    // PMCR, PMCNTENSET, PMCCNTR.
    for (n, m, op2) in [(9, 12, 0), (9, 12, 1), (9, 13, 0)] {
        match probe::execute(Level::El1, mrs(3, 3, n, m, op2), [0; 2]) {
            Ok(_) => ensure!(there, "a PMU that ID_AA64DFR0_EL1 denies: C{n} C{m} {op2}"),
            Err(fault) => {
                ensure!(
                    !there,
                    "ID_AA64DFR0_EL1.PMUVer is {version}, and C{n} C{m} {op2} is refused"
                );
                ensure_eq!(fault.class(), class::UNKNOWN);
            }
        }
    }
    Ok(())
});

case!(memory_tagging_is_hidden, {
    let [features, _] = succeed!(probe::execute(Level::El1, mrs(3, 0, 0, 4, 1), [0; 2]));
    ensure_eq!(features >> 8 & 0xf, 0, "ID_AA64PFR1_EL1.MTE");
    // GCR_EL1, RGSR_EL1, TFSR_EL1.
    for (n, m, op2) in [(1, 0, 6), (1, 0, 5), (5, 6, 0)] {
        ensure_undefined(mrs(3, 0, n, m, op2))?;
    }
    Ok(())
});

case!(el2_is_there_and_el3s_registers_are_undefined, {
    for (n, m, op2) in [(1, 0, 0), (1, 1, 0), (12, 0, 0)] {
        ensure_undefined(mrs(3, 6, n, m, op2))?;
    }
    Ok(())
});

case!(address_translation_of_stage_2_is_undefined, {
    // AT S12E1R, S12E1W, S1E2R.
    for op2 in [4, 5, 0] {
        ensure_undefined(msr(1, 4, 7, 8, op2))?;
    }
    Ok(())
});

case!(the_hosts_own_registers_work, {
    // CONTEXTIDR_EL1, TPIDR_EL0, AMAIR_EL1, AFSR0_EL1: written, read, untouched by EL2.
    for (op1, n, m, op2) in [(0, 13, 0, 1), (3, 13, 0, 2)] {
        let value = 0x1357_9bdf;
        succeed!(probe::execute(Level::El1, msr(3, op1, n, m, op2), [value, 0]));
        let [read, _] = succeed!(probe::execute(Level::El1, mrs(3, op1, n, m, op2), [0; 2]));
        ensure_eq!(read, value, "S3_{op1}_C{n}_C{m}_{op2}");
    }
    ensure!(!machine().cpus.is_empty());
    Ok(())
});
