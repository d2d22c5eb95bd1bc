//! What a guest that is not protected may do with a page that it borrows.

use super::table::RunAt;
use crate::hardware::Hardware;
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::{
    Change, Execute, Shareability, Stage2, Stage2Access, Stage2Attributes, Stage2Memory, Update,
};
use hyp_abi::Status;
use hyp_abi::vm::Permissions;
use hyp_abi::vm_call::GuestRange;

/// Permissions that were checked. Reading is always one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights(Permissions);

impl Rights {
    /// The rights that a register names.
    ///
    /// # Errors
    /// [`Status::InvalidParameter`] without `READ`, or for a bit that is none of them.
    pub(super) fn decode(permissions: u64) -> Result<Self, Status> {
        Permissions::from_bits(permissions)
            .filter(|permissions| permissions.contains(Permissions::READ))
            .map(Self)
            .ok_or(Status::InvalidParameter)
    }

    const fn access(self) -> Stage2Access {
        if self.0.contains(Permissions::WRITE) {
            Stage2Access::all()
        } else {
            Stage2Access::READ
        }
    }

    const fn execute(self) -> Execute {
        if self.0.contains(Permissions::EXECUTE) {
            Execute::All
        } else {
            Execute::Never
        }
    }

    /// How a page with these rights is mapped.
    pub(super) const fn attributes(self) -> Stage2Attributes {
        Stage2Attributes::new(
            Stage2Memory::WriteBack,
            self.access(),
            self.execute(),
            Shareability::Inner,
        )
    }

    /// The change that gives a page these rights, and leaves its access flag as it is.
    fn update(self) -> Update<Stage2> {
        Update::write_protect()
            .then(Update::allow(self.access()))
            .then(Update::execute(self.execute()))
    }

    /// What has to be done before a guest gets these rights: what it may execute, no instruction cache has as it was.
    pub(super) fn prepare(self, hw: &impl Hardware) {
        if self.0.contains(Permissions::EXECUTE) {
            hw.invalidate_code();
        }
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// Changes what the VM that the register `vm` names, which is not protected, may do with the frames that it borrows.
    /// Answers how many guest frame numbers are done, those with no frame among them.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::InvalidParameter`], [`Status::NoSuchVm`], [`Status::WrongVmKind`],
    /// [`Status::GfnOutOfRange`], [`Status::VmNeedsMemory`].
    pub fn guest_set_permissions(
        &self,
        vm: u64,
        range: GuestRange,
        permissions: u64,
    ) -> Result<u64, Refusal> {
        if range.frames == 0 {
            return Err(Status::EmptyRange.into());
        }
        let rights = Rights::decode(permissions)?;
        self.each_run(range, |left| {
            let hw = &self.hw;
            let mut locked = self.vms.lock(hw, vm)?;
            let vm = &mut *locked;
            vm.must_be_protected(false)?;
            let run = vm.run(hw, vm.pages(left.gfn, left.frames)?);
            if let RunAt::Frames(_) = run.at {
                let span = vm.pages(left.gfn, run.frames)?;
                let change = Change::Protect {
                    update: rights.update(),
                };
                if let Some(lacking) = vm.lacks(vm.tables_for(hw, span, change)) {
                    return Err(Refusal::vm_needs(lacking));
                }
                rights.prepare(hw);
                let owed = vm.change(hw, span, change);
                vm.pay(hw, owed);
                if range.frames > 1 {
                    vm.fold(hw, span);
                }
            }
            Ok(run.frames.into())
        })
    }
}
