//! EL2's private addresses: stacks between guard pages, and windows.
//!
//! All else of EL2 is mapped at its physical address. The private area is one level-0 entry (512 GiB) in which the
//! machine has no memory and no registers that EL2 uses; each CPU has a slot of 128 KiB there:
//!
//! | offset | what |
//! |---|---|
//! | 0 | window, 64 KiB, empty but while in use |
//! | 64 KiB | guard, 8 KiB, never mapped |
//! | 72 KiB | stack, 8 KiB |
//! | 80 KiB | guard up to the end of the slot |

use crate::percpu::STACK_SIZE;
use crate::window::WINDOW_FRAMES;
use core::sync::atomic::{AtomicU64, Ordering};
use hyp_core::addr::FRAME_SIZE;

/// Bytes of one CPU's slot.
const SLOT: u64 = 128 * 1024;

/// Where the stack is in a slot. Its address has bit 13 set throughout, and the guard below has it clear, which is
/// how the vectors know that a stack has run over.
const STACK: u64 = WINDOW_FRAMES * FRAME_SIZE + STACK_SIZE;

/// Bits of address below a level-0 entry.
const AREA_SHIFT: u32 = 39;

const _: () = assert!(STACK & STACK_SIZE != 0 && (STACK - STACK_SIZE) & STACK_SIZE == 0);

/// Where the area begins. Set once, early at boot.
static BASE: AtomicU64 = AtomicU64::new(0);

/// Chooses the highest level-0 entry that none of `used` (start and end of a range) lies in.
pub(crate) fn choose(used: impl Iterator<Item = (u64, u64)> + Clone) -> Option<()> {
    let free = |area: &u64| {
        used.clone()
            .all(|(start, end)| end <= area << AREA_SHIFT || start >= (area + 1) << AREA_SHIFT)
    };
    let area = (1..512).rev().find(free)?;
    BASE.store(area << AREA_SHIFT, Ordering::Relaxed);
    Some(())
}

/// The first address of a CPU's window.
pub(crate) fn window(cpu: usize) -> u64 {
    BASE.load(Ordering::Relaxed) + cpu as u64 * SLOT
}

/// The lowest address of a CPU's stack.
pub(crate) fn stack(cpu: usize) -> u64 {
    window(cpu) + STACK
}

/// The address at which the stack of a CPU begins, downwards.
pub(crate) fn stack_top(cpu: usize) -> u64 {
    stack(cpu) + STACK_SIZE
}
