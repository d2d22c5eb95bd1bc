//! The end of a guest's table and reserve, in steps: how many pages they have is the host's to choose, and no call works
//! for longer than a step once an interrupt waits.

use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::vm::Vm;
use hyp_abi::Counter;

/// The most pages that go back to the pool between two looks for an interrupt.
const STEP: u64 = 64;

impl<H: Hardware> Ownership<'_, H> {
    /// Gives the pages of a VM's reserve, and of its table but for the root, back to the pool, the latter after no TLB
    /// holds anything of its VMID any more. Answers whether all of them are there; if not, an interrupt waits, and the
    /// next call goes on from here. The caller holds the VM's lock, no vCPU of it runs, and no frame is left.
    pub fn dismantle_guest_table(&self, vm: &mut Vm<H>) -> bool {
        debug_assert_eq!(
            vm.counts.left(),
            0,
            "a table with frames in it is not taken apart"
        );
        let hw = &self.hw;
        loop {
            let spare = vm.reserve.pages().min(STEP);
            if let Some(some) = vm.reserve.split(hw, spare) {
                some.release(hw);
            }
            let most = STEP - spare;
            if most > 0 {
                let gone = vm.table.dismantle(hw, most);
                vm.table_pages = vm.table_pages.saturating_sub(gone.tables);
                if gone.whole {
                    return true;
                }
            }
            if hw.interrupt_pending() {
                hw.count(Counter::CallsInterrupted, 1);
                return false;
            }
        }
    }
}
