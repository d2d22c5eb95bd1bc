//! A heap, in frames that no case gets.
#![expect(unsafe_code, reason = "is the allocator of the image")]

use crate::frames;
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use hyp_abi::FRAME_SIZE;
use spin::mutex::TicketMutex;

/// Frames of the heap: 4 MiB, of which the bookkeeping of a few hundred guests takes a part.
const FRAMES: u64 = 1024;

/// No block of the heap is larger than 2^32 bytes.
const ORDERS: usize = 32;

/// The allocator. No interrupt handler allocates, so the lock is never wanted by who has it.
struct Allocator(TicketMutex<Heap<ORDERS>>);

#[global_allocator]
static HEAP: Allocator = Allocator(TicketMutex::new(Heap::new()));

/// Gives the heap its frames. Once, before anything is allocated.
///
/// # Panics
/// If the machine has too little memory for it.
pub(crate) fn init() {
    let range = frames::allocate(FRAMES)
        .expect("there are frames for a heap")
        .range();
    let mut heap = HEAP.0.lock();
    // SAFETY: the frames are RAM, mapped one to one, and nobody else's from now on.
    unsafe { heap.init(range.base as usize, (range.frames * FRAME_SIZE) as usize) };
}

// SAFETY: the heap hands out memory of its frames that is apart and aligned as asked, and is used under its lock.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .alloc(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that `alloc` gave it for this layout.
            unsafe { self.0.lock().dealloc(pointer, layout) };
        }
    }
}
