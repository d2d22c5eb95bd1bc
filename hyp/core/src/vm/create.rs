//! The beginning of a VM: its slot, its memory ranges, its vCPUs.

use super::context::VcpuContext;
use super::state::{Life, MemoryCounts, Vm, VmConfig};
use super::table::{LockedSlot, LockedVm};
use super::vcpu::{Pending, Power, Start, Vcpu, VcpuSlot};
use crate::addr::{FRAME_SHIFT, Frame, Ipa};
use crate::hardware::{Hardware, Regime, TablePage};
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::{IpaSpan, Reserve, Stage2, Table};
use arrayvec::ArrayVec;
use core::array;
use hyp_abi::vm::{IPA_BITS, MAX_VCPUS, VmFlags};
use hyp_abi::{GuestRange, Status, VmHandle};
use sha2::{Digest, Sha256};

/// Where a vCPU would begin of which nobody has said it yet.
const NEVER_ON: Start = Start {
    entry: 0,
    argument: 0,
};

/// A new VM's table: where walks start, and how many pages its root takes.
#[derive(Clone, Copy)]
struct Shape {
    start_level: u8,
    root_pages: u64,
}

/// The shape of a table for IPAs of `ipa_bits`. Level 1, where 1 GiB blocks are, as long as 16 concatenated tables
/// suffice (43 bits); a start level of 0 does not exist on CPUs of 43 bits or less (Arm ARM DDI 0487, D8.2.2).
fn shape<H: Hardware>(ipa_bits: u32) -> Option<Shape> {
    [1, 0].into_iter().find_map(|start_level| {
        let root_pages = Table::<Stage2, H::Geometry>::root_tables(start_level, ipa_bits)?;
        Some(Shape {
            start_level,
            root_pages,
        })
    })
}

impl<H: Hardware> Vm<H> {
    /// How many pages the root of its table takes.
    #[must_use]
    pub fn root_pages(&self) -> u64 {
        Table::<Stage2, H::Geometry>::root_tables(self.table.start_level(), self.table.ia_bits()).unwrap_or(1)
    }

    /// The index of a vCPU that a register names, if it can have one of that index.
    ///
    /// # Errors
    /// [`Status::NoSuchVcpu`].
    #[inline]
    pub(super) fn checked_index(&self, hw: &H, index: u64) -> Result<u8, Status> {
        let index = u8::try_from(index)
            .ok()
            .filter(|index| *index < self.config.max_vcpus)
            .ok_or(Status::NoSuchVcpu)?;
        Ok(hw.bounded(index.into(), self.vcpus.len()) as u8)
    }

    /// The guest frames that a register names, if the VM can have them.
    ///
    /// # Errors
    /// [`Status::EmptyRange`], [`Status::GfnOutOfRange`].
    fn checked_range(&self, range: GuestRange) -> Result<IpaSpan, Status> {
        if range.frames == 0 {
            return Err(Status::EmptyRange);
        }
        let start = range
            .gfn
            .checked_mul(1 << FRAME_SHIFT)
            .and_then(Ipa::new)
            .ok_or(Status::GfnOutOfRange)?;
        IpaSpan::new(start, range.frames)
            .filter(|span| self.table.contains(*span))
            .ok_or(Status::GfnOutOfRange)
    }
}

/// The fewest and the most bits that a guest's IPAs can have.
pub fn possible_ipa_bits<H: Hardware>(hw: &H) -> core::ops::RangeInclusive<u32> {
    let support = hw.guest_support();
    support.min_ipa_bits..=support.max_ipa_bits.min(*IPA_BITS.end() as u32)
}

impl<H: Hardware> Ownership<'_, H> {
    /// Creates a VM; see [`hyp_abi::VmCall::Create`]. Answers its handle.
    ///
    /// # Errors
    /// [`Status::InvalidParameter`], [`Status::NoVmSlot`], [`Status::NoMemory`].
    #[inline(never)]
    pub fn create_vm(&self, flags: u64, vcpus: u64, ipa_bits: u64) -> Result<VmHandle, Refusal> {
        let hw = self.hardware();
        let flags = VmFlags::from_bits(flags).ok_or(Status::InvalidParameter)?;
        let max_vcpus = u8::try_from(vcpus)
            .ok()
            .filter(|vcpus| (1..=MAX_VCPUS).contains(&usize::from(*vcpus)))
            .ok_or(Status::InvalidParameter)?;
        let ipa_bits = u32::try_from(ipa_bits)
            .ok()
            .filter(|bits| possible_ipa_bits(hw).contains(bits))
            .ok_or(Status::InvalidParameter)?;
        let shape = shape::<H>(ipa_bits).ok_or(Status::InvalidParameter)?;
        let config = VmConfig {
            protected: flags.contains(VmFlags::PROTECTED),
            guard_required: flags.contains(VmFlags::GUARD_REQUIRED),
            max_vcpus,
            ipa_bits,
        };

        let slot = self.empty_slot().ok_or(Status::NoVmSlot)?;
        let lacking = Refusal::no_memory(1 + shape.root_pages);
        let root = hw.take_root(shape.root_pages).ok_or(lacking)?;
        let Some(page) = hw.allocate_page() else {
            hw.give_root(root, shape.root_pages);
            return Err(lacking);
        };
        Ok(self.settle_vm(slot, config, shape.start_level, root, page))
    }

    /// The lock of a slot in which no VM lives.
    fn empty_slot(&self) -> Option<LockedSlot<'_, H>> {
        (1..=self.vms().places())
            .filter_map(|slot| u8::try_from(slot).ok())
            .filter_map(|slot| self.vms().lock_slot(self.hardware(), slot))
            .find(LockedSlot::is_empty)
    }

    /// Lets a VM live in a slot.
    fn settle_vm(
        &self,
        mut slot: LockedSlot<'_, H>,
        config: VmConfig,
        start_level: u8,
        root: TablePage,
        page: TablePage,
    ) -> VmHandle {
        let handle = slot.next_handle();
        let regime = Regime::Guest(u16::from(handle.slot));
        let table = Table::new(root, start_level, config.ipa_bits, regime)
            .expect("a root from the pool is aligned to its whole size");
        let vm = Vm {
            handle,
            config,
            life: Life::Created,
            table,
            reserve: Reserve::new(),
            counts: MemoryCounts::default(),
            table_pages: 0,
            ranges: ArrayVec::new(),
            digest: Sha256::new(),
            guard: config.guard_required,
            vcpus: array::from_fn(|_| VcpuSlot::Absent),
        };
        slot.occupy(self.hardware().settle(page, vm));
        handle
    }

    /// Takes the lock of a VM that is not launched yet.
    fn lock_created(&self, vm: u64) -> Result<LockedVm<'_, H>, Status> {
        let vm = self.vms().lock(self.hardware(), vm)?;
        match vm.life {
            Life::Created => Ok(vm),
            Life::Launched { .. } | Life::Dying => Err(Status::WrongVmState),
        }
    }

    /// Declares a range of a VM's memory; see [`hyp_abi::VmCall::AddMemory`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmState`], [`Status::EmptyRange`], [`Status::GfnOutOfRange`],
    /// [`Status::InvalidParameter`].
    pub fn add_vm_memory(&self, vm: u64, range: GuestRange) -> Result<(), Status> {
        let mut vm = self.lock_created(vm)?;
        let span = vm.checked_range(range)?;
        // The place of the new range, and whether the ranges on both sides leave room for it.
        let place = vm
            .ranges
            .iter()
            .take_while(|other| other.start() < span.start())
            .count();
        let before = place
            .checked_sub(1)
            .and_then(|place| vm.ranges.get(place))
            .is_none_or(|other| other.end() <= span.start().value());
        let after = vm
            .ranges
            .get(place)
            .is_none_or(|other| span.end() <= other.start().value());
        if !before || !after {
            return Err(Status::InvalidParameter);
        }
        vm.ranges
            .try_insert(place, span)
            .map_err(|_| Status::InvalidParameter)
    }

    /// Creates a vCPU; see [`hyp_abi::VmCall::CreateVcpu`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::WrongVmState`], [`Status::NoSuchVcpu`], [`Status::VcpuExists`], those of
    /// [`Ownership::pin`].
    #[inline(never)]
    pub fn create_vcpu(&self, vm: u64, index: u64, run_page: Frame) -> Result<(), Refusal> {
        let hw = self.hardware();
        let mut vm = self.lock_created(vm)?;
        let index = vm.checked_index(hw, index)?;
        let place = vm.vcpus.get_mut(usize::from(index)).ok_or(Status::NoSuchVcpu)?;
        if !matches!(place, VcpuSlot::Absent) {
            return Err(Status::VcpuExists.into());
        }
        self.judge_pin(run_page)?;
        // The page before the pin: one that is taken off again leaves the node behind that it took.
        let page = hw.allocate_page().ok_or(Refusal::no_memory(1))?;
        if let Err(refusal) = self.pin(run_page) {
            hw.free_page(page);
            let own = u64::from(refusal.status == Status::NoMemory);
            return Err(Refusal {
                pages_needed: refusal.pages_needed + own,
                ..refusal
            });
        }
        let vcpu = Vcpu {
            context: VcpuContext::default(),
            run_page,
            start: None,
            pending: Pending::Nothing,
            undelivered: None,
        };
        let mut home = hw.settle(page, vcpu);
        // The host of a VM that is not protected may look before it is first turned on, or turn it on itself.
        home.context.begin_at(index, NEVER_ON);
        *place = VcpuSlot::Resting {
            home,
            power: Power::Off,
        };
        Ok(())
    }
}
