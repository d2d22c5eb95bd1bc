//! What the host is told about guests in general. The machine that is specified has a GICv3 of 32 priorities and 4 list
//! registers, and CPUs of Armv8.0 with 48 bits of physical address.

use super::Expected;
use super::memory::Layout;
use hyp_abi::Status;
use hyp_abi::vm::MAX_VCPUS;

/// ICH_VTR_EL2: PRIbits, PREbits, ListRegs, each less one.
const INTERFACE: u64 = 4 << 29 | 4 << 26 | 3;

/// The sizes of physical addresses that ID_AA64MMFR0_EL1.PARange can tell, by its value.
const SIZES: [u64; 6] = [32, 36, 40, 42, 44, 48];

/// What guests can be.
pub(super) fn support(layout: &Layout) -> Expected {
    let (least, most) = layout.ipa_bits;
    Expected::success([
        INTERFACE,
        most << 8 | least,
        (MAX_VCPUS as u64) << 32 | layout.places as u64,
    ])
}

/// What a guest reads from a feature ID register.
pub(super) fn register(layout: &Layout, register: u64, ipa_bits: u64) -> Expected {
    let (least, most) = layout.ipa_bits;
    // op0 3, op1 0, CRn 0, CRm 1 to 7.
    if !(0xc008..=0xc03f).contains(&register) || !(least..=most).contains(&ipa_bits) {
        return Expected::refused(Status::InvalidParameter);
    }
    let value = match register {
        // ID_AA64PFR0_EL1: EL0 and EL1 in AArch64, GICv3. ID_AA64DFR0_EL1: the least that there can be of debug.
        0xc020 => 0x0100_0011,
        0xc028 => 0x000f_00f0_0010_1006,
        // ID_AA64MMFR0_EL1: no more than the guest's addresses have.
        0xc038 => SIZES
            .iter()
            .rposition(|size| *size <= ipa_bits)
            .map_or(0, |at| at as u64),
        _ => 0,
    };
    Expected::success([value, 0, 0])
}
