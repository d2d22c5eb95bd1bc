//! Whether an access of a guest that faulted in its stage 2 may go on.
//!
//! The guest's table judges, under the VM's lock: while one CPU breaks a mapping to make another, a second one faults on
//! a page that is the guest's own.

use super::{GuestAccess, GuestVerdict};
use crate::addr::{FRAME_SHIFT, Ipa};
use crate::hardware::Hardware;
use crate::ownership::Ownership;
use crate::pgtable::{Change, Descriptor, Execute, IpaSpan, Stage2Access, Stage2Attributes, Update};
use crate::vm::{GuestAnnotation, Vm};

impl<H: Hardware> Ownership<'_, H> {
    /// Judges an access of the guest in `slot` to `address` that faulted in stage 2, and marks a page that was reached
    /// for the first time since the host last looked.
    pub fn judge_guest_abort(&self, slot: u8, address: Ipa, access: GuestAccess) -> GuestVerdict {
        let Some(mut locked) = self.lock_guest(slot) else {
            return GuestVerdict::Inject;
        };
        let vm = &mut *locked;
        let gfn = address.value() >> FRAME_SHIFT;
        let Some(entry) = vm.table.walk(&self.hw, address) else {
            return GuestVerdict::Inject;
        };
        match entry.descriptor {
            Descriptor::Leaf { attributes, .. } => {
                if !attributes.accessed() {
                    self.mark_accessed(vm, entry.start, entry.pages);
                }
                if allows(attributes, access) {
                    GuestVerdict::Retry
                } else if access == GuestAccess::Write && !vm.is_memory(address.value()) {
                    // Memory of the host's that the guest may only read: what it writes there is for the host to judge.
                    GuestVerdict::Mmio
                } else {
                    GuestVerdict::Missing { gfn }
                }
            }
            Descriptor::Invalid(annotation) => match GuestAnnotation::decode(annotation) {
                GuestAnnotation::Busy => GuestVerdict::Busy,
                GuestAnnotation::Lost => GuestVerdict::Lost { gfn },
                GuestAnnotation::Absent if vm.is_memory(address.value()) => GuestVerdict::Missing { gfn },
                GuestAnnotation::Absent if vm.guard => GuestVerdict::Inject,
                // The host may put memory there yet.
                GuestAnnotation::Absent if access == GuestAccess::Fetch && !vm.config.protected => {
                    GuestVerdict::Missing { gfn }
                }
                // Nobody executes from device registers.
                GuestAnnotation::Absent | GuestAnnotation::Device if access == GuestAccess::Fetch => {
                    GuestVerdict::Inject
                }
                GuestAnnotation::Absent | GuestAnnotation::Device => GuestVerdict::Mmio,
            },
            // A walk ends at what is no table.
            Descriptor::Table(_) => GuestVerdict::Inject,
        }
    }

    /// Sets the access flag of a leaf, whole as it is: no table is needed for that, and no TLB holds a leaf without it.
    fn mark_accessed(&self, vm: &mut Vm<H>, start: Ipa, pages: u64) {
        if let Some(span) = IpaSpan::new(start, pages) {
            let update = Update::mark_accessed();
            let owed = vm.change(&self.hw, span, Change::Protect { update });
            vm.pay(&self.hw, owed);
        }
    }
}

/// Whether a leaf allows an access.
fn allows(attributes: Stage2Attributes, access: GuestAccess) -> bool {
    let data = attributes.access();
    match access {
        GuestAccess::Read => data.contains(Stage2Access::READ),
        GuestAccess::Write => data.contains(Stage2Access::WRITE),
        GuestAccess::Fetch => data.contains(Stage2Access::READ) && attributes.execute() == Execute::All,
    }
}
