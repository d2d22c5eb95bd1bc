//! The end of a guest's table.

use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::pgtable::Reserve;
use crate::vm::Vm;
use core::mem;

impl<H: Hardware> Ownership<'_, H> {
    /// Gives the pages of a VM's table but for the root, and of its reserve, back to the pool, after no TLB holds anything
    /// of its VMID any more. The caller holds the VM's lock, no vCPU of it runs, and no frame is left.
    pub fn dismantle_guest_table(&self, vm: &mut Vm<H>) {
        debug_assert_eq!(
            vm.counts.left(),
            0,
            "a table with frames in it is not taken apart"
        );
        let freed = vm.table.dismantle(&self.hw);
        vm.table_pages = vm.table_pages.saturating_sub(freed);
        mem::replace(&mut vm.reserve, Reserve::new()).release(&self.hw);
    }
}
