//! Frames from the kernel's allocator, and who pays for them.

use crate::Linux;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};
use host_shim::account::{Account, OverLimit, Purpose};
use host_shim::provider::{Allocated, Contents, Provider, Source};
use host_shim::sync::Mutex;
use host_shim::{Block, Hypervisor, REGION_ORDER};
use hyp_abi::{FRAME_SIZE, FrameRange, FrameState, REGION_SIZE};

/// The kernel's allocator as a provider of single frames and blocks of up to 2 MiB.
///
/// It remembers from where it took them: what EL2 took from the host in parts, it maps in parts, and that costs it pages
/// until it is told to look again.
#[derive(Debug)]
pub struct Pages<L: Linux> {
    linux: L,
    /// The 2 MiB regions from which frames were taken, by number, that may be mapped in parts.
    regions: Mutex<L, BTreeSet<u64>>,
}

impl<L: Linux> Pages<L> {
    /// The kernel's allocator.
    pub fn new(linux: L) -> Self {
        Self {
            linux,
            regions: Mutex::<L, _>::new(BTreeSet::new()),
        }
    }

    /// Has EL2 map in one piece again what can be. Returns whether there was any.
    pub fn collapse(&self, hypervisor: &Hypervisor<L>) -> bool {
        // In place: to collect a set is to sort, and that takes 4 KiB of the stack.
        let mut left = core::mem::take(&mut *self.regions.lock());
        let before = left.len();
        left.retain(|region| {
            self.linux.pause();
            !is_collapsed(hypervisor, region * REGION_SIZE)
        });
        let any = left.len() < before;
        self.regions.lock().append(&mut left);
        any
    }
}

/// Has EL2 map a region in one piece, and says whether it does.
fn is_collapsed<L: Linux>(hypervisor: &Hypervisor<L>, address: u64) -> bool {
    // Where it is refused the region is not one that ever was in one piece.
    hypervisor
        .collapse(FrameRange::new(address, REGION_SIZE / FRAME_SIZE))
        .is_err()
        || hypervisor
            .frame_state(address)
            .is_ok_and(|info| info.state == FrameState::Host && info.extent >= REGION_SIZE)
}

impl<L: Linux> Provider for Pages<L> {
    fn orders(&self) -> RangeInclusive<u8> {
        0..=REGION_ORDER
    }

    fn allocate(&self, order: u8, contents: Contents) -> Option<Allocated> {
        let allocated = self.linux.allocate_frames(order, contents == Contents::Zeroed)?;
        self.regions.lock().insert(allocated.pfn.address() / REGION_SIZE);
        Some(allocated)
    }

    fn free(&self, block: Block) {
        self.linux.free_frames(block);
    }
}

/// How many frames are in use, for each purpose.
#[derive(Debug, Default)]
pub struct Usage {
    guest: AtomicU64,
    hypervisor: AtomicU64,
    run_pages: AtomicU64,
}

impl Usage {
    /// How many frames are in use for a purpose.
    #[must_use]
    pub fn of(&self, purpose: Purpose) -> u64 {
        self.counter(purpose).load(Ordering::Relaxed)
    }

    const fn counter(&self, purpose: Purpose) -> &AtomicU64 {
        match purpose {
            Purpose::Guest => &self.guest,
            Purpose::Hypervisor => &self.hypervisor,
            Purpose::RunPage => &self.run_pages,
        }
    }
}

/// Who pays for frames. The memory control group is charged where they are allocated; here they are counted, and those
/// of a protected guest, which nothing can move or swap out, are held against `RLIMIT_MEMLOCK`, as KVM holds the pages that
/// it pins for one.
#[derive(Debug)]
pub struct Ledger<L: Linux> {
    pages: Arc<Pages<L>>,
    /// Whose limit counts, if there is one.
    space: Option<Arc<L::Space>>,
    usage: Usage,
    total: Arc<Usage>,
}

impl<L: Linux> Ledger<L> {
    /// A ledger whose frames are also counted in `total`. With an address space, guest memory counts as locked there.
    pub fn new(pages: Arc<Pages<L>>, space: Option<Arc<L::Space>>, total: Arc<Usage>) -> Self {
        Self {
            pages,
            space,
            usage: Usage::default(),
            total,
        }
    }

    /// Frames of the kernel's, paid for here.
    pub fn source(self: &Arc<Self>) -> Source {
        let (pages, account) = (Arc::clone(&self.pages), Arc::clone(self));
        Source::new(pages, account)
    }

    /// What is in use.
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    fn payer(&self, purpose: Purpose) -> Option<&L::Space> {
        self.space.as_deref().filter(|_| purpose == Purpose::Guest)
    }
}

impl<L: Linux> Account for Ledger<L> {
    fn charge(&self, purpose: Purpose, frames: u64) -> Result<(), OverLimit> {
        if let Some(space) = self.payer(purpose)
            && !self.pages.linux.lock_frames(space, frames)
        {
            return Err(OverLimit);
        }
        for usage in [&self.usage, &self.total] {
            usage.counter(purpose).fetch_add(frames, Ordering::Relaxed);
        }
        Ok(())
    }

    fn uncharge(&self, purpose: Purpose, frames: u64) {
        for usage in [&self.usage, &self.total] {
            usage.counter(purpose).fetch_sub(frames, Ordering::Relaxed);
        }
        if let Some(space) = self.payer(purpose) {
            self.pages.linux.unlock_frames(space, frames);
        }
    }
}
