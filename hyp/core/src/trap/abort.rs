//! An instruction abort or data abort, decoded: what failed, where, and what the instruction wanted.
//!
//! The question that matters is whether HPFAR_EL2 holds the faulting IPA. It does not for a permission fault,
//! unless that was on a walk of stage 1; then EL2 has to translate FAR_EL2 itself, with an `AT` instruction.
//!
//! Source: Arm ARM DDI 0487, D24.2, ESR_EL2 ("ISS encoding for an exception from a Data Abort"), HPFAR_EL2.

use super::access::{DataAccess, Width};
use super::syndrome::FaultRegisters;
use crate::addr::{FRAME_SIZE, Ipa};

/// What kind of fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An address with bits above the output size.
    AddressSize,
    /// No valid descriptor.
    Translation,
    /// A descriptor without the access flag.
    AccessFlag,
    /// A descriptor that does not allow the access.
    Permission,
    /// The memory system answered with an error; on the access itself, or on a table walk if a level is given.
    External,
    /// A parity or ECC error; on the access itself, or on a table walk if a level is given.
    Parity,
    /// The access was not aligned as its memory type demands.
    Alignment,
    /// A granule protection fault.
    GranuleProtection,
    /// A tag check failed (FEAT_MTE2).
    TagCheck,
    /// Two TLB entries match: break-before-make was not kept.
    TlbConflict,
    /// The hardware cannot update this descriptor atomically.
    UnsupportedUpdate,
    /// An IMPLEMENTATION DEFINED fault: lockdown, or an exclusive or atomic access that the memory type refuses.
    ImplementationDefined,
    /// A code that the architecture reserves.
    Reserved,
}

/// The fault status code, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStatus {
    /// The kind.
    pub kind: FaultKind,
    /// The level of the table walk (−2 to 3), where the code has one.
    pub level: Option<i8>,
    /// The six bits as they are.
    pub code: u8,
}

impl FaultStatus {
    /// Decodes bits 5:0 of the ISS, for either kind of abort.
    #[must_use]
    pub const fn decode(code: u8) -> Self {
        let code = code & 0x3f;
        let low = (code & 0b11) as i8;
        let (kind, level) = match code {
            0b00_0000..=0b00_0011 => (FaultKind::AddressSize, Some(low)),
            0b00_0100..=0b00_0111 => (FaultKind::Translation, Some(low)),
            0b00_1000..=0b00_1011 => (FaultKind::AccessFlag, Some(low)),
            0b00_1100..=0b00_1111 => (FaultKind::Permission, Some(low)),
            0b01_0000 => (FaultKind::External, None),
            0b01_0001 => (FaultKind::TagCheck, None),
            0b01_0010 => (FaultKind::External, Some(-2)),
            0b01_0011 => (FaultKind::External, Some(-1)),
            0b01_0100..=0b01_0111 => (FaultKind::External, Some(low)),
            0b01_1000 => (FaultKind::Parity, None),
            0b01_1011 => (FaultKind::Parity, Some(-1)),
            0b01_1100..=0b01_1111 => (FaultKind::Parity, Some(low)),
            0b10_0001 => (FaultKind::Alignment, None),
            0b10_0010 => (FaultKind::GranuleProtection, Some(-2)),
            0b10_0011 => (FaultKind::GranuleProtection, Some(-1)),
            0b10_0100..=0b10_0111 => (FaultKind::GranuleProtection, Some(low)),
            0b10_1000 => (FaultKind::GranuleProtection, None),
            0b10_1001 => (FaultKind::AddressSize, Some(-1)),
            0b10_1010 => (FaultKind::Translation, Some(-2)),
            0b10_1011 => (FaultKind::Translation, Some(-1)),
            0b10_1100 => (FaultKind::AddressSize, Some(-2)),
            0b11_0000 => (FaultKind::TlbConflict, None),
            0b11_0001 => (FaultKind::UnsupportedUpdate, None),
            0b11_0100 | 0b11_0101 => (FaultKind::ImplementationDefined, None),
            _ => (FaultKind::Reserved, None),
        };
        Self { kind, level, code }
    }
}

/// Where the fault was, in the address space that stage 2 translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAddress {
    /// HPFAR_EL2 says it. Exact to the byte, except for a fault on a walk of stage 1: then it is the page.
    Known(Ipa),
    /// HPFAR_EL2 is UNKNOWN. `AT S1E1R` or `AT S1E0R` on this virtual address says it, if stage 1 still maps it.
    Translate(u64),
    /// It lies above 48 bits, where Freehold has nothing.
    BeyondReach,
    /// Nobody knows: neither register holds an address for this kind of fault.
    Unknown,
}

/// An abort that came to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Whether it was an instruction fetch.
    pub fetch: bool,
    /// What failed.
    pub status: FaultStatus,
    /// Whether the access was a write (WnR). Always true for cache maintenance and `AT`, and not to be relied on
    /// for a fault on a walk of stage 1 (see [`Abort::wants_write`]). Never true for a fetch.
    pub write: bool,
    /// Whether the instruction was a cache maintenance or address translation instruction (CM).
    pub cache_maintenance: bool,
    /// Whether stage 2 failed on a walk of stage 1 (S1PTW).
    pub stage1_walk: bool,
    /// FAR_EL2, unless ESR_EL2.FnV says that it is not valid.
    pub far: Option<u64>,
    /// Bits 47:4 of HPFAR_EL2 as a byte address, valid only where [`Abort::address`] says so.
    pub hpfar: u64,
    /// What the instruction wanted, where the syndrome says it (ISV): a plain load or store of one register.
    pub access: Option<DataAccess>,
    /// EA, bit 9: IMPLEMENTATION DEFINED classification of an external abort.
    pub external_type: bool,
    /// SET, bits 12:11: how bad the error is, for an external abort on the access itself (0 recoverable, 2
    /// uncontainable, 3 restartable).
    pub severity: u8,
    /// Whether the instruction has 32 bits (IL). Always true where no instruction is described.
    pub wide_instruction: bool,
}

impl Abort {
    /// Decodes the registers of an exception of one of the four abort classes.
    #[must_use]
    pub const fn decode(registers: FaultRegisters, fetch: bool) -> Self {
        let esr = registers.esr;
        let status = FaultStatus::decode(esr as u8);
        let syndrome_valid = !fetch && bit(esr, 24);
        // Bits 12:11 are LST when a syndrome is given: anything but 0 is a 64-byte access (FEAT_LS64).
        let set_or_lst = (esr >> 11) as u8 & 0b11;
        Self {
            fetch,
            status,
            write: !fetch && bit(esr, 6),
            cache_maintenance: !fetch && bit(esr, 8),
            stage1_walk: bit(esr, 7),
            far: if bit(esr, 10) { None } else { Some(registers.far) },
            hpfar: (registers.hpfar >> 4 & ((1 << 44) - 1)) << 12,
            access: if syndrome_valid && set_or_lst == 0 {
                Some(decode_access(esr))
            } else {
                None
            },
            external_type: bit(esr, 9),
            severity: if syndrome_valid { 0 } else { set_or_lst },
            wide_instruction: bit(esr, 25),
        }
    }

    /// Where the fault was.
    ///
    /// HPFAR_EL2 is written for translation, access flag and address size faults of stage 2, and for permission
    /// faults on a walk of stage 1, and is UNKNOWN otherwise (DDI 0487, HPFAR_EL2). An abort of EL1 that comes to
    /// EL2 is one of stage 2, or an external abort that was routed here.
    #[must_use]
    pub const fn address(&self) -> FaultAddress {
        match self.status.kind {
            FaultKind::Translation | FaultKind::AccessFlag | FaultKind::AddressSize => self.reported(),
            FaultKind::Permission if self.stage1_walk => self.reported(),
            FaultKind::Permission | FaultKind::Alignment | FaultKind::UnsupportedUpdate => self.translated(),
            FaultKind::TlbConflict | FaultKind::ImplementationDefined => self.translated(),
            _ => FaultAddress::Unknown,
        }
    }

    /// Like [`Abort::address`], for a CPU whose HPFAR_EL2 cannot be trusted (Cortex-A57 erratum 834220: a fault
    /// of stage 1 may be reported as one of stage 2). Only a fault on a walk of stage 1 is believed.
    #[must_use]
    pub const fn address_without_hpfar(&self) -> FaultAddress {
        if self.stage1_walk {
            self.address()
        } else {
            self.translated()
        }
    }

    /// Whether the map must allow a write for the access to be allowed.
    ///
    /// On a walk of stage 1, WnR tells of the instruction, not of the walk. A walk only writes to update a
    /// descriptor, and that fails with a permission fault where a mere read would have passed.
    #[must_use]
    pub const fn wants_write(&self) -> bool {
        if self.stage1_walk {
            matches!(
                self.status.kind,
                FaultKind::Permission | FaultKind::UnsupportedUpdate
            )
        } else {
            self.write
        }
    }

    const fn reported(&self) -> FaultAddress {
        // The page offset of an IPA is that of the virtual address, at every granule. On a walk of stage 1 FAR
        // holds the address that was being translated, so nothing is known of the offset.
        let offset = match self.far {
            Some(far) if !self.stage1_walk => far & (FRAME_SIZE - 1),
            _ => 0,
        };
        match Ipa::new(self.hpfar | offset) {
            Some(ipa) => FaultAddress::Known(ipa),
            None => FaultAddress::BeyondReach,
        }
    }

    const fn translated(&self) -> FaultAddress {
        match self.far {
            Some(far) => FaultAddress::Translate(far),
            None => FaultAddress::Unknown,
        }
    }
}

const fn bit(value: u64, number: u32) -> bool {
    value >> number & 1 != 0
}

/// SAS 23:22, SSE 21, SRT 20:16, SF 15, AR 14, WnR 6.
const fn decode_access(esr: u64) -> DataAccess {
    DataAccess {
        width: Width::from_sas((esr >> 22) as u8),
        sign_extend: bit(esr, 21),
        register: (esr >> 16) as u8 & 0x1f,
        sixty_four: bit(esr, 15),
        ordered: bit(esr, 14),
        write: bit(esr, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u64 = 0x24 << 26 | 1 << 25;
    const S1PTW: u64 = 1 << 7;
    const WNR: u64 = 1 << 6;

    fn abort(esr: u64) -> Abort {
        Abort::decode(
            FaultRegisters {
                esr,
                far: 0xffff_8000_1234_5678,
                hpfar: 0x4_2345 << 4,
            },
            false,
        )
    }

    fn ipa(value: u64) -> FaultAddress {
        FaultAddress::Known(Ipa::new(value).unwrap())
    }

    #[test]
    fn a_translation_fault_has_its_address_to_the_byte() {
        for (code, level) in [(0b00_0100, 0), (0b00_0101, 1), (0b00_0110, 2), (0b00_0111, 3)] {
            let abort = abort(DATA | code);
            assert_eq!(abort.status.kind, FaultKind::Translation);
            assert_eq!(abort.status.level, Some(level));
            assert_eq!(abort.address(), ipa(0x4234_5678));
        }
        assert_eq!(abort(DATA | 0b00_1011).address(), ipa(0x4234_5678));
        assert_eq!(abort(DATA | 0b00_0001).address(), ipa(0x4234_5678));
    }

    #[test]
    fn a_permission_fault_needs_a_translation() {
        let far = FaultAddress::Translate(0xffff_8000_1234_5678);
        assert_eq!(abort(DATA | 0b00_1111).address(), far);
        // FnV: nothing to translate.
        assert_eq!(abort(DATA | 1 << 10 | 0b00_1111).address(), FaultAddress::Unknown);
    }

    #[test]
    fn a_fault_on_a_stage_1_walk_has_its_page() {
        for code in [0b00_0111, 0b00_1011, 0b00_1111] {
            assert_eq!(abort(DATA | S1PTW | code).address(), ipa(0x4234_5000));
        }
    }

    #[test]
    fn a_walk_writes_only_when_it_fails_on_a_permission() {
        assert!(!abort(DATA | S1PTW | WNR | 0b00_0111).wants_write());
        assert!(abort(DATA | S1PTW | 0b00_1111).wants_write());
        assert!(abort(DATA | WNR | 0b00_0111).wants_write());
        assert!(!abort(DATA | 0b00_0111).wants_write());
    }

    #[test]
    fn an_external_abort_has_no_address() {
        for code in [0b01_0000, 0b01_0111, 0b01_1000, 0b10_1000] {
            assert_eq!(abort(DATA | code).address(), FaultAddress::Unknown);
        }
        assert_eq!(abort(DATA | 0b10 << 11 | 0b01_0000).severity, 0b10);
    }

    #[test]
    fn a_cpu_with_a_bad_hpfar_translates_but_for_walks() {
        let far = FaultAddress::Translate(0xffff_8000_1234_5678);
        assert_eq!(abort(DATA | 0b00_0111).address_without_hpfar(), far);
        assert_eq!(
            abort(DATA | S1PTW | 0b00_0111).address_without_hpfar(),
            ipa(0x4234_5000)
        );
    }

    #[test]
    fn an_address_above_48_bits_is_beyond_reach() {
        let abort = Abort::decode(
            FaultRegisters {
                esr: DATA | 0b00_0100,
                far: 0,
                hpfar: 1 << (36 + 4),
            },
            false,
        );
        assert_eq!(abort.address(), FaultAddress::BeyondReach);
    }

    #[test]
    fn a_load_is_described_and_a_64_byte_load_is_not() {
        let isv = DATA | 1 << 24 | 0b10 << 22 | 1 << 21 | 7 << 16 | 1 << 15 | 0b00_0111;
        let access = abort(isv).access.unwrap();
        assert_eq!(access.width, Width::Word);
        assert!(access.sign_extend && access.sixty_four && !access.write);
        assert_eq!(access.register, 7);
        assert!(abort(isv | 0b10 << 11).access.is_none());
        assert!(abort(isv & !(1 << 24)).access.is_none());
    }

    #[test]
    fn a_fetch_is_never_a_write() {
        let registers = FaultRegisters {
            esr: 0x20 << 26 | WNR | 1 << 24 | 0b00_0111,
            far: 0x1000,
            hpfar: 0,
        };
        let abort = Abort::decode(registers, true);
        assert!(abort.fetch && !abort.write && !abort.wants_write() && abort.access.is_none());
    }

    #[test]
    fn every_code_decodes_and_keeps_its_bits() {
        let mut reserved = 0;
        for code in 0..=255_u8 {
            let status = FaultStatus::decode(code);
            assert_eq!(status.code, code & 0x3f);
            if code < 64 && status.kind == FaultKind::Reserved {
                reserved += 1;
            }
        }
        // 64 codes less the 46 that DDI 0487 defines for data aborts.
        assert_eq!(reserved, 64 - 46);
    }
}
