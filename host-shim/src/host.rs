//! What all VMs of a host have in common: the way to EL2, and the pages that EL2 is given when it lacks some.

use crate::account::Purpose;
use crate::frames::{MAX_ORDER, aligned_pieces};
use crate::provider::{Contents, Source};
use crate::range_set::RangeSet;
use crate::sync::Mutex;
use crate::{Block, CallError, Error, Hypervisor, Kernel, PartError, Pfn, RangeError};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_abi::{FrameRange, Status, VmHandle};

/// EL2's pool is given 16 pages at a time, so that most calls find some.
const BATCH_ORDER: u8 = 4;

/// How often in a row one call may ask for pages. It needs a few at most: its tables, and the pages that hold the
/// record of these.
const TRIES_FOR_PAGES: u32 = 16;

/// How often in a row a call is tried again while another CPU is at work on a frame. The other scrubs 2 MiB at most, which
/// takes a millisecond; this is seconds where [`Kernel::relax`] sleeps, and tens of milliseconds where it does not.
const TRIES_WHILE_BUSY: u32 = 1 << 16;

/// EL2 and a source of pages for it. Every VM holds on to the one that it was created with.
#[derive(Debug)]
pub struct Host<K: Kernel> {
    hypervisor: Hypervisor<K>,
    source: Source,
    batch_order: u8,
    /// The frames that were given to EL2's pool and did not come back.
    given: Mutex<K, RangeSet>,
    next_vm: AtomicU64,
}

impl<K: Kernel> Host<K> {
    /// A host whose pages for EL2, and run pages, come from `source`.
    pub fn new(kernel: K, source: Source) -> Arc<Self> {
        Self::with_batches(kernel, source, BATCH_ORDER)
    }

    /// As [`Host::new`], and EL2's pool is given blocks of 2^`batch_order` frames when it lacks some and they can be had.
    ///
    /// If they are regions of 2 MiB, EL2 needs no tables for them, and so can give all of them back once it needs no
    /// tables for anything else. What it was given in parts of regions may hold the tables of these very regions.
    pub fn with_batches(kernel: K, source: Source, batch_order: u8) -> Arc<Self> {
        Arc::new(Self {
            hypervisor: Hypervisor::new(kernel),
            source,
            batch_order,
            given: Mutex::<K, _>::new(RangeSet::new()),
            next_vm: AtomicU64::new(1),
        })
    }

    /// The typed calls.
    pub const fn hypervisor(&self) -> &Hypervisor<K> {
        &self.hypervisor
    }

    /// The kernel.
    pub const fn kernel(&self) -> &K {
        self.hypervisor.hypercall()
    }

    /// How many frames EL2's pool was given and has not given back.
    #[must_use]
    pub fn given_frames(&self) -> u64 {
        self.given.lock().len()
    }

    /// Gives EL2's pool at least `pages` pages.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::OverLimit`] or EL2's refusal. What was given by then stays given.
    pub fn supply(&self, pages: u64) -> Result<(), Error> {
        let mut missing = pages;
        // In one piece if that can be had: EL2 then splits one of the host's blocks and not many.
        let mut order = pages.min(1 << MAX_ORDER).next_power_of_two().trailing_zeros() as u8;
        while missing > 0 {
            match self.source.allocate(Purpose::Hypervisor, order, Contents::Any) {
                Ok(allocated) => {
                    let given = self.give(Block::new(allocated.pfn, order))?;
                    missing = missing.saturating_sub(given);
                }
                Err(_) if order > 0 => {
                    order -= 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives EL2's pool a block of the source's. Returns how many frames of it: those that turn out to be broken are lost, to
    /// the source too.
    fn give(&self, block: Block) -> Result<u64, Error> {
        let start = block.pfn.number();
        let end = start + block.frames();
        let (mut at, mut lost) = (start, 0);
        while at < end {
            let rest = FrameRange::new(at * hyp_abi::FRAME_SIZE, end - at);
            let given = self.hypervisor.pool_top_up(rest);
            let done = given.map_or_else(|error| error.done, |()| rest.frames);
            self.given.lock().insert(at..at + done);
            at += done;
            match given {
                Ok(()) => {}
                Err(error) if error.error.status() == Some(Status::Poisoned) => {
                    at += 1;
                    lost += 1;
                }
                Err(error) => {
                    self.free_frames(at, end);
                    return Err(error.into());
                }
            }
        }
        Ok(block.frames() - lost)
    }

    /// Takes back what EL2's pool does not use, and frees it. Returns how many frames.
    ///
    /// # Errors
    /// EL2's refusal. What came back by then is free.
    pub fn drain(&self) -> Result<u64, Error> {
        let mut freed = 0;
        while self.given_frames() > 0 {
            let Some(range) = self.hypervisor.pool_drain(u64::MAX)? else {
                break;
            };
            let start = range.base / hyp_abi::FRAME_SIZE;
            let end = start + range.frames;
            let (mut at, before) = (start, freed);
            while at < end {
                let ours = self.given.lock().first_in(at..end).unwrap_or(end..end);
                // Somebody else gave what is not ours. It goes back to the pool, since nobody here knows whose it is.
                let foreign = FrameRange::new(at * hyp_abi::FRAME_SIZE, ours.start - at);
                if foreign.frames > 0 {
                    self.hypervisor.pool_top_up(foreign).map_err(Error::from)?;
                }
                self.given.lock().remove(ours.clone());
                self.free_frames(ours.start, ours.end);
                freed += ours.end - ours.start;
                at = ours.end;
            }
            if freed == before {
                // Only what is not ours is free.
                break;
            }
        }
        Ok(freed)
    }

    /// Asked by what may take long, where it may stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: whoever asked for it is being killed.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.kernel().is_killed() {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// The number of a new VM, which no other VM of this host has.
    pub(crate) fn next_vm(&self) -> u64 {
        self.next_vm.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) const fn source(&self) -> &Source {
        &self.source
    }

    /// Makes a call, gives EL2 the pages that it or the VM lacks, and tries again while another CPU is in the way.
    pub(crate) fn call<T>(
        &self,
        vm: Option<VmHandle>,
        attempt: impl Fn() -> Result<T, CallError>,
    ) -> Result<T, Error> {
        self.kernel().pause();
        let (mut asked, mut waited) = (0, 0);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => self.overcome(vm, error, &mut asked, &mut waited)?,
            }
        }
    }

    /// As [`Host::call`], for a ranged call. `attempt` begins after the first so many frames.
    pub(crate) fn call_range(
        &self,
        vm: Option<VmHandle>,
        attempt: impl Fn(u64) -> Result<(), RangeError>,
    ) -> Result<(), PartError> {
        self.kernel().pause();
        let (mut asked, mut waited, mut done) = (0, 0, 0);
        loop {
            match attempt(done) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if error.done > 0 {
                        (asked, waited) = (0, 0);
                        done += error.done;
                    }
                    self.overcome(vm, error.error, &mut asked, &mut waited)
                        .map_err(|error| PartError { done, error })?;
                }
            }
        }
    }

    /// Removes the reason for a refusal, if it is one that passes. Who is killed waits for nobody.
    fn overcome(
        &self,
        vm: Option<VmHandle>,
        error: CallError,
        asked: &mut u32,
        waited: &mut u32,
    ) -> Result<(), Error> {
        if error.status() == Some(Status::Busy) && *waited < TRIES_WHILE_BUSY {
            self.go_on()?;
            *waited += 1;
            self.kernel().relax();
            return Ok(());
        }
        if *asked == TRIES_FOR_PAGES {
            return Err(error.into());
        }
        *asked += 1;
        if let Some(pages) = error.pages_needed() {
            self.supply_some(pages)
        } else if let (Some(pages), Some(vm)) = (error.vm_pages_needed(), vm) {
            self.top_up(vm, pages).map(drop)
        } else {
            Err(error.into())
        }
    }

    /// Moves pages to the reserve of a VM, and returns how many that holds.
    pub(crate) fn top_up(&self, vm: VmHandle, pages: u64) -> Result<u64, Error> {
        let (mut left, mut tries) = (pages.max(1), 0);
        loop {
            let RangeError { done, error } = match self.hypervisor.top_up_vm(vm, left) {
                Ok(held) => return Ok(held),
                Err(stopped) => stopped,
            };
            if done > 0 {
                left -= done;
                tries = 0;
            }
            match error.pages_needed() {
                Some(missing) if tries < TRIES_FOR_PAGES => self.supply_some(missing)?,
                _ => return Err(error.into()),
            }
            tries += 1;
        }
    }

    /// Gives the pool what it lacks, and more if there is more.
    fn supply_some(&self, pages: u64) -> Result<(), Error> {
        if pages <= 1 << self.batch_order
            && let Ok(allocated) = self
                .source
                .allocate(Purpose::Hypervisor, self.batch_order, Contents::Any)
        {
            return self.give(Block::new(allocated.pfn, self.batch_order)).map(drop);
        }
        self.supply(pages.max(1 << BATCH_ORDER))
            .or_else(|_| self.supply(pages.max(1)))
    }

    fn free_frames(&self, start: u64, end: u64) {
        for (start, order) in aligned_pieces(start, end - start) {
            if let Some(pfn) = Pfn::new(start) {
                self.source.free(Purpose::Hypervisor, Block::new(pfn, order));
            }
        }
    }
}
