//! Carrying a call about VMs out on plain lists, along the answer that the system gave.

use super::super::memory::{Layout, Memory};
use super::super::{Holding, World};
use super::Vm;
use super::answer::{Means, refused};
use hyp_abi::vm::VmStatistic;
use hyp_abi::{HostReturn, Status, VmCall};

/// What a call did to frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Frames that are something else now.
    pub changed: Vec<u64>,
    /// What frames hold now, in the order in which they came to: what a guest wrote, or zeros, clean.
    pub contents: Vec<(u64, Option<u64>)>,
}

/// What only the system knows, after a call.
pub(in crate::spec) trait Facts {
    /// Whether a frame was found to be broken.
    fn poisoned(&self, frame: u64) -> bool;
    /// Whether a guest's table says that the page is lost.
    fn lost(&self, slot: u8, gfn: u64) -> bool;
    /// How many of its pages the VM has lost, as it counts them.
    fn lost_count(&self, slot: u8) -> u64;
    /// Pages of the VM's root, of its table, in its reserve.
    fn pages(&self, slot: u8) -> Option<(u64, u64, u64)>;
    /// Whether the VM's guard is in force.
    fn guard(&self, slot: u8) -> bool;
    /// How many frames of a range were mapped by a descriptor that had been used, before the call.
    fn used(&self) -> u64;
}

/// What a call is judged with.
pub(in crate::spec) struct Case<'a> {
    pub(in crate::spec) layout: &'a Layout,
    pub(in crate::spec) world: &'a World,
    pub(in crate::spec) answer: &'a HostReturn,
    pub(in crate::spec) facts: &'a dyn Facts,
    pub(in crate::spec) effect: Effect,
}

impl Case<'_> {
    /// Whether the call was refused for one of these reasons, as it must be if there are any.
    pub(in crate::spec) fn refused(&self, reasons: &[Status]) -> Result<bool, String> {
        refused(self.answer, reasons)
    }

    /// The answer must be success with these results.
    pub(in crate::spec) fn success(&self, values: [u64; 3]) -> Result<(), String> {
        if *self.answer == HostReturn::success(values) {
            return Ok(());
        }
        Err(format!(
            "answered {:x?}, should be success with {values:x?}",
            self.answer
        ))
    }
}

impl Memory {
    /// Follows a call that was answered, and says what it did to frames.
    ///
    /// # Errors
    /// Why the answer is not one that the call may give.
    pub(in crate::spec) fn vm_call(
        &mut self,
        layout: &Layout,
        world: &World,
        call: VmCall,
        answer: &HostReturn,
        facts: &dyn Facts,
    ) -> Result<Effect, String> {
        let mut case = Case {
            layout,
            world,
            answer,
            facts,
            effect: Effect::default(),
        };
        let case = &mut case;
        match call {
            VmCall::Create {
                flags,
                vcpus,
                ipa_bits,
            } => self.create(case, flags, vcpus, ipa_bits),
            VmCall::ForceReclaim { frame } => self.force_reclaim(case, frame),
            VmCall::PinShared(range) => self.pin_shared(case, range),
            VmCall::UnpinShared(range) => self.unpin_shared(case, range),
            VmCall::TakeBack(range) => self.take_back_given_up(case, range),
            VmCall::AddMemory { vm, .. }
            | VmCall::CreateVcpu { vm, .. }
            | VmCall::Launch { vm, .. }
            | VmCall::Digest { vm, .. }
            | VmCall::Run { vm, .. }
            | VmCall::Destroy { vm }
            | VmCall::TopUp { vm, .. }
            | VmCall::Rename { vm }
            | VmCall::Donate { vm, .. }
            | VmCall::Share { vm, .. }
            | VmCall::Unshare { vm, .. }
            | VmCall::Reclaim { vm, .. }
            | VmCall::SetPermissions { vm, .. }
            | VmCall::TestAge { vm, .. }
            | VmCall::Statistics { vm, .. }
            | VmCall::Audit { vm, .. }
            | VmCall::ReadRegister { vm, .. }
            | VmCall::WriteRegister { vm, .. } => match self.vms.named(vm) {
                Some(slot) => self.call_on(case, slot, call),
                None => self.call_on_none(case, call),
            },
        }?;
        Ok(case.effect.clone())
    }

    /// A call that names no VM is told so, unless it has other faults too.
    fn call_on_none(&self, case: &Case<'_>, call: VmCall) -> Result<(), String> {
        let mut reasons = vec![Status::NoSuchVm];
        match call {
            VmCall::Donate { range, .. } | VmCall::Share { range, .. } => {
                reasons.extend(super::super::bad_range(range));
            }
            VmCall::AddMemory { range, .. }
            | VmCall::Unshare { range, .. }
            | VmCall::Reclaim { range, .. }
            | VmCall::SetPermissions { range, .. }
            | VmCall::TestAge { range, .. }
            | VmCall::Audit { range, .. } => {
                if range.frames == 0 {
                    reasons.push(Status::EmptyRange);
                }
                reasons.push(Status::GfnOutOfRange);
            }
            VmCall::TopUp { pages: 0, .. } => reasons.push(Status::EmptyRange),
            VmCall::CreateVcpu { run_page, .. } => {
                reasons.extend(super::super::bad_range(hyp_abi::FrameRange::new(run_page, 1)));
            }
            _ => {}
        }
        if matches!(
            call,
            VmCall::Share { .. }
                | VmCall::SetPermissions { .. }
                | VmCall::Digest { .. }
                | VmCall::Statistics { .. }
        ) {
            reasons.push(Status::InvalidParameter);
        }
        case.refused(&reasons).map(|_| ())
    }

    fn call_on(&mut self, case: &mut Case<'_>, slot: u8, call: VmCall) -> Result<(), String> {
        match call {
            VmCall::AddMemory { range, .. } => self.add_memory(case, slot, range),
            VmCall::CreateVcpu { index, run_page, .. } => self.create_vcpu(case, slot, index, run_page),
            VmCall::Launch { entry, argument, .. } => self.launch(case, slot, entry, argument),
            VmCall::Digest { half, .. } => self.digest(case, slot, half),
            VmCall::Destroy { .. } => self.destroy(case, slot),
            VmCall::TopUp { pages, .. } => self.top_up(case, slot, pages),
            VmCall::Rename { .. } => self.rename(case, slot),
            VmCall::Donate { range, gfn, .. } => self.donate_to_guest(case, slot, range, gfn),
            VmCall::Share {
                range,
                gfn,
                permissions,
                ..
            } => self.share_with_guest(case, slot, range, gfn, permissions),
            VmCall::Unshare { range, .. } => self.unshare_from_guest(case, slot, range),
            VmCall::Reclaim { range, .. } => self.reclaim_from_guest(case, slot, range),
            VmCall::SetPermissions {
                range, permissions, ..
            } => self.set_permissions(case, slot, range, permissions),
            VmCall::TestAge { range, .. } => self.test_age(case, slot, range),
            VmCall::Statistics { statistic, .. } => self.vm_statistic(case, slot, statistic),
            VmCall::Audit { range, .. } => self.audit_guest(case, slot, range),
            VmCall::ReadRegister { index, register, .. } => self.read_register(case, slot, index, register),
            VmCall::WriteRegister {
                index,
                register,
                value,
                ..
            } => self.write_register(case, slot, index, register, value),
            // A run is judged with its script; what is left here is its refusals.
            VmCall::Run { index, .. } => self.run_refused(case, slot, index),
            VmCall::Create { .. }
            | VmCall::ForceReclaim { .. }
            | VmCall::PinShared(_)
            | VmCall::UnpinShared(_)
            | VmCall::TakeBack(_) => Err("the call names no VM".to_owned()),
        }
    }

    /// The VM in a slot that is known to be taken.
    pub(in crate::spec) fn vm(&mut self, slot: u8) -> &mut Vm {
        self.vms.live.get_mut(&slot).expect("the slot is taken")
    }

    /// What a call on a VM has to work with.
    pub(in crate::spec) fn means(&self, case: &Case<'_>, slot: Option<u8>) -> Means {
        Means {
            pool: self.budget(case.layout, case.world).available(),
            reserve: slot
                .and_then(|slot| self.vms.get(slot))
                .map_or(u64::MAX, |vm| vm.reserve),
            region: case.layout.region,
            interrupts: Means::interrupted(case.world),
        }
    }

    /// A frame becomes something else. Which regions are split for it, the system says.
    pub(in crate::spec) fn turn(&mut self, case: &mut Case<'_>, frame: u64, holding: Holding, zero: bool) {
        self.put(case.layout, frame, holding);
        case.effect.changed.push(frame);
        if zero {
            case.effect.contents.push((frame, None));
        }
    }

    fn vm_statistic(&self, case: &Case<'_>, slot: u8, number: u64) -> Result<(), String> {
        let Ok(statistic) = VmStatistic::try_from(number) else {
            return case.refused(&[Status::InvalidParameter]).map(|_| ());
        };
        let vm = &self.vms.live[&slot];
        let (private, shared, borrowed) = vm.counts();
        let value = match statistic {
            VmStatistic::FramesPrivate => private,
            VmStatistic::FramesShared => shared,
            VmStatistic::FramesBorrowed => borrowed,
            VmStatistic::ReservePages => vm.reserve,
            VmStatistic::PagesTotal => vm.pages(),
            VmStatistic::Vcpus => vm.vcpus.len() as u64,
            VmStatistic::Relinquished => vm.relinquished,
            VmStatistic::Lost => vm.lost,
        };
        case.success([value, 0, 0])
    }
}
