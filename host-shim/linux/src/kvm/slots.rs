//! A VM's memory: what `KVM_SET_USER_MEMORY_REGION` and its successor say.

use super::{Memfd, Vm, abi, read_user};
use crate::linux::{Level, Watcher, downcast};
use crate::{Errno, Linux};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use host_shim::memfd::MemfdFlags;
use host_shim::vm::{Loans, MAX_SLOT_PAGES, MAX_SLOTS, UserSlotConfig};
use host_shim::{Error, SlotConfig};
use hyp_abi::FRAME_SIZE;

/// The end of what a process can address: with it, an address is one that the caller could have.
const USER_END: u64 = 1 << 52;

impl<L: Linux> Vm<L> {
    /// `KVM_SET_USER_MEMORY_REGION`.
    pub(super) fn set_region(&self, argument: u64) -> Result<u64, Errno> {
        let region: abi::MemoryRegion = read_user(self.linux(), argument)?;
        // What it has no place to tell it cannot ask for.
        if region.flags & abi::MEM_GUEST_MEMFD != 0 {
            return Err(Errno::INVAL);
        }
        self.set(&abi::MemoryRegion2 {
            region,
            guest_memfd_offset: 0,
            guest_memfd: 0,
            pad: [0; 29],
        })
    }

    /// `KVM_SET_USER_MEMORY_REGION2`.
    pub(super) fn set_region2(&self, argument: u64) -> Result<u64, Errno> {
        self.set(&read_user(self.linux(), argument)?)
    }

    fn set(&self, wanted: &abi::MemoryRegion2) -> Result<u64, Errno> {
        let region = &wanted.region;
        let has_file = region.flags & abi::MEM_GUEST_MEMFD != 0;
        // What has a file is neither.
        let known = if has_file {
            abi::MEM_GUEST_MEMFD
        } else {
            abi::MEM_LOG_DIRTY_PAGES | abi::MEM_READONLY
        };
        let size = region.memory_size;
        let aligned = [size, region.guest_phys_addr, region.userspace_addr]
            .iter()
            .all(|value| value.is_multiple_of(FRAME_SIZE));
        let ends_within = |start: u64, limit: u64| start.checked_add(size).is_some_and(|end| end <= limit);
        let valid = region.flags & !known == 0
            && aligned
            && ends_within(region.userspace_addr, USER_END)
            && (!has_file
                || wanted.guest_memfd_offset.is_multiple_of(FRAME_SIZE)
                    && ends_within(wanted.guest_memfd_offset, u64::MAX))
            && region.slot < MAX_SLOTS
            && ends_within(region.guest_phys_addr, u64::MAX)
            && size / FRAME_SIZE <= MAX_SLOT_PAGES;
        if !valid {
            return Err(Errno::INVAL);
        }
        let _alone = self.regions.lock();
        if size == 0 {
            return self
                .shim()?
                .delete_slot(region.slot)
                .map(|()| 0)
                .map_err(|error| match error {
                    Error::NotFound => Errno::INVAL,
                    error => error.into(),
                });
        }
        let fits = || {
            let fits = ends_within(region.guest_phys_addr, 1 << self.ipa_bits());
            if fits { Ok(()) } else { Err(Errno::FAULT) }
        };
        if has_file {
            self.set_file(wanted, fits)
        } else {
            self.set_own(region, fits)
        }
        .map(|()| 0)
    }

    /// A slot that has a file behind it. It can be made, and not changed.
    fn set_file(
        &self,
        wanted: &abi::MemoryRegion2,
        fits: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let region = &wanted.region;
        fits()?;
        let descriptor = i32::try_from(wanted.guest_memfd).map_err(|_| Errno::BADF)?;
        let file = downcast::<Memfd<L>>(self.linux().find(descriptor)?)?;
        // As under KVM, what no guest keeps to itself is to be seen by the host.
        if !self.is_protected() && !file.file().flags().contains(MemfdFlags::MMAP) {
            return Err(Errno::INVAL);
        }
        Ok(self.shim()?.add_slot(SlotConfig {
            slot: region.slot,
            flags: 0,
            ipa: region.guest_phys_addr,
            size: region.memory_size,
            file: file.file(),
            offset: wanted.guest_memfd_offset,
        })?)
    }

    /// A slot of the caller's own memory. One that there is may begin elsewhere for the guest, and what is written to be kept
    /// or not: all else stays.
    fn set_own(
        &self,
        region: &abi::MemoryRegion,
        fits: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if self.is_protected() {
            // Its memory is a file's: nothing else can be kept from the host.
            return Err(Errno::INVAL);
        }
        let wanted = UserSlotConfig {
            slot: region.slot,
            ipa: region.guest_phys_addr,
            size: region.memory_size,
            address: region.userspace_addr,
            read_only: region.flags & abi::MEM_READONLY != 0,
            logs: region.flags & abi::MEM_LOG_DIRTY_PAGES != 0,
        };
        let shim = self.shim()?;
        let Some(there) = shim.user_slot(region.slot) else {
            if shim.has_slot(region.slot) {
                return Err(Errno::INVAL);
            }
            fits()?;
            return Ok(shim.add_user_slot(wanted)?);
        };
        let is_another = UserSlotConfig {
            ipa: there.ipa,
            logs: there.logs,
            ..wanted
        } != there;
        if is_another {
            return Err(Errno::INVAL);
        }
        if wanted.ipa != there.ipa {
            fits()?;
            shim.move_user_slot(wanted.slot, wanted.ipa)?;
        }
        if wanted.logs != there.logs {
            shim.set_logs(wanted.slot, wanted.logs)?;
        }
        Ok(())
    }

    /// `KVM_GET_DIRTY_LOG`.
    pub(super) fn get_dirty_log(&self, argument: u64) -> Result<u64, Errno> {
        let log: abi::DirtyLog = read_user(self.linux(), argument)?;
        if log.slot >= MAX_SLOTS {
            return Err(Errno::INVAL);
        }
        let _alone = self.regions.lock();
        self.shim()?.take_dirty(log.slot, &mut |pages, bits| {
            let address = log.bitmap.wrapping_add(pages.start / 8);
            self.linux()
                .copy_to_user(address, &bits.to_le_bytes())
                .map_err(|_| Error::NotReachable)
        })?;
        Ok(0)
    }
}

/// The process whose memory the guest borrows, as the kernel tells of it.
#[derive(Debug)]
pub(super) struct Process<L: Linux> {
    linux: L,
    loans: Loans<L>,
    /// How many pages that EL2 did not take back the log knows of.
    told: AtomicU64,
}

impl<L: Linux> Process<L> {
    pub(super) fn new(linux: &L, loans: Loans<L>) -> Self {
        Self {
            linux: linux.clone(),
            loans,
            told: AtomicU64::new(0),
        }
    }

    fn tell(&self) {
        let stuck = self.loans.stuck();
        if self.told.swap(stuck, Ordering::SeqCst) != stuck {
            self.linux.log(
                Level::Error,
                format_args!("EL2 does not take {stuck} pages from a guest: its VM ends"),
            );
        }
    }
}

fn pages(addresses: &Range<u64>) -> Range<u64> {
    addresses.start / FRAME_SIZE..addresses.end.div_ceil(FRAME_SIZE)
}

impl<L: Linux> Watcher for Process<L> {
    fn begin(&self, range: Range<u64>, pause: &mut dyn FnMut()) {
        self.loans.begin(&pages(&range), pause);
        self.tell();
    }

    fn end(&self) {
        self.loans.end();
    }

    fn is_used(&self, range: Range<u64>, forget: bool) -> bool {
        self.loans.is_used(&pages(&range), forget)
    }

    fn over(&self, pause: &mut dyn FnMut()) {
        self.loans.over(pause);
        self.tell();
    }
}
