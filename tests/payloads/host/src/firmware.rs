//! The firmware's calls: SMCCC and PSCI, by the conduit that the device tree names.

use crate::machine::machine;
use smccc::Call;

/// The conduit of the device tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firmware;

impl Call for Firmware {
    fn call32(function: u32, arguments: [u32; 7]) -> [u32; 8] {
        if machine().psci_by_smc {
            smccc::smc32(function, arguments)
        } else {
            smccc::hvc32(function, arguments)
        }
    }

    fn call64(function: u32, arguments: [u64; 17]) -> [u64; 18] {
        if machine().psci_by_smc {
            smccc::smc64(function, arguments)
        } else {
            smccc::hvc64(function, arguments)
        }
    }
}

/// Makes a call and returns x0, signed as PSCI and SMCCC errors are.
pub(crate) fn call(function: u32, arguments: [u64; 3]) -> i64 {
    let mut all = [0; 17];
    all[..3].copy_from_slice(&arguments);
    let [x0, ..] = Firmware::call64(function, all);
    // A 32-bit function answers in w0 and leaves the upper half as zeroes (DEN0028, 3.1).
    if function & (1 << 30) == 0 {
        i64::from((x0 as u32).cast_signed())
    } else {
        x0.cast_signed()
    }
}
