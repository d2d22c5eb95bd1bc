//! The pool of pages for tables and nodes: two buddy heaps behind one lock, each with a list of single pages in front
//! ([`hyp_core::pool`]).
//!
//! What EL2 reserved at boot and what the host donated are kept apart, because only the latter can be given back.
//! Pages of the boot are used first. Heaps and lists live in the free pages themselves, so they only ever
//! hold pages that EL2 owns and has mapped; a page is zeroed when it is handed out: it may have been a table before.
//!
//! What the host brings was proven to answer ([`hyp_core::Hardware::prove`]). Memory may break later. A page that answers
//! with an abort as it is zeroed is set aside, and the next one taken: it stays EL2's by the map, and in the number of the
//! pool's pages, but is never free again, and so never the host's. It cannot become `Poisoned` here, since whoever takes a
//! page may hold the lock of any region. A page whose first words break, where the links are, ends EL2, and so does one
//! that breaks while it is a table, a node or the home of a VM: no call could go on without what was in it.

#![expect(unsafe_code, reason = "hands memory to an allocator and takes it back")]

use crate::cache;
use crate::hardware::Machine;
use buddy_system_allocator::Heap;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use hyp_abi::Counter;
use hyp_core::Hardware;
use hyp_core::addr::{FRAME_SIZE, Frame, FrameSpan, PhysAddr};
use hyp_core::hardware::TablePage;
use hyp_core::pool::{Blocks, Stock, sound_or_another};
use spin::Mutex;

/// Blocks up to 2 MiB are kept whole.
const ORDERS: usize = 22;

/// The most frames that the pool gives back in one piece: 64 KiB.
const MAX_TAKEN: u64 = 16;

/// The pool.
static POOL: Mutex<Pool> = Mutex::new(Pool::new());

struct Pool {
    /// What the boot reserved.
    boot: Stock<Buddies>,
    /// What the host donated.
    donated: Stock<Buddies>,
    /// All that the boot reserved lies in here.
    reservation: Option<FrameSpan>,
    free: u64,
    total: u64,
}

impl Pool {
    const fn new() -> Self {
        Self {
            boot: Stock::new(Buddies(Heap::empty())),
            donated: Stock::new(Buddies(Heap::empty())),
            reservation: None,
            free: 0,
            total: 0,
        }
    }

    /// Where a frame belongs.
    fn stock_of(&mut self, frame: Frame) -> &mut Stock<Buddies> {
        let is_of_boot = self
            .reservation
            .is_some_and(|reservation| reservation.contains(frame));
        if is_of_boot {
            &mut self.boot
        } else {
            &mut self.donated
        }
    }

    fn take_block(&mut self, frames: u64) -> Option<Frame> {
        let boot = self.boot.blocks().take(frames);
        boot.or_else(|| self.donated.blocks().take(frames))
    }
}

/// A heap of blocks.
struct Buddies(Heap<ORDERS>);

impl Blocks for Buddies {
    fn take(&mut self, frames: u64) -> Option<Frame> {
        self.0.alloc(layout(frames)).ok().map(frame_of)
    }

    fn give(&mut self, first: Frame, frames: u64) {
        let address: *mut u8 = ptr::with_exposed_provenance_mut(first.address().value() as usize);
        if let Some(address) = NonNull::new(address) {
            // SAFETY: what is given here was taken from this heap, with this layout: `stock_of` finds the heap.
            unsafe { self.0.dealloc(address, layout(frames)) };
        }
    }
}

/// The layout of a block of `frames` frames, a power of two up to [`MAX_TAKEN`].
fn layout(frames: u64) -> Layout {
    let bytes = (frames * FRAME_SIZE) as usize;
    Layout::from_size_align(bytes, bytes).expect("a power of two up to 64 KiB is a layout")
}

fn frame_of(block: NonNull<u8>) -> Frame {
    PhysAddr::new(block.addr().get() as u64)
        .expect("the pool's pages lie below 2^48")
        .frame()
}

/// Says which frames EL2 reserved at boot: they never leave the pool. Called before any are added.
pub(crate) fn set_reservation(reservation: FrameSpan) {
    POOL.lock().reservation = Some(reservation);
}

/// Adds frames.
///
/// # Safety
/// The frames are EL2's, mapped for writing at their own address, used for nothing else, and not in the pool.
pub(crate) unsafe fn add(frames: FrameSpan) {
    let start = frames.start().address().value() as usize;
    let mut pool = POOL.lock();
    pool.free += frames.frames();
    pool.total += frames.frames();
    let Buddies(heap) = pool.stock_of(frames.start()).blocks();
    // SAFETY: the caller vouches that the memory is ours and unused. It stays so until `take` removes it.
    unsafe { heap.add_to_heap(start, start + frames.bytes() as usize) };
}

/// A zeroed page, or `None` if there is none. Takes the same time however many are free. Not to be called before the data
/// of this CPU is installed: what is set aside is counted there.
pub(crate) fn allocate() -> Option<TablePage> {
    zeroed(take_page()?, 1, take_page_again)
}

/// `frames` zeroed pages side by side, a power of two up to [`MAX_TAKEN`], aligned to their whole size; `None` if there
/// are none. Named by the first.
pub(crate) fn allocate_block(frames: u64) -> Option<TablePage> {
    if frames == 1 {
        return allocate();
    }
    zeroed(take_block(frames)?, frames, || take_block_again(frames))
}

// In two copies: the one that is taken in place of a broken one must not cost all the others a call.
#[cold]
#[inline(never)]
fn take_page_again() -> Option<Frame> {
    take_page()
}

#[inline(always)]
fn take_page() -> Option<Frame> {
    let mut pool = POOL.lock();
    let page = pool
        .boot
        .take_page(&Machine)
        .or_else(|| pool.donated.take_page(&Machine))?;
    pool.free -= 1;
    Some(page.frame())
}

#[cold]
#[inline(never)]
fn take_block_again(frames: u64) -> Option<Frame> {
    take_block(frames)
}

#[inline(always)]
fn take_block(frames: u64) -> Option<Frame> {
    let mut pool = POOL.lock();
    let first = pool.take_block(frames).or_else(|| {
        let joined = [pool.boot.join(&Machine), pool.donated.join(&Machine)];
        if joined.contains(&true) {
            pool.take_block(frames)
        } else {
            None
        }
    })?;
    pool.free -= frames;
    Some(first)
}

/// The block of `frames` frames that begins with `first`, zeroed; or another of as many that `take` gives, if it is broken.
#[inline(always)]
fn zeroed(first: Frame, frames: u64, take: impl FnMut() -> Option<Frame>) -> Option<TablePage> {
    let zero = |first| zero(first, frames);
    let aside = |first, broken| set_aside(first, frames, broken);
    sound_or_another(first, take, zero, aside).map(TablePage::new)
}

/// Zeroes what was just taken, or answers the frame that answered with an abort.
#[inline(always)]
fn zero(first: Frame, frames: u64) -> Result<(), Frame> {
    let start = first.address().value();
    // SAFETY: the pages came from the pool, so they are mapped and nobody else has them.
    unsafe { cache::zero(start, start + frames * FRAME_SIZE) }.map_err(|at| {
        let broken = first.checked_add(at.saturating_sub(start) / FRAME_SIZE);
        broken.unwrap_or(first)
    })
}

/// Takes back what was just taken, but for the frame of it that is broken: nobody gets that any more.
#[cold]
#[inline(never)]
fn set_aside(first: Frame, frames: u64, broken: Frame) {
    Machine.count(Counter::PoolPagesBroken, 1);
    let mut pool = POOL.lock();
    pool.free += frames - 1;
    pool.stock_of(first).give_around(&Machine, first, frames, broken);
}

/// Takes a page back. Takes the same time however many are free.
pub(crate) fn free(page: TablePage) {
    let mut pool = POOL.lock();
    pool.free += 1;
    pool.stock_of(page.frame()).give_page(&Machine, page);
}

/// Takes back what [`allocate_block`] gave.
pub(crate) fn free_block(page: TablePage, frames: u64) {
    if frames == 1 {
        return free(page);
    }
    let mut pool = POOL.lock();
    pool.free += frames;
    pool.stock_of(page.frame()).blocks().give(page.frame(), frames);
}

/// Takes at most `limit` donated frames out of the pool for good, in one naturally aligned block.
pub(crate) fn take(limit: u64) -> Option<FrameSpan> {
    let mut frames = MAX_TAKEN.min(1 << limit.checked_ilog2()?.min(63));
    let mut pool = POOL.lock();
    let first = loop {
        let first = if frames == 1 {
            pool.donated.take_page(&Machine).map(TablePage::frame)
        } else {
            pool.donated.blocks().take(frames)
        };
        match first {
            Some(first) => break first,
            None if frames == 1 => return None,
            None => frames /= 2,
        }
    };
    pool.free -= frames;
    pool.total -= frames;
    FrameSpan::new(first, frames)
}

/// How many pages are free, and how many there are.
pub(crate) fn pages() -> (u64, u64) {
    let pool = POOL.lock();
    (pool.free, pool.total)
}

/// Room for something that stays for good: `bytes` bytes in whole pages, in one piece, zeroed. For the boot, which ends
/// where the memory that it reserved answers with an abort.
pub(crate) fn allocate_for_good(bytes: u64) -> Option<PhysAddr> {
    let frames = bytes.div_ceil(FRAME_SIZE).max(1).next_power_of_two();
    let size = (frames * FRAME_SIZE) as usize;
    let layout = Layout::from_size_align(size, size).ok()?;
    let mut pool = POOL.lock();
    let block = pool.boot.blocks().0.alloc(layout).ok()?;
    pool.free -= frames;
    drop(pool);
    let first = frame_of(block);
    zero(first, frames).expect("what the boot reserved answers");
    Some(first.address())
}
