//! What is done to a VM between its launch and its end: its reserve, its name, its figures.

use super::state::{Life, Vm};
use super::vcpu::VcpuSlot;
use crate::hardware::Hardware;
use crate::ownership::{Ownership, Refusal};
use crate::pgtable::Reserve;
use hyp_abi::vm::{TOP_UP_STEP, VmStatistic};
use hyp_abi::{Counter, Status, VmHandle};

impl<H: Hardware> Vm<H> {
    /// How many vCPUs were created.
    #[must_use]
    pub fn created_vcpus(&self) -> u64 {
        self.vcpus
            .iter()
            .filter(|slot| !matches!(slot, VcpuSlot::Absent))
            .count() as u64
    }

    /// Pages of EL2's that it takes in all: its own, its vCPUs', its table's with the root, and its reserve.
    #[must_use]
    pub fn pages_total(&self) -> u64 {
        1 + self.created_vcpus() + self.root_pages() + self.table_pages + self.reserve.pages()
    }
}

impl<H: Hardware> Ownership<'_, H> {
    /// Moves pages of the pool to a VM's reserve; see [`hyp_abi::VmCall::TopUp`]. Answers how many it then has.
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::EmptyRange`], [`Status::NoMemory`].
    pub fn top_up_vm(&self, vm: u64, pages: u64) -> Result<u64, Refusal> {
        let hw = self.hardware();
        drop(self.vms().lock(hw, vm)?);
        if pages == 0 {
            return Err(Status::EmptyRange.into());
        }
        let free = hw.pool_pages().0;
        if free < pages {
            return Err(Refusal::no_memory(pages - free));
        }
        let mut left = pages;
        loop {
            // Without the lock: zeroing pages takes its time.
            let step = left.min(TOP_UP_STEP);
            let more = Reserve::take(hw, step).ok_or(Refusal::no_memory(left));
            let mut vm = match self.vms().lock(hw, vm) {
                Ok(vm) => vm,
                Err(status) => {
                    if let Ok(more) = more {
                        more.release(hw);
                    }
                    return Err(status.into());
                }
            };
            match more {
                Ok(more) => vm.reserve.append(hw, more),
                Err(refusal) if left == pages => return Err(refusal),
                // Others were faster, and some were moved.
                Err(_) => return Ok(vm.reserve.pages()),
            }
            left -= step;
            if left == 0 {
                return Ok(vm.reserve.pages());
            }
            if hw.interrupt_pending() {
                hw.count(Counter::CallsInterrupted, 1);
                return Ok(vm.reserve.pages());
            }
        }
    }

    /// Gives a VM a new handle; see [`hyp_abi::VmCall::Rename`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::VcpuRunning`], [`Status::WrongVmState`].
    pub fn rename_vm(&self, vm: u64) -> Result<VmHandle, Status> {
        let mut vm = self.vms().lock(self.hardware(), vm)?;
        if vm.running() != 0 {
            return Err(Status::VcpuRunning);
        }
        if vm.life == Life::Dying {
            return Err(Status::WrongVmState);
        }
        Ok(vm.rename())
    }

    /// A figure of a VM; see [`hyp_abi::VmCall::Statistics`].
    ///
    /// # Errors
    /// [`Status::NoSuchVm`], [`Status::InvalidParameter`].
    pub fn vm_statistic(&self, vm: u64, statistic: u64) -> Result<u64, Status> {
        let vm = self.vms().lock(self.hardware(), vm)?;
        let statistic = VmStatistic::try_from(statistic).map_err(|_| Status::InvalidParameter)?;
        Ok(match statistic {
            VmStatistic::FramesPrivate => vm.counts.private,
            VmStatistic::FramesShared => vm.counts.shared,
            VmStatistic::FramesBorrowed => vm.counts.borrowed,
            VmStatistic::ReservePages => vm.reserve.pages(),
            VmStatistic::PagesTotal => vm.pages_total(),
            VmStatistic::Vcpus => vm.created_vcpus(),
            VmStatistic::Relinquished => vm.counts.relinquished,
            VmStatistic::Lost => vm.counts.lost,
        })
    }
}
