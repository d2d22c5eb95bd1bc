//! The VTTBR door: every write of VTTBR_EL2 is here.
//!
//! While the VMID is not the one whose EL1 state is loaded, some CPUs must not walk stage 1 on speculation (errata
//! Cortex-A57 1319537, A72 1319367, A76 1165522, A55 1530923: a walk for a speculative AT fills the TLB with the
//! wrong VMID). There the walks of EL1's tables are turned off meanwhile, by TCR_EL1.EPD0 and EPD1 and not by
//! SCTLR_EL1.M, which would let a flat translation through.

use crate::barrier::isb;
use crate::cpu;
use aarch64_cpu::registers::{TCR_EL1, VTTBR_EL2};
use tock_registers::interfaces::{Readable, Writeable};

/// VMID in VTTBR_EL2.
const VMID_SHIFT: u64 = 48;

/// EPD0 and EPD1 of TCR_EL1.
const NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// Loads the host's stage 2: VMID 0, root at `root`, with CnP clear, so that no CPU's TLB entries are another's.
pub(crate) fn load_host(root: u64) {
    VTTBR_EL2.set(root);
    isb();
}

/// Does `work` with the VMID of a guest in VTTBR_EL2. The root stays the host's: nothing is translated meanwhile,
/// since EL2 does not use this regime and speculation through it is off where it would harm.
pub(crate) fn with_guest(vmid: u16, work: impl FnOnce()) {
    let host = VTTBR_EL2.get();
    let tcr = TCR_EL1.get();
    let careful = cpu::speculates_at();
    if careful {
        TCR_EL1.set(tcr | NO_WALKS);
        isb();
    }
    VTTBR_EL2.set(host & ((1 << VMID_SHIFT) - 1) | u64::from(vmid) << VMID_SHIFT);
    isb();
    work();
    VTTBR_EL2.set(host);
    isb();
    if careful {
        TCR_EL1.set(tcr);
        isb();
    }
}
