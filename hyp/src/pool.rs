//! The pool of pages for tables and nodes: two buddy heaps behind one lock.
//!
//! What EL2 reserved at boot and what the host donated are kept apart, because only the latter can be given back.
//! Pages of the boot are used first. The heaps keep their lists in the free pages themselves, so they only ever
//! hold pages that EL2 owns and has mapped; a page is zeroed when it is handed out.

#![expect(unsafe_code, reason = "hands memory to an allocator and takes it back")]

use crate::cache;
use buddy_system_allocator::Heap;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use hyp_core::addr::{FRAME_SIZE, Frame, FrameSpan, PhysAddr};
use hyp_core::hardware::TablePage;
use spin::Mutex;

/// Blocks up to 2 MiB are kept whole.
const ORDERS: usize = 22;

/// The most frames that the pool gives back in one piece: 64 KiB.
const MAX_TAKEN: u64 = 16;

/// The pool.
static POOL: Mutex<Pool> = Mutex::new(Pool::new());

struct Pool {
    /// What the boot reserved.
    boot: Heap<ORDERS>,
    /// What the host donated.
    donated: Heap<ORDERS>,
    /// All that the boot reserved lies in here.
    reservation: Option<FrameSpan>,
    free: u64,
    total: u64,
}

impl Pool {
    const fn new() -> Self {
        Self {
            boot: Heap::empty(),
            donated: Heap::empty(),
            reservation: None,
            free: 0,
            total: 0,
        }
    }

    fn is_of_boot(&self, frame: Frame) -> bool {
        self.reservation
            .is_some_and(|reservation| reservation.contains(frame))
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
    let heap = if pool.is_of_boot(frames.start()) {
        &mut pool.boot
    } else {
        &mut pool.donated
    };
    // SAFETY: the caller vouches that the memory is ours and unused. It stays so until `take` removes it.
    unsafe { heap.add_to_heap(start, start + frames.bytes() as usize) };
}

/// A zeroed page, or `None` if there is none.
pub(crate) fn allocate() -> Option<TablePage> {
    allocate_block(1)
}

/// `frames` zeroed pages side by side, a power of two up to [`MAX_TAKEN`], aligned to their whole size; `None` if there
/// are none. Named by the first.
pub(crate) fn allocate_block(frames: u64) -> Option<TablePage> {
    let mut pool = POOL.lock();
    let block = pool
        .boot
        .alloc(layout(frames))
        .or_else(|()| pool.donated.alloc(layout(frames)))
        .ok()?;
    pool.free -= frames;
    drop(pool);
    let frame = frame_of(block);
    let start = frame.address().value();
    // SAFETY: the pages came from the pool, so they are mapped and nobody else has them.
    unsafe { cache::zero(start, start + frames * FRAME_SIZE) }
        .expect("EL2's own memory answered with an abort");
    Some(TablePage::new(frame))
}

/// Takes a page back.
pub(crate) fn free(page: TablePage) {
    free_block(page, 1);
}

/// Takes back what [`allocate_block`] gave.
pub(crate) fn free_block(page: TablePage, frames: u64) {
    let address: *mut u8 = ptr::with_exposed_provenance_mut(page.frame().address().value() as usize);
    let Some(address) = NonNull::new(address) else {
        return;
    };
    let mut pool = POOL.lock();
    pool.free += frames;
    let heap = if pool.is_of_boot(page.frame()) {
        &mut pool.boot
    } else {
        &mut pool.donated
    };
    // SAFETY: a `TablePage` in no table came from `allocate_block`, with this layout, out of the heap that its address
    // belongs to.
    unsafe { heap.dealloc(address, layout(frames)) };
}

/// Takes at most `limit` donated frames out of the pool for good, in one naturally aligned block.
pub(crate) fn take(limit: u64) -> Option<FrameSpan> {
    let mut frames = MAX_TAKEN.min(1 << limit.checked_ilog2()?.min(63));
    let mut pool = POOL.lock();
    loop {
        if let Ok(block) = pool.donated.alloc(layout(frames)) {
            pool.free -= frames;
            pool.total -= frames;
            return FrameSpan::new(frame_of(block), frames);
        }
        if frames == 1 {
            return None;
        }
        frames /= 2;
    }
}

/// How many pages are free, and how many there are.
pub(crate) fn pages() -> (u64, u64) {
    let pool = POOL.lock();
    (pool.free, pool.total)
}

/// Room for something that stays for good: `bytes` bytes in whole pages, in one piece, zeroed.
pub(crate) fn allocate_for_good(bytes: u64) -> Option<PhysAddr> {
    let frames = bytes.div_ceil(FRAME_SIZE).max(1).next_power_of_two();
    let size = (frames * FRAME_SIZE) as usize;
    let layout = Layout::from_size_align(size, size).ok()?;
    let mut pool = POOL.lock();
    let block = pool.boot.alloc(layout).ok()?;
    pool.free -= frames;
    drop(pool);
    let start = frame_of(block).address();
    // SAFETY: as in `allocate`.
    unsafe { cache::zero(start.value(), start.value() + frames * FRAME_SIZE) }
        .expect("EL2's own memory answered with an abort");
    Some(start)
}
