//! The heap: the kernel's.

use super::skin;
use core::alloc::{GlobalAlloc, Layout};

struct Kmalloc;

#[global_allocator]
static HEAP: Kmalloc = Kmalloc;

// SAFETY: the kernel's allocator gives memory that is apart and, as the skin asks for it, aligned.
unsafe impl GlobalAlloc for Kmalloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment can be asked for.
        unsafe { skin::fh_allocate(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: the caller promises that `alloc` gave it, and that nobody uses it any more.
        unsafe { skin::fh_free(pointer) };
    }
}
