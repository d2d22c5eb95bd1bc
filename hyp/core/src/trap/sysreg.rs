//! The answers to the host's trapped system register accesses.
//!
//! The host is trapped for very little ([`super::host_traps`]), and all of it is here. An access that is not
//! expected is UNDEFINED to the host: it says "no such register" in the way a CPU would, and nothing else happens.
//!
//! What is trapped on purpose:
//! - the ID registers, on a CPU whose memory has tags, so that the host sees no FEAT_MTE2 and never turns it on;
//! - GMID_EL1 and the tag control registers, which are UNDEFINED without FEAT_MTE2;
//! - the error records' fault injection registers: EL2's own accesses could be made to fail through them.

use super::host_traps::{HCR_TID3, HostTraps};
use super::syndrome::{SystemAccess, SystemRegister};

/// ID_AA64PFR1_EL1.
pub const ID_AA64PFR1_EL1: SystemRegister = SystemRegister::new(3, 0, 0, 4, 1);
/// ID_AA64PFR2_EL1.
pub const ID_AA64PFR2_EL1: SystemRegister = SystemRegister::new(3, 0, 0, 4, 2);
/// GMID_EL1.
pub const GMID_EL1: SystemRegister = SystemRegister::new(3, 1, 0, 0, 4);
/// GCR_EL1.
pub const GCR_EL1: SystemRegister = SystemRegister::new(3, 0, 1, 0, 6);
/// RGSR_EL1.
pub const RGSR_EL1: SystemRegister = SystemRegister::new(3, 0, 1, 0, 5);

/// ID_AA64PFR1_EL1: MTE 11:8, MTE_frac 43:40, MTEX 55:52.
const PFR1_TAGS: u64 = 0xf << 8 | 0xf << 40 | 0xf << 52;
/// ID_AA64PFR2_EL1: MTEPERM 3:0, MTESTOREONLY 7:4, MTEFAR 11:8.
const PFR2_TAGS: u64 = 0xfff;

/// What is done about a trapped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The host gets an exception of unknown reason, as for a register that does not exist.
    Undefined,
    /// The host reads the CPU's own value of `register`, an ID register, without the bits `hidden`. Read it on
    /// the CPU that trapped (CPUs may differ), put it into `rt` (31 is no register), and step past the access.
    ReadId {
        /// op0 3, op1 0, CRn 0, CRm 1 to 7.
        register: SystemRegister,
        /// The bits that read as zero.
        hidden: u64,
        /// The register to write, 0 to 31.
        rt: u8,
    },
}

/// Answers an access that came to EL2 under `traps`. `from_el1` says whether EL1 made it.
#[must_use]
pub fn answer(access: SystemAccess, from_el1: bool, traps: &HostTraps) -> Answer {
    if from_el1 && access.read && traps.hcr_el2 & HCR_TID3 != 0 && in_id_group_3(access.register) {
        Answer::ReadId {
            register: access.register,
            hidden: hidden(access.register),
            rt: access.rt,
        }
    } else {
        Answer::Undefined
    }
}

/// Whether `HCR_EL2.TID3` traps reads of the register: the feature ID space, reserved encodings included, which
/// read as zero on the CPU too.
const fn in_id_group_3(register: SystemRegister) -> bool {
    register.op0 == 3 && register.op1 == 0 && register.crn == 0 && register.crm >= 1 && register.crm <= 7
}

/// The bits of an ID register that the host must not see.
fn hidden(register: SystemRegister) -> u64 {
    if register == ID_AA64PFR1_EL1 {
        PFR1_TAGS
    } else if register == ID_AA64PFR2_EL1 {
        PFR2_TAGS
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trap::host_traps::Settings;
    use crate::trap::id::IdRegisters;

    fn traps(mte: u64) -> HostTraps {
        let id = IdRegisters {
            pfr1: mte << 8,
            ..IdRegisters::default()
        };
        HostTraps::new(&id, Settings::default())
    }

    fn read(register: SystemRegister) -> SystemAccess {
        SystemAccess {
            register,
            rt: 5,
            read: true,
        }
    }

    #[test]
    fn a_cpu_with_tags_shows_none() {
        let traps = traps(3);
        let Answer::ReadId { hidden, rt, .. } = answer(read(ID_AA64PFR1_EL1), true, &traps) else {
            panic!("the host may read its ID registers");
        };
        assert_eq!(rt, 5);
        assert_eq!(!hidden & 0xf00, 0);
        assert_eq!(hidden & 0xff, 0);
        for register in [GMID_EL1, GCR_EL1, RGSR_EL1] {
            assert_eq!(answer(read(register), true, &traps), Answer::Undefined);
        }
    }

    #[test]
    fn other_id_registers_are_the_cpus_own() {
        let traps = traps(2);
        for crm in 1..8 {
            for op2 in 0..8 {
                let register = SystemRegister::new(3, 0, 0, crm, op2);
                let Answer::ReadId {
                    hidden,
                    register: got,
                    ..
                } = answer(read(register), true, &traps)
                else {
                    panic!("the host may read its ID registers");
                };
                assert_eq!(got, register);
                assert_eq!(hidden != 0, (crm, op2) == (4, 1) || (crm, op2) == (4, 2));
            }
        }
    }

    #[test]
    fn writes_and_el0_are_undefined() {
        let traps = traps(2);
        let write = SystemAccess {
            read: false,
            ..read(ID_AA64PFR1_EL1)
        };
        assert_eq!(answer(write, true, &traps), Answer::Undefined);
        assert_eq!(answer(read(ID_AA64PFR1_EL1), false, &traps), Answer::Undefined);
    }

    #[test]
    fn without_tags_nothing_is_expected() {
        let traps = traps(1);
        for op0 in 0..4 {
            for op1 in 0..8 {
                for crn in 0..16 {
                    for crm in 0..16 {
                        for op2 in 0..8 {
                            let access = read(SystemRegister::new(op0, op1, crn, crm, op2));
                            assert_eq!(answer(access, true, &traps), Answer::Undefined);
                        }
                    }
                }
            }
        }
    }
}
