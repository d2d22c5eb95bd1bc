//! System registers and system instructions: a list of interesting ones, and any encoding at all.

use super::attacker::Attacker;
use super::call::{ensure_preserved, registers};
use super::gadget;
use super::ground::boundary;
use super::tally::{self, Kind};
use crate::exception::{Fault, class};
use crate::probe::{self, Level};
use crate::sysreg;
use hyp_abi::HostCallId;

/// Exception classes other than UNKNOWN that an instruction of EL1 may end in by EL1's own settings (Arm ARM DDI 0487,
/// D24.2.40): FP, system register, SVE, SME.
const OWN_TRAPS: [u64; 4] = [0x07, 0x18, 0x19, 0x1d];

const NOP: u32 = 0xd503_201f;

/// A system register or instruction, as MRS, MSR, SYS and SYSL name it (Arm ARM DDI 0487, C5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encoding {
    op0: u32,
    op1: u32,
    n: u32,
    m: u32,
    op2: u32,
}

const fn encoding(op0: u32, op1: u32, n: u32, m: u32, op2: u32) -> Encoding {
    Encoding { op0, op1, n, m, op2 }
}

impl Encoding {
    /// `MSR <register>, X<t>` or `SYS`.
    const fn write(self, t: u32) -> u32 {
        0xd500_0000 | self.op0 << 19 | self.op1 << 16 | self.n << 12 | self.m << 8 | self.op2 << 5 | t
    }

    /// `MRS X<t>, <register>` or `SYSL`.
    const fn read(self, t: u32) -> u32 {
        self.write(t) | 1 << 21
    }

    /// Whether the register is EL2's, EL3's or an alias that only EL2 has (DDI 0487, D23.3: op1 4 to 6).
    const fn is_above(self) -> bool {
        self.op0 & 1 == 1 && self.op1 >= 4 && self.op1 <= 6 && self.n != 11 && self.n != 15
    }

    /// Whether the payload lives on the register from one instruction to the next: translation (SCTLR, TCR, TTBR, and what is
    /// beside them), memory attributes, the vectors, the number of the CPU, the stack pointer's choice.
    const fn is_vital(self) -> bool {
        self.op0 == 3
            && self.op1 == 0
            && matches!(
                (self.n, self.m, self.op2),
                (1, 0, _) | (2, _, _) | (10, _, _) | (12, 0, 0) | (13, 0, 4) | (4, 2, 0)
            )
    }

    /// Whether reading acknowledges an interrupt that then waits for its end: ICC_IAR0, ICC_IAR1, ICC_NMIAR1.
    const fn acknowledges(self) -> bool {
        self.op0 == 3 && self.op1 == 0 && self.n == 12 && matches!((self.m, self.op2), (8 | 12, 0) | (9, 5))
    }
}

/// Registers that a hypervisor traps, hides or forgets: ACTLR, PMCR, PMCCNTR, PMUSERENR, MDSCR, MDCCINT, OSLAR, OSDLR,
/// DBGBVR0, DBGBCR0, DBGPRCR, GCR, RGSR, TFSR, TFSRE0, SCXTNUM, LORSA, LORC, ERRSELR, ERXCTLR, MPAM0, MPAM1, TRFCR, PMSCR,
/// PMBLIMITR, TRBLIMITR, ZCR, SMCR, CPACR, CNTKCTL, CNTV_CTL, CNTPS_CTL, ICC_SRE, ICC_PMR, ICC_CTLR, ICC_SGI1R, ICC_EOIR1,
/// ICC_DIR, GMID, the ID registers' first and last, CPUACTLR of the A72, RMR, ACCDATA, RNDR.
const KNOWN: [Encoding; 46] = [
    encoding(3, 0, 1, 0, 1),
    encoding(3, 3, 9, 12, 0),
    encoding(3, 3, 9, 13, 0),
    encoding(3, 3, 9, 14, 0),
    encoding(2, 0, 0, 2, 2),
    encoding(2, 0, 0, 2, 0),
    encoding(2, 0, 1, 0, 4),
    encoding(2, 0, 1, 3, 4),
    encoding(2, 0, 0, 0, 4),
    encoding(2, 0, 0, 0, 5),
    encoding(2, 0, 1, 4, 4),
    encoding(3, 0, 1, 0, 6),
    encoding(3, 0, 1, 0, 5),
    encoding(3, 0, 5, 6, 0),
    encoding(3, 0, 5, 6, 1),
    encoding(3, 0, 13, 0, 7),
    encoding(3, 0, 10, 4, 0),
    encoding(3, 0, 10, 4, 3),
    encoding(3, 0, 5, 3, 1),
    encoding(3, 0, 5, 4, 1),
    encoding(3, 0, 10, 5, 1),
    encoding(3, 0, 10, 5, 0),
    encoding(3, 0, 1, 2, 1),
    encoding(3, 0, 9, 9, 0),
    encoding(3, 0, 9, 10, 0),
    encoding(3, 0, 9, 11, 0),
    encoding(3, 0, 1, 2, 0),
    encoding(3, 0, 1, 2, 6),
    encoding(3, 0, 1, 0, 2),
    encoding(3, 0, 14, 1, 0),
    encoding(3, 3, 14, 3, 1),
    encoding(3, 7, 14, 2, 1),
    encoding(3, 0, 12, 12, 5),
    encoding(3, 0, 4, 6, 0),
    encoding(3, 0, 12, 12, 4),
    encoding(3, 0, 12, 11, 5),
    encoding(3, 0, 12, 12, 1),
    encoding(3, 0, 12, 11, 1),
    encoding(3, 1, 0, 0, 4),
    encoding(3, 0, 0, 1, 0),
    encoding(3, 0, 0, 7, 7),
    encoding(3, 1, 15, 2, 0),
    encoding(3, 0, 12, 0, 2),
    encoding(3, 0, 13, 0, 5),
    encoding(3, 3, 2, 4, 0),
    encoding(3, 0, 15, 0, 0),
];

/// Registers of EL2 and EL3 that would undo EL2: HCR, VTTBR, VTCR, SCTLR, TTBR0, VBAR, TPIDR, ELR, SPSR, SP_EL1, CPTR,
/// MDCR, HSTR, CNTHCTL, CNTVOFF, ICH_HCR, ICC_SRE_EL2, RMR_EL2, HFGRTR, HCRX; SCTLR_EL12, CNTP_CTL_EL02; SCR_EL3.
const ABOVE: [Encoding; 23] = [
    encoding(3, 4, 1, 1, 0),
    encoding(3, 4, 2, 1, 0),
    encoding(3, 4, 2, 1, 2),
    encoding(3, 4, 1, 0, 0),
    encoding(3, 4, 2, 0, 0),
    encoding(3, 4, 12, 0, 0),
    encoding(3, 4, 13, 0, 2),
    encoding(3, 4, 4, 0, 1),
    encoding(3, 4, 4, 0, 0),
    encoding(3, 4, 4, 1, 0),
    encoding(3, 4, 1, 1, 2),
    encoding(3, 4, 1, 1, 1),
    encoding(3, 4, 1, 1, 3),
    encoding(3, 4, 14, 1, 0),
    encoding(3, 4, 14, 0, 3),
    encoding(3, 4, 12, 11, 0),
    encoding(3, 4, 12, 9, 5),
    encoding(3, 4, 12, 0, 2),
    encoding(3, 4, 1, 1, 4),
    encoding(3, 4, 1, 2, 2),
    encoding(3, 5, 1, 0, 0),
    encoding(3, 5, 14, 2, 1),
    encoding(3, 6, 1, 1, 0),
];

/// DC ZVA.
const DC_ZVA: Encoding = encoding(1, 3, 7, 4, 1);

/// DC IVAC, CVAC, CVAU, CIVAC, ZVA; IC IVAU; DC ISW, CSW, CISW; IC IALLU, IALLUIS (DDI 0487, C5.3).
const CACHE: [Encoding; 11] = [
    encoding(1, 0, 7, 6, 1),
    encoding(1, 3, 7, 10, 1),
    encoding(1, 3, 7, 11, 1),
    encoding(1, 3, 7, 14, 1),
    DC_ZVA,
    encoding(1, 3, 7, 5, 1),
    encoding(1, 0, 7, 6, 2),
    encoding(1, 0, 7, 10, 2),
    encoding(1, 0, 7, 14, 2),
    encoding(1, 0, 7, 5, 0),
    encoding(1, 0, 7, 1, 0),
];

/// TLBI VMALLE1IS, VAE1IS, ASIDE1IS, VAAE1IS, VALE1IS, VMALLE1, RVAE1IS, VMALLE1OS; AT S1E1R, S1E1W, S1E0R, S1E0W, S1E1RP
/// (DDI 0487, C5.4, C5.5).
const TRANSLATION: [Encoding; 13] = [
    encoding(1, 0, 8, 3, 0),
    encoding(1, 0, 8, 3, 1),
    encoding(1, 0, 8, 3, 2),
    encoding(1, 0, 8, 3, 3),
    encoding(1, 0, 8, 3, 5),
    encoding(1, 0, 8, 7, 0),
    encoding(1, 0, 8, 2, 1),
    encoding(1, 0, 8, 1, 0),
    encoding(1, 0, 7, 8, 0),
    encoding(1, 0, 7, 8, 1),
    encoding(1, 0, 7, 8, 2),
    encoding(1, 0, 7, 8, 3),
    encoding(1, 0, 7, 9, 0),
];

impl Attacker<'_> {
    /// One attack by a system instruction.
    pub(super) fn system(&mut self) {
        match self.random.below(16) {
            0 => self.immediate(),
            1..4 => self.above(),
            4..6 => self.maintenance(Kind::Maintenance, &CACHE),
            6 | 7 => self.maintenance(Kind::Translation, &TRANSLATION),
            8..10 => self.at_el0(),
            _ => {
                let register = self.any_register();
                self.register(register);
            }
        }
    }

    fn any_register(&mut self) -> Encoding {
        if self.random.one_in(2) {
            return self.random.pick(&KNOWN);
        }
        let bits = self.random.next() as u32;
        Encoding {
            op0: 2 + (bits & 1),
            op1: bits >> 1 & 7,
            n: bits >> 4 & 15,
            m: bits >> 8 & 15,
            op2: bits >> 12 & 7,
        }
    }

    /// A result of an instruction that works or is undefined, and nothing else. Returns whether it worked.
    fn works_or_undefined(&self, what: core::fmt::Arguments<'_>, fault: Option<Fault>) -> bool {
        match fault {
            None => true,
            Some(fault) => {
                if fault.class() != class::UNKNOWN && !OWN_TRAPS.contains(&fault.class()) {
                    self.fail(format_args!("{what} ended in {fault:?}"));
                }
                false
            }
        }
    }

    /// Reads a register, and writes it if it can be: the old value is back with the next instruction.
    fn register(&mut self, register: Encoding) {
        if register.acknowledges() {
            return;
        }
        let before = registers([self.random.next(), 0]);
        let mut after = before;
        let fault = gadget::execute([register.read(1), NOP], &mut after);
        tally::attack(Kind::ReadRegister, fault.is_none());
        let readable = self.works_or_undefined(format_args!("MRS {register:?}"), fault);
        if readable && register.is_above() {
            self.fail(format_args!("MRS {register:?} gave {:#x}", after[1]));
        }
        ensure_preserved("MRS", &before, &after, 2);
        let old = after[1];
        let value = match (self.random.below(3), register.is_vital()) {
            (_, true) => old,
            (0, _) => self.forbidden(),
            (1, _) => old ^ 1 << self.random.below(64),
            _ => self.random.next(),
        };
        if !readable && register.is_vital() {
            return;
        }
        let write = register.write(0);
        let restore = if readable { register.write(1) } else { NOP };
        let before = registers([value, old]);
        let mut after = before;
        // An interrupt between the two would meet what is not meant to stay.
        let fault = sysreg::without_irqs(|| gadget::execute([write, restore], &mut after));
        tally::attack(Kind::WriteRegister, fault.is_none());
        let written = self.works_or_undefined(format_args!("MSR {register:?} {value:#x}"), fault);
        if written && register.is_above() {
            self.fail(format_args!("MSR {register:?} worked"));
        }
        ensure_preserved("MSR", &before, &after, 0);
    }

    /// What belongs to EL2 and EL3 is undefined, whatever it is: registers, and maintenance of their translations.
    fn above(&mut self) {
        let register = match self.random.below(3) {
            0 => self.random.pick(&ABOVE),
            1 => encoding(
                1,
                4,
                self.random.pick(&[7, 8]),
                self.random.below(16) as u32,
                self.random.below(8) as u32,
            ),
            _ => Encoding {
                op0: 3,
                op1: 4 + self.random.below(3) as u32,
                n: self.random.below(15) as u32,
                m: self.random.below(16) as u32,
                op2: self.random.below(8) as u32,
            },
        };
        if !register.is_above() {
            return;
        }
        let instruction = if register.op0 == 3 && self.random.one_in(2) {
            register.read(0)
        } else {
            register.write(0)
        };
        let before = registers([self.forbidden()]);
        let mut after = before;
        let fault = gadget::execute([instruction, NOP], &mut after);
        tally::attack(Kind::Above, fault.is_none());
        match fault {
            Some(fault) if fault.class() == class::UNKNOWN => {
                ensure_preserved("an undefined access", &before, &after, 0)
            }
            other => self.fail(format_args!("{instruction:#x} ({register:?}) ended in {other:?}")),
        }
    }

    /// Maintenance by address and by set and way, of what is the host's, what was, and what never is.
    fn maintenance(&mut self, kind: Kind, instructions: &[Encoding]) {
        let instruction = self.random.pick(instructions);
        let argument = match self.random.below(5) {
            0 => self.scratch_frame(),
            1 | 2 => self.forbidden(),
            // To zero the registers of the payload's own devices would hurt nobody but the payload.
            3 if instruction != DC_ZVA => boundary(self.ground, &mut self.random),
            _ => self.random.next() | 1 << 62,
        };
        // TLBI takes the page's number.
        let argument = if instruction.n == 8 {
            argument >> 12
        } else {
            argument
        };
        let before = registers([argument]);
        let mut after = before;
        let fault = gadget::execute([instruction.write(0), NOP], &mut after);
        tally::attack(kind, fault.is_none());
        if let Some(fault) = fault
            && fault.class() != class::DATA_ABORT_SAME
        {
            self.works_or_undefined(format_args!("SYS {instruction:?} {argument:#x}"), Some(fault));
        }
        ensure_preserved("SYS", &before, &after, 0);
    }

    /// The same registers, by a user program.
    fn at_el0(&mut self) {
        let register = self.any_register();
        if register.acknowledges() {
            return;
        }
        let is_read = self.random.one_in(2);
        let instruction = if is_read {
            register.read(0)
        } else {
            register.write(0)
        };
        let result = probe::execute(Level::El0, instruction, [self.random.next(), 0]);
        let kind = if is_read {
            Kind::ReadRegister
        } else {
            Kind::WriteRegister
        };
        tally::attack(kind, result.is_ok());
        let worked = self.works_or_undefined(format_args!("{instruction:#x} at EL0"), result.err());
        if worked && register.op1 != 3 {
            self.fail(format_args!("{instruction:#x} ({register:?}) worked at EL0"));
        }
    }

    /// A hypercall with another immediate is none.
    fn immediate(&mut self) {
        let number = 1 + self.random.below(0xffff) as u32;
        let is_smc = self.random.one_in(2);
        let instruction = if is_smc { 0xd400_0003 } else { 0xd400_0002 } | number << 5;
        let function = if is_smc {
            0x8000_0000
        } else {
            u64::from(HostCallId::Version.function_id())
        };
        let before = registers([function]);
        let mut after = before;
        let fault = gadget::execute([instruction, NOP], &mut after);
        let answer = after[0].cast_signed();
        tally::attack(Kind::Immediate, fault.is_none() && answer != -1);
        if fault.is_some() || answer != -1 {
            self.fail(format_args!("{instruction:#x} answered {answer:#x}, {fault:?}"));
        }
        if !is_smc {
            ensure_preserved("HVC", &before, &after, 4);
        }
    }
}
