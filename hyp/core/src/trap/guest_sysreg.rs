//! The answers to a guest's trapped system register accesses and system instructions.
//!
//! [`super::guest_traps`] says what traps. A guest is shown a fixed list of features ([`super::guest_id`]), and what
//! belongs to a feature that it is not shown is UNDEFINED to it: it says "no such register" in the way a CPU would. What
//! every CPU has, and EL2 does not give, is there and does nothing: it reads as a fixed value and ignores writes.
//!
//! So behave:
//! - the feature ID registers: [`GuestCpu::read`]; REVIDR_EL1 and AIDR_EL1 read zero, which names no repair of an
//!   erratum, so that a kernel works around what it knows of MIDR_EL1;
//! - ACTLR_EL1: zero, since its bits change how a core works, for the host too;
//! - self-hosted debug: no breakpoint hits, the OS lock is open and cannot be closed, nobody listens at the debug
//!   communications channel;
//! - the physical timer, which is the host's: it is off and cannot be turned on. Linux takes the virtual timer wherever
//!   it finds no EL2 of its own, and touches this one no more; but a kernel that turns it off, to be sure, must live;
//! - ICC_SRE_EL1: the system registers of the GIC are on, with no way past them;
//! - ICC_SGI1R_EL1 and its kin: the host sends the interrupt.
//!
//! UNDEFINED are, among others, the PMU, statistical profiling, trace, activity monitors, error records, LORegions,
//! SCXTNUM_ELx, the IMPLEMENTATION DEFINED registers (`HCR_EL2.TIDCP`), and cache maintenance by set and way
//! (`HCR_EL2.TSW`): a vCPU can change CPUs between two of those, so they cannot do what is asked, and to do nothing would
//! be to lose data in silence. A kernel made for a virtual machine maintains caches by address, which is not trapped.

use super::guest_id::{GuestCpu, id_number};
use super::syndrome::{SystemAccess, SystemRegister};
use hyp_abi::run_page::SgiRegister;

/// What is done about a guest's trapped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestSysreg {
    /// The register that the access names reads this. (31 is no register.) The guest goes on after the instruction.
    Read(u64),
    /// The write has no effect. The guest goes on after the instruction.
    Ignore,
    /// The host sends interrupts: what the access writes says which. The guest goes on after the instruction.
    SendInterrupt(SgiRegister),
    /// The guest gets an exception of unknown reason.
    Undefined,
}

/// A register that is there and does nothing: what it reads as, if it can be read, and whether it can be written.
#[derive(Clone, Copy, Debug)]
struct Inert {
    read: Option<u64>,
    write: bool,
}

const READ_ONLY_ZERO: Inert = constant(0);
const ZERO: Inert = Inert {
    read: Some(0),
    write: true,
};
const WRITE_ONLY: Inert = Inert {
    read: None,
    write: true,
};

const fn constant(value: u64) -> Inert {
    Inert {
        read: Some(value),
        write: false,
    }
}

/// OSLSR_EL1: OSLM (bits 3 and 0) 0b10, the OS lock is implemented; OSLK (bit 1) 0, it is open.
const OS_LOCK_OPEN: u64 = 1 << 3;
/// ICC_SRE_EL1: DIB, DFB, SRE.
const SYSTEM_REGISTERS_ALONE: Inert = Inert {
    read: Some(0b111),
    write: true,
};
/// How many breakpoints and watchpoints a guest is shown: ID_AA64DFR0_EL1.BRPs and WRPs, plus one.
const BREAKPOINTS: u8 = 2;

/// Answers an access that trapped from a guest. `from_el1` says whether EL1 made it; `cpu` is what the guest's CPUs are.
#[must_use]
pub fn answer(access: SystemAccess, from_el1: bool, cpu: &GuestCpu<'_>) -> GuestSysreg {
    let register = access.register;
    // op1 3 is what EL0 may name. EL0's other accesses are UNDEFINED before they could trap to EL2.
    if !from_el1 && register.op1 != 3 {
        return GuestSysreg::Undefined;
    }
    if access.read && id_number(register).is_some() {
        return GuestSysreg::Read(cpu.read(register));
    }
    if let (Some(sgi), false) = (sgi_register(register), access.read) {
        return GuestSysreg::SendInterrupt(sgi);
    }
    match inert(register) {
        Some(Inert {
            read: Some(value), ..
        }) if access.read => GuestSysreg::Read(value),
        Some(Inert { write: true, .. }) if !access.read => GuestSysreg::Ignore,
        _ => GuestSysreg::Undefined,
    }
}

const fn sgi_register(register: SystemRegister) -> Option<SgiRegister> {
    match encoding(register) {
        (3, 0, 12, 11, 5) => Some(SgiRegister::Group1),
        (3, 0, 12, 11, 6) => Some(SgiRegister::OtherGroup1),
        (3, 0, 12, 11, 7) => Some(SgiRegister::Group0),
        _ => None,
    }
}

/// The registers that are there and do nothing (Arm ARM DDI 0487, D24.2 to D24.10, by name).
const fn inert(register: SystemRegister) -> Option<Inert> {
    let inert = match encoding(register) {
        // REVIDR_EL1, AIDR_EL1.
        (3, 0, 0, 0, 6) | (3, 1, 0, 0, 7) => READ_ONLY_ZERO,
        // ACTLR_EL1.
        (3, 0, 1, 0, 1) => ZERO,
        // ICC_SRE_EL1.
        (3, 0, 12, 12, 5) => SYSTEM_REGISTERS_ALONE,
        // CNTP_TVAL_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0.
        (3, 3, 14, 2, 0..=2) => ZERO,
        // OSDTRRX_EL1, MDCCINT_EL1, MDSCR_EL1, OSDTRTX_EL1, OSECCR_EL1.
        (2, 0, 0, 0 | 3 | 6, 2) | (2, 0, 0, 2, 0 | 2) => ZERO,
        // DBGBVR<n>_EL1, DBGBCR<n>_EL1, DBGWVR<n>_EL1, DBGWCR<n>_EL1.
        (2, 0, 0, 0..BREAKPOINTS, 4..=7) => ZERO,
        // MDRAR_EL1.
        (2, 0, 1, 0, 0) => READ_ONLY_ZERO,
        // OSLAR_EL1, OSLSR_EL1, OSDLR_EL1, DBGPRCR_EL1.
        (2, 0, 1, 0, 4) => WRITE_ONLY,
        (2, 0, 1, 1, 4) => constant(OS_LOCK_OPEN),
        (2, 0, 1, 3 | 4, 4) => ZERO,
        // DBGCLAIMSET_EL1, DBGCLAIMCLR_EL1: no claim tags. DBGAUTHSTATUS_EL1: no debug is permitted.
        (2, 0, 7, 8 | 9, 6) => ZERO,
        (2, 0, 7, 14, 6) => READ_ONLY_ZERO,
        // MDCCSR_EL0: nothing is received, and what is sent is gone. DBGDTR_EL0, DBGDTRRX_EL0 and DBGDTRTX_EL0.
        (2, 3, 0, 1, 0) => READ_ONLY_ZERO,
        (2, 3, 0, 4 | 5, 0) => ZERO,
        _ => return None,
    };
    Some(inert)
}

/// op0, op1, CRn, CRm, op2: as an assembler's S<op0>_<op1>_C<n>_C<m>_<op2> names a register.
const fn encoding(register: SystemRegister) -> (u8, u8, u8, u8, u8) {
    let SystemRegister {
        op0,
        op1,
        crn,
        crm,
        op2,
    } = register;
    (op0, op1, crn, crm, op2)
}

#[cfg(test)]
mod tests;
