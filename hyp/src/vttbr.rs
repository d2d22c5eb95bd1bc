//! The VTTBR door: every write of VTTBR_EL2 is here.
//!
//! While the VMID is not the one whose EL1 state is loaded, some CPUs must not walk stage 1 on speculation (errata
//! Cortex-A57 1319537, A72 1319367, A76 1165522, A55 1530923: a walk for a speculative AT fills the TLB with the
//! wrong VMID). There the walks of EL1's tables are turned off meanwhile, by TCR_EL1.EPD0 and EPD1 with SCTLR_EL1.M
//! set: with M clear, as a kernel has it at first, a flat translation would go through.

use crate::barrier::isb;
use crate::cpu;
use crate::world::watchers;
use aarch64_cpu::registers::{SCTLR_EL1, TCR_EL1, VTTBR_EL2};
use hyp_core::hardware::TablePage;
use hyp_core::trap::stage2::{VTTBR_VMID_SHIFT, vttbr};
use tock_registers::interfaces::{Readable, Writeable};

/// EPD0 and EPD1 of TCR_EL1.
const NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// SCTLR_EL1.M.
const STAGE_1_ON: u64 = 1 << 0;

/// Loads the host's stage 2: VMID 0, root at `root`, with CnP clear, so that no CPU's TLB entries are another's.
pub(crate) fn load_host(root: u64) {
    VTTBR_EL2.set(root);
    isb();
}

/// Loads a guest's stage 2. See [`stop_walks`].
pub(crate) fn load_guest(root: TablePage, vmid: u8) {
    VTTBR_EL2.set(vttbr(root, vmid));
    isb();
}

/// Where the CPU needs it, turns the walks of EL1's tables off before another stage 2 is loaded, and answers `true`:
/// they begin again when SCTLR_EL1 and then TCR_EL1 are those that go with the new stage 2.
pub(crate) fn stop_walks() -> bool {
    let careful = cpu::speculates_at();
    if careful {
        TCR_EL1.set(TCR_EL1.get() | NO_WALKS);
        isb();
        // With stage 1 off, every address would translate to itself.
        SCTLR_EL1.set(SCTLR_EL1.get() | STAGE_1_ON);
        isb();
    }
    careful
}

/// Does `work` with `vmid` in VTTBR_EL2. The root stays whose it is: nothing is translated meanwhile, since EL2 does
/// not use this regime, speculation through it is off where it would harm, and what a profiler or a trace unit holds of the
/// host's is written before: with another VMID, its writes would leave the host's translations among a guest's (Arm ARM
/// DDI 0487, D17 and D6: a context is changed after PSB CSYNC or TSB CSYNC, and a DSB). EL2 makes no new records.
pub(crate) fn with_vmid(vmid: u16, work: impl FnOnce()) {
    let loaded = VTTBR_EL2.get();
    if loaded >> VTTBR_VMID_SHIFT == u64::from(vmid) {
        work();
        return;
    }
    if cpu::writes_behind() {
        watchers::write_out();
    }
    let before = cpu::speculates_at().then(|| (TCR_EL1.get(), SCTLR_EL1.get()));
    stop_walks();
    VTTBR_EL2.set(loaded & ((1 << VTTBR_VMID_SHIFT) - 1) | u64::from(vmid) << VTTBR_VMID_SHIFT);
    isb();
    work();
    VTTBR_EL2.set(loaded);
    isb();
    if let Some((tcr, sctlr)) = before {
        SCTLR_EL1.set(sctlr);
        isb();
        TCR_EL1.set(tcr);
        isb();
    }
}
