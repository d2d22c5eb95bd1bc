//! The end of a VM: no vCPU runs any more, every frame goes, and then every page of EL2's that it took.

use super::state::Life;
use super::table::LockedVm;
use super::vcpu::{Vcpu, VcpuSlot};
use crate::addr::FrameSpan;
use crate::hardware::{Hardware, TablePage};
use crate::ownership::Ownership;
use core::mem;
use hyp_abi::Status;

/// What came of an attempt to end a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The VM is gone.
    Gone,
    /// It is dying, and this many frames are still its own or borrowed by it.
    FramesLeft(u64),
    /// It is dying and has no frames, but an interrupt waits, and this many pages of EL2's are still to be given back.
    PagesLeft(u64),
}

impl<H: Hardware> Ownership<'_, H> {
    /// Ends a VM; see [`hyp_abi::VmCall::Destroy`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::VcpuRunning`].
    #[inline(never)]
    pub fn destroy_vm(&self, vm: u64) -> Result<Ended, Status> {
        let mut vm = self.vms().lock(self.hardware(), vm)?;
        if vm.running() != 0 {
            return Err(Status::VcpuRunning);
        }
        vm.life = Life::Dying;
        match vm.counts.left() {
            0 => Ok(self.take_apart(vm)),
            left => Ok(Ended::FramesLeft(left)),
        }
    }

    /// Ends a vCPU, and zeroes the page in which its registers were: the pool would keep them until somebody else needs the
    /// page, over a reset even.
    pub(crate) fn forget_vcpu(&self, vcpu: H::Home<Vcpu>) -> TablePage {
        let page = self.hardware().vacate(vcpu);
        // A page of EL2's own that aborts keeps nothing that anybody could read.
        let _ = self.hardware().scrub(FrameSpan::single(page.frame()));
        page
    }

    /// Gives all pages of a VM that has no frames back to the pool, and its slot free, as far as no interrupt waits.
    fn take_apart(&self, mut vm: LockedVm<'_, H>) -> Ended {
        let hw = self.hardware();
        for slot in 0..usize::from(vm.config.max_vcpus) {
            let Some(place) = vm.vcpus.get_mut(slot) else {
                continue;
            };
            if let VcpuSlot::Resting { home, .. } = mem::replace(place, VcpuSlot::Absent) {
                let run_page = home.run_page;
                hw.free_page(self.forget_vcpu(home));
                self.unpin(run_page)
                    .expect("the run page of a vCPU is shared and pinned, and its region keeps its node");
            }
        }
        if !self.dismantle_guest_table(&mut vm) {
            return Ended::PagesLeft(vm.pages_total());
        }
        let (root, pages) = (vm.table.root(), vm.root_pages());
        // The slot stays locked until the page is out of it; nothing that a new VM there could see is left by then.
        let home = vm.remove();
        hw.give_root(root, pages);
        hw.free_page(hw.vacate(home));
        Ended::Gone
    }
}
