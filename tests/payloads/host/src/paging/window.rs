//! The window: pages of address space that a case maps to whatever it likes, as it likes.

use super::{
    ACCESSED, ATTRIBUTE_DEVICE, ATTRIBUTE_NON_CACHEABLE, GIB, NORMAL, READ_ONLY, TABLE_OR_PAGE, Table, USER,
    VALID,
};
use crate::{cpu, sysreg};
use core::sync::atomic::{AtomicU8, Ordering};

/// The GiB of address space that the window begins: the last one below EL0's alias.
pub(super) const FIRST_GIB: usize = 255;

const PAGE: u64 = 4096;
/// Window pages for each CPU.
const PAGES: usize = 8;

static LEVEL_2: Table = Table::new();
static LEVEL_3: Table = Table::new();
/// Which pages of each CPU are taken, a bit each.
static TAKEN: [AtomicU8; cpu::MAX] = [const { AtomicU8::new(0) }; cpu::MAX];

/// Hangs the window's tables together and returns the descriptor of the upper one.
pub(super) fn init() -> u64 {
    LEVEL_2.set(0, LEVEL_3.descriptor());
    LEVEL_2.descriptor()
}

/// How a window page is mapped. All but the device are write-back memory, executable where EL0 or EL1 may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes {
    /// EL1 reads, writes and executes.
    ReadWrite,
    /// EL1 reads and executes.
    ReadOnly,
    /// EL0 and EL1 read and write, EL0 executes.
    User,
    /// EL0 and EL1 read, both execute.
    UserReadOnly,
    /// EL1 reads, writes and executes; not cacheable.
    NonCacheable,
    /// EL1 reads and writes as a device, and may even fetch from it.
    ExecutableDevice,
}

impl Attributes {
    fn descriptor(self, physical: u64) -> u64 {
        let attributes = match self {
            Self::ReadWrite => NORMAL,
            Self::ReadOnly => NORMAL | READ_ONLY,
            Self::User => NORMAL | USER,
            Self::UserReadOnly => NORMAL | USER | READ_ONLY,
            Self::NonCacheable => VALID | ATTRIBUTE_NON_CACHEABLE | ACCESSED,
            Self::ExecutableDevice => VALID | ATTRIBUTE_DEVICE | ACCESSED,
        };
        physical | attributes | TABLE_OR_PAGE
    }
}

/// Neighboring pages of the window, unmapped again when dropped.
#[derive(Debug)]
pub(crate) struct Window {
    first: usize,
    count: usize,
    cpu: usize,
}

impl Window {
    /// `count` neighboring pages out of those of this CPU, not mapped to anything. `None` if too many are taken.
    pub(crate) fn new(count: usize) -> Option<Self> {
        let cpu = cpu::number();
        let all = u8::try_from((1_u32 << count) - 1).ok()?;
        for first in 0..=PAGES - count {
            let mask = all << first;
            let before = TAKEN[cpu].fetch_or(mask, Ordering::Relaxed);
            if before & mask == 0 {
                return Some(Self {
                    first: cpu * PAGES + first,
                    count,
                    cpu,
                });
            }
            TAKEN[cpu].fetch_and(before | !mask, Ordering::Relaxed);
        }
        None
    }

    /// The virtual address of the first page.
    pub(crate) fn address(&self) -> u64 {
        FIRST_GIB as u64 * GIB + self.first as u64 * PAGE
    }

    /// Maps page number `page` of these to `physical`, which is rounded down to a page.
    pub(crate) fn map(&self, page: usize, physical: u64, attributes: Attributes) {
        assert!(page < self.count, "the window has fewer pages");
        self.unmap(page);
        LEVEL_3.set(self.first + page, attributes.descriptor(physical & !(PAGE - 1)));
        sysreg::barrier();
    }

    /// Unmaps page number `page` of these.
    pub(crate) fn unmap(&self, page: usize) {
        LEVEL_3.set(self.first + page, 0);
        sysreg::invalidate_tlb(self.address() + page as u64 * PAGE);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        for page in 0..self.count {
            self.unmap(page);
        }
        let mask = ((1_u16 << self.count) - 1) << (self.first - self.cpu * PAGES);
        TAKEN[self.cpu].fetch_and(!(mask as u8), Ordering::Relaxed);
    }
}
